"""What the alpha channel of a mask says: which pixels are visible, and whether they are one object."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from .mask_edges import MAX_VALUES, flat_entries
from .mask_picture import REMEDY, MaskPicture, Visible, is_shape

MIN_FLAT_ALPHA = 32
"""Fainter areas count as transparent, unless there is nothing else."""

MIN_STEP = 16
"""Opacities that are closer to each other are one."""

MIN_SHARE = 0.01
"""Share of the visible pixels that an opacity needs to be an object's."""

EVEN = 16
"""Largest difference within 5x5 pixels of an area of one colour that was compressed with loss."""

FAR = 48
"""Distance of two colours that are none for one object."""


def least_opaque(alpha: NDArray[np.uint8]) -> int:
    """The opacity from which pixels are visible: half that of the faintest area.

    Args:
        alpha: [H, W].
    """
    flat = np.flatnonzero(flat_entries(alpha, 256))
    areas = flat[flat >= MIN_FLAT_ALPHA]
    return int(areas[0] + 1) // 2 if len(areas) else 1


def visible_by(alpha: NDArray[np.uint8]) -> Visible | None:
    """The visible pixels [H, W]; None where all are equally opaque.

    Args:
        alpha: [H, W].
    """
    if alpha.min() == alpha.max() > 0:
        return None
    return np.asarray(alpha >= least_opaque(alpha), np.bool_)


def check_alpha(picture: MaskPicture, alpha: NDArray[np.uint8]) -> MaskPicture:
    """Refuse an object that alpha alone cuts out, where alpha has several levels: they may be as many objects.

    Args:
        picture: of the visible pixels.
        alpha: [H, W].

    Returns:
        ``picture``.
    """
    if not is_shape(picture.marks):
        return picture
    inside = np.where(picture.areas > 0, alpha, 0)
    counts = np.bincount(inside.ravel(), minlength=256)
    levels = np.flatnonzero(flat_entries(inside, 256) & (counts >= MIN_SHARE * counts[1:].sum()))
    levels = levels[levels > 0]
    if 1 < len(levels) <= MAX_VALUES and (levels[-1] < MIN_FLAT_ALPHA or np.ptp(levels) >= MIN_STEP):
        raise MaskError(
            f"the mask {picture.name} is cut out by transparency of {len(levels)} levels, which may be objects",
            "make the object equally opaque, or " + REMEDY,
        )
    return picture


def shows_blurred_areas(colours: NDArray[np.uint8], visible: Visible) -> bool:
    """Whether pixels are several areas, each of one colour, which were compressed with loss.

    Args:
        colours: [H, W, 3] or [H, W].
        visible: [H, W].
    """
    planes = colours.reshape(*colours.shape[:2], -1)
    square = np.ones((5, 5), np.uint8)
    ranges = [cv2.dilate(plane, square) - cv2.erode(plane, square) for plane in np.moveaxis(planes, -1, 0)]
    core = cv2.erode(visible.astype(np.uint8), square) > 0
    even = core & (np.max(ranges, axis=0) <= EVEN)
    count = np.count_nonzero(even)
    if count < 0.5 * np.count_nonzero(core) or not count:
        return False
    points = planes[even].astype(np.float64)
    far = np.linalg.norm(points - np.median(points, axis=0), axis=1) >= FAR
    return bool(np.count_nonzero(far) >= MIN_SHARE * count)
