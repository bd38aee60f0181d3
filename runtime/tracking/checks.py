"""Checks of what the user gives to the tracker."""

from __future__ import annotations

import numpy as np

from ...common.errors import MaskError, SourceError
from ...common.types import Array
from ..backends.device_frame import Pixels


def check_frame(frame: Pixels) -> None:
    """Check that a frame is uint8 [H, W, 3] and not empty.

    Raises:
        SourceError: when it is not.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise SourceError(
            f"the frame is {frame.dtype} {list(frame.shape)}", "give uint8 RGB pixels [height, width, 3]"
        )


def check_mask(mask: Array, shape: tuple[int, ...]) -> None:
    """Check that a mask is uint8 and has the size of a frame.

    Args:
        mask: the mask.
        shape: (H, W) of the frame.

    Raises:
        MaskError: when the type or the size differs.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise MaskError(
            f"the mask is {mask.dtype} {list(mask.shape)}", "give uint8 object ids [height, width]"
        )
    if mask.shape != shape:
        raise MaskError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels and the frame is {shape[1]}x{shape[0]}",
            "draw the mask at the size of the frames",
        )
