"""The object in a box, cut out by GrabCut."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Image

MIN_BOX_SIDE = 6
"""Pixels; GrabCut cannot cut an object out of a smaller box."""

GRABCUT_MARGIN = 0.5
"""Width of the surroundings from which GrabCut learns the background, as a fraction of the box, per side."""

GRABCUT_PIXELS = 1 << 17
"""Larger crops are scaled down first, so that a box in a 4K frame takes no longer."""

GRABCUT_ITERATIONS = 5

LIKELY, CERTAIN = 0.9, 0.25
"""Sizes of the ellipses in the box, relative to it, inside which the object is likely and certain. GrabCut's
own start, which takes the whole box for likely, includes more of the background."""


def cut_from_box(image: Image, box: tuple[int, int, int, int]) -> NDArray[np.bool_] | None:
    """Cut the object out of a box by GrabCut: two colour mixtures and a graph cut (Rother et al., SIGGRAPH 2004).

    The middle of the box counts as object, its corners as likely background. OpenCV's random numbers are
    seeded, so the same frame and box give the same object.

    Args:
        image: [H, W, 3] uint8 RGB.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; it must leave background around it.

    Returns:
        The object's pixels, [H, W] bool; None when the box is too small, leaves no background, or no object
        is found.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if min(x1 - x0, y1 - y0) < MIN_BOX_SIDE:
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
    background, object_model = np.zeros((1, 65)), np.zeros((1, 65))
    unused = (0, 0, 1, 1)
    cv2.grabCut(small, seeds, unused, background, object_model, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    foreground = (seeds % 2).astype(np.float32)
    if not foreground.any():
        return None
    inside = np.zeros((height, width), bool)
    full = cv2.resize(foreground, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    inside[top : y1 + above, left : x1 + beside] = full
    return inside if inside.any() else None


def _seeds_in_box(height: int, width: int) -> NDArray[np.uint8]:
    """GrabCut's initial classes of the pixels of a box, [H, W]."""
    y, x = np.ogrid[:height, :width]
    distance = np.hypot((2 * y + 1) / height - 1, (2 * x + 1) / width - 1)  # 1 on the inscribed ellipse
    seeds = np.where(distance < LIKELY, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return np.where(distance < CERTAIN, cv2.GC_FGD, seeds).astype(np.uint8)
