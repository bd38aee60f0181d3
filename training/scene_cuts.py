"""Scene cuts. Training windows must not span one: the colours to copy would be in no reference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

THUMBNAIL_SIZE = (32, 32)

MIN_CHANGE = 18.0
"""Least mean change of a thumbnail's values (0 to 255) at a cut."""

MIN_CONTRAST = 3.0
"""Least ratio of the change at a cut to the median change around it."""

NEIGHBOURHOOD = 5
"""Frame pairs on each side that count as around a cut."""

Thumbnail = npt.NDArray[np.int16]


def thumbnail(image: npt.NDArray[np.uint8]) -> Thumbnail:
    """A frame [H, W, 3] uint8 as :func:`scene_starts` needs it, [32, 32, 3]."""
    return np.asarray(cv2.resize(image, THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA), np.int16)


def scene_starts(thumbnails: Sequence[Thumbnail]) -> list[int]:
    """Positions at which a scene begins, including 0.

    At a cut the whole picture changes at once, much more than between the frames around it; that
    distinguishes it from fast camera motion. Dissolves are not detected: their neighbouring frames still show
    the same things.
    """
    if not thumbnails:
        return []
    changes = np.array([np.abs(after - before).mean() for before, after in pairwise(thumbnails)])
    return [0, *(index + 1 for index in range(len(changes)) if _is_cut(changes, index))]


def _is_cut(changes: npt.NDArray[np.float64], index: int) -> bool:
    around = np.delete(
        changes[max(0, index - NEIGHBOURHOOD) : index + NEIGHBOURHOOD + 1], min(index, NEIGHBOURHOOD)
    )
    typical = np.median(around) if len(around) else 0.0
    return bool(changes[index] > max(MIN_CHANGE, MIN_CONTRAST * typical))
