"""The object in a box, cut out by GrabCut."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Image

SMALLEST_BOX = 6
"""Pixels of a side below which a box says too little for GrabCut."""

GRABCUT_MARGIN = 0.5
"""How much of the box's size around it GrabCut looks at, on each side: the background it learns."""

GRABCUT_PIXELS = 1 << 17
"""More than this is scaled down first, so that a box in a 4K frame answers as quickly as one in a clip."""

GRABCUT_ITERATIONS = 5

LIKELY, CERTAIN = 0.9, 0.25
"""Ellipses in the box, as shares of its size, inside which the object is likely and certain. Where the whole
box is likely, as GrabCut has it by itself, more of what it holds beside the object is taken along."""


def cut_from_box(image: Image, box: tuple[int, int, int, int]) -> NDArray[np.bool_] | None:
    """The object in a box, by GrabCut: two colour mixtures and a graph cut (Rother et al., SIGGRAPH 2004).

    The middle of the box is taken for part of the object, its corners rather for background. The same frame
    and box give the same object: OpenCV's random numbers are seeded.

    Args:
        image: [H, W, 3] uint8 RGB.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 just outside; there must be pixels around it.

    Returns:
        [H, W] bool; None when the box is too small or leaves no background.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if min(x1 - x0, y1 - y0) < SMALLEST_BOX:
        return None
    beside, above = round(GRABCUT_MARGIN * (x1 - x0)) + 1, round(GRABCUT_MARGIN * (y1 - y0)) + 1
    left, top = max(0, x0 - beside), max(0, y0 - above)
    crop = image[top : y1 + above, left : x1 + beside]
    shrink = min(1.0, (GRABCUT_PIXELS / (crop.shape[0] * crop.shape[1])) ** 0.5)
    small = cv2.resize(crop, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    seeds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    rows = slice(round((y0 - top) * shrink), round((y1 - top) * shrink))
    columns = slice(round((x0 - left) * shrink), round((x1 - left) * shrink))
    seeds[rows, columns] = _seeds_in_box(*seeds[rows, columns].shape)
    if not (seeds == cv2.GC_BGD).any() or not (seeds % 2).any():  # GC_FGD and GC_PR_FGD are the odd ones
        return None
    cv2.setRNGSeed(0)
    ground, object_ = np.zeros((1, 65)), np.zeros((1, 65))
    unused = (0, 0, 1, 1)
    cv2.grabCut(small, seeds, unused, ground, object_, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = (seeds % 2).astype(np.float32)
    if not found.any():
        return None
    inside = np.zeros((height, width), bool)
    full = cv2.resize(found, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    inside[top : y1 + above, left : x1 + beside] = full
    return inside if inside.any() else None


def _seeds_in_box(height: int, width: int) -> NDArray[np.uint8]:
    """What GrabCut is told of the pixels of a box [H, W]."""
    y, x = np.ogrid[:height, :width]
    distance = np.hypot((2 * y + 1) / height - 1, (2 * x + 1) / width - 1)  # 1 on the inscribed ellipse
    seeds = np.where(distance < LIKELY, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return np.where(distance < CERTAIN, cv2.GC_FGD, seeds).astype(np.uint8)
