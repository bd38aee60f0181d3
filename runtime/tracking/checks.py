"""Checks of what the user gives to the tracker."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...common.errors import MaskError, SourceError, one_line
from ...common.types import Array, ArrayLike, Image, Labels
from ..backends.device_frame import DeviceFrame, Pixels


def as_frame(frame: ArrayLike | DeviceFrame) -> Pixels:
    """A frame of any kind as an array, without a copy where possible, and checked by :func:`check_frame`.

    Raises:
        SourceError: when it is no frame.
    """
    if not isinstance(frame, DeviceFrame):
        frame = _as_array(
            frame, SourceError, "frame", "wrap it in maskring.DeviceFrame, or copy it to the host"
        )
    check_frame(frame)
    return frame


def as_image(frame: ArrayLike) -> Image:
    """As :func:`as_frame`, for code that needs the pixels on the host.

    Raises:
        SourceError: when it is no frame, or is on a GPU.
    """
    pixels: Image = np.asarray(as_frame(frame))
    return pixels


def as_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Labels:
    """A mask of any kind as object ids [H, W], checked by :func:`check_mask`.

    Integers of any type are ids. An image of Pillow is a mask if its values or palette indices are ids:
    greys, and palettes that begin with black.

    Raises:
        MaskError: when it is no mask for a frame of this shape (H, W, ...).
    """
    palette = getattr(mask, "getpalette", lambda: None)()
    if palette is not None and any(palette[:3]):
        raise MaskError(
            "the mask is an image whose palette does not begin with black, so its indices may be no ids",
            "read it with maskring.read_mask(image)",
        )
    ids = _as_array(mask, MaskError, "mask", "copy it to the host")
    if ids.dtype.kind in "iu" and ids.dtype != np.uint8 and ids.size and ids.min() >= 0 and ids.max() <= 255:
        ids = ids.astype(np.uint8)
    check_mask(ids, shape[:2])
    return ids


def _as_array(
    pixels: Any, kind: type[MaskError] | type[SourceError], name: str, remedy: str
) -> np.ndarray[Any, Any]:
    """The values of anything that has ``__array__``, ``__array_interface__`` or ``__dlpack__``."""
    if isinstance(pixels, np.ndarray):
        return pixels
    try:
        exif: dict[int, Any] = pixels.getexif() if hasattr(pixels, "getexif") else {}
        if exif.get(0x0112, 1) != 1:  # the orientation is not upright
            raise kind(
                f"the {name} is an image that its EXIF orientation turns",
                "turn its pixels first: PIL.ImageOps.exif_transpose(image)",
            )
        if hasattr(pixels, "__dlpack__") and not hasattr(pixels, "__array__"):
            return np.from_dlpack(pixels)
        return np.asarray(pixels)
    except (SourceError, MaskError):
        raise
    except Exception as error:  # whatever the framework raises, of tensors on a GPU for example
        reason = one_line(" ".join(str(error).split())[:200]).rstrip(". ") or type(error).__name__
        raise kind(
            f"the {name} of type {type(pixels).__name__} cannot be read as an array ({reason})", remedy
        ) from error


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
            f"the mask is {mask.dtype} {list(mask.shape)}",
            "give object ids from 0 to 255 [height, width]: 3 * mask makes object 3 of a mask of booleans",
        )
    if mask.shape != shape:
        raise MaskError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels and the frame is {shape[1]}x{shape[0]}",
            "draw the mask at the size of the frames",
        )
