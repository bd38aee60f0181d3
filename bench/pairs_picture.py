"""Draw the pairs of views in ``docs/training.md``: ``python bench/pairs_picture.py CLIP OTHER``.

CLIP is a video; pieces are cut from OTHER. Circles of one colour mark the same point in both views. Crosses
mark points of the first view that the second view hides. In the upper row both views show one frame; in the
lower row the second view is some frames later.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskring.training.clips import ClipLibrary
from maskring.training.network.encoder import STRIDE
from maskring.training.pairs import Pair, make_pair

PICTURE = Path(__file__).parents[1] / "docs" / "results" / "static_pairs.jpg"
CROP, ENLARGEMENT, MAX_CIRCLES, MAX_CROSSES = 256, 2, 14, 6


def drawing(pair: Pair) -> NDArray[np.uint8]:
    """Both views side by side with some anchors marked, BGR."""
    views = [
        np.ascontiguousarray(
            cv2.resize(view.transpose(1, 2, 0)[..., ::-1], None, fx=ENLARGEMENT, fy=ENLARGEMENT)
        )
        for view in pair.views
    ]
    hidden = np.isnan(pair.matches).any(1)
    step = ENLARGEMENT * STRIDE
    for number, index in enumerate(_spread(np.flatnonzero(~hidden), MAX_CIRCLES)):
        hue = np.array([[[180 * number / MAX_CIRCLES, 255, 255]]], np.uint8)
        colour = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        row, column = np.rint(step * pair.matches[index]).astype(int)
        for view, centre in ((views[0], _pixel(pair, index)), (views[1], (int(column), int(row)))):
            cv2.circle(view, centre, 9, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(view, centre, 7, colour, -1, cv2.LINE_AA)
    for index in _spread(np.flatnonzero(hidden), MAX_CROSSES):
        cv2.drawMarker(views[0], _pixel(pair, index), (0, 0, 255), cv2.MARKER_TILTED_CROSS, 16, 4)
    return np.hstack(views)


def _spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return indices[:: max(1, len(indices) // count)][:count]


def _pixel(pair: Pair, index: int) -> tuple[int, int]:
    """x and y of an anchor in the drawing of the first view."""
    row, column = divmod(int(pair.anchors[index]), CROP // STRIDE)
    return ENLARGEMENT * STRIDE * column, ENLARGEMENT * STRIDE * row


def main(clip: Path, other: Path) -> None:
    """Write the picture."""
    rng = np.random.default_rng(5)
    frames = ClipLibrary([clip], 480, cache_bytes=0).window(rng, 4, 4).frames
    pieces = ClipLibrary([other], 480, cache_bytes=0).window(rng, 2, 4).frames
    rows = [
        drawing(make_pair(window, pieces, rng, crop=CROP, zoom=0.6, distortion=0.15, count=512))
        for window in (frames[:1], frames)
    ]
    cv2.imwrite(str(PICTURE), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
