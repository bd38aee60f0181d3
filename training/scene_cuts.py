"""Where a video cuts to another scene: a window that spans a cut asks for colours that are nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

THUMBNAIL = (32, 32)
LEAST_CHANGE = 18.0  # mean change of a thumbnail's values, of 255
CONTRAST = 3.0  # a cut changes this many times what the frames around it do
REACH = 5  # frames to both sides

Thumbnail = npt.NDArray[np.int16]


def thumbnail(image: npt.NDArray[np.uint8]) -> Thumbnail:
    """What :func:`scene_starts` wants to know of a frame [H, W, 3] uint8: [32, 32, 3]."""
    return np.asarray(cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA), np.int16)


def scene_starts(thumbnails: Sequence[Thumbnail]) -> list[int]:
    """Positions at which a scene begins, 0 among them.

    A cut changes the whole picture at once and the frames around it much less, which tells it from a fast
    camera. Dissolves are not found: there, neighbouring frames still show the same things.
    """
    if not thumbnails:
        return []
    changes = np.array([np.abs(after - before).mean() for before, after in pairwise(thumbnails)])
    return [0, *(index + 1 for index in range(len(changes)) if _is_cut(changes, index))]


def _is_cut(changes: npt.NDArray[np.float64], index: int) -> bool:
    around = np.delete(changes[max(0, index - REACH) : index + REACH + 1], min(index, REACH))
    usual = np.median(around) if len(around) else 0.0
    return bool(changes[index] > max(LEAST_CHANGE, CONTRAST * usual))
