"""Scribbles against GrabCut's boxes: J of the first frame's object, on sequences in DAVIS layout.

The strokes are made from the annotation, as a user might draw them: two inside the object, along its long and its
short axis, through the places that are farthest from its edge; one around it, at a distance. The box is the tight one
with three pixels to spare.

    python bench/scribble.py --davis ROOT --split dev20 --model pico
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskring.models import resolve_model
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.interaction.grabcut import cut_from_box
from maskring.runtime.interaction.scribble import Scribble, outline_from_scribble
from maskring.runtime.video.folders import frames_in
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask
from maskring.studio.encoder import FrameEncoder

Line = list[tuple[int, int]]


def axis_strokes(truth: NDArray[np.bool_]) -> list[Line]:
    """Two strokes inside the object."""
    depth = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, 5)
    rows, columns = np.nonzero(truth)
    places = np.stack([columns, rows], 1).astype(float)
    centred = places - places.mean(0)
    _, axes = np.linalg.eigh(np.cov(centred.T))
    strokes = []
    for axis in (axes[:, 1], axes[:, 0]):
        along = centred @ axis
        low, high = np.percentile(along, [8, 92])
        edges = np.linspace(low, high, 9)
        line = []
        for low, high in pairwise(edges):
            part = (along >= low) & (along < high)
            if part.any():
                best = int(np.argmax(np.where(part, depth[rows, columns], -1)))
                line.append((int(columns[best]), int(rows[best])))
        strokes.append(line)
    return strokes


def ring_stroke(truth: NDArray[np.bool_]) -> Line:
    """One stroke around the object, off it."""
    height, width = truth.shape
    rows, columns = np.nonzero(truth)
    (top, bottom), (left, right) = (rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)
    reach = 0.62 * (right - left) + 6, 0.62 * (bottom - top) + 6
    line = []
    for angle in np.linspace(0, 2 * np.pi, 40):
        x, y = (np.sign(part) * abs(part) ** 0.5 for part in (np.cos(angle), np.sin(angle)))
        column = int(np.clip((left + right) / 2 + reach[0] * x, 0, width - 1))
        row = int(np.clip((top + bottom) / 2 + reach[1] * y, 0, height - 1))
        if not truth[row, column]:
            line.append((column, row))
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20", help="ImageSets/2016/NAME.txt")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args()
    encoder = FrameEncoder(lambda: resolve_model(Path(chosen.model)), chosen.threads)
    scores = []
    print(f"{'sequence':20} {'box':>6} {'scribble':>9}")
    for name in (chosen.davis / "ImageSets" / "2016" / f"{chosen.split}.txt").read_text().split():
        image = read_image(frames_in(chosen.davis / "JPEGImages" / "480p" / name)[0])
        truth = read_mask(frames_in(chosen.davis / "Annotations" / "480p" / name)[0]) > 0
        rows, columns = np.nonzero(truth)
        box = (columns.min() - 3, rows.min() - 3, columns.max() + 4, rows.max() + 4)
        cut = cut_from_box(image, (int(box[0]), int(box[1]), int(box[2]), int(box[3])))
        scribble = Scribble(axis_strokes(truth), [ring_stroke(truth)])
        drawn = outline_from_scribble(image, encoder.features(name, image), scribble)
        boxed = 0.0 if cut is None else intersection_over_union(cut, truth)
        scores.append((boxed, intersection_over_union(drawn, truth)))
        print(f"{name:20} {100 * scores[-1][0]:6.1f} {100 * scores[-1][1]:9.1f}", flush=True)
    box_mean, scribble_mean = np.mean(scores, axis=0)
    print(f"{'mean':20} {100 * box_mean:6.1f} {100 * scribble_mean:9.1f}")


if __name__ == "__main__":
    main()
