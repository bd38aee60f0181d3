"""Image files as frames."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ...common.errors import SourceError
from ...common.types import Image
from .frame import check_pixel_limit

T = TypeVar("T", bound=np.generic)

ORIENTATION = 0x0112
"""EXIF tag: 1 is upright, 2 to 8 are mirrored or turned."""

REDUCED_IMAGE = 0x00FE
"""TIFF tag: bit 0 marks a page that is a thumbnail of another."""

MAX_EMPTY = (1 << 12) - 1
"""Largest value of 16-bit pixels whose upper 8 bits hold next to nothing: 10 or 12 bits of a camera."""

WEBP = b"RIFF"

FORMATS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8": JpegImageFile,
    b"BM": BmpImageFile,
    WEBP: WebPImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
}
"""First bytes of a file -> Pillow's reader. ``PIL.Image.open`` would add a pixel limit of its own."""


def read_image(path: Path) -> Image:
    """Read an image file.

    Grey is repeated in all channels and alpha is dropped. Of 16 bits the upper 8 remain. An EXIF orientation
    is applied.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        SourceError: when the file cannot be read or decoded, or claims to be giant.
    """
    try:
        data = path.read_bytes()
        height, width = header_size(data) or (0, 0)
        check_pixel_limit(path, height, width)
        image = _decoded(data) if data else None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "check its permissions") from error
    except (ValueError, cv2.error):
        image = None
    if image is None:
        raise SourceError(
            f"{path} cannot be decoded as an image",
            "replace the file, save it with 8 or 16 bits as PNG, JPEG or TIFF, or take it out of the folder",
        )
    return to_rgb(image)


def _decoded(data: bytes) -> NDArray[Any] | None:
    """Pixels as OpenCV decodes them, as they are to be shown; None for what it cannot decode."""
    pixels = np.frombuffer(data, np.uint8)
    if not data.startswith(WEBP):
        return cv2.imdecode(pixels, cv2.IMREAD_COLOR)
    # OpenCV 4.8 does not turn WebP files, newer ones do.
    image = cv2.imdecode(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return None
    try:
        with WebPImageFile(io.BytesIO(data)) as picture:
            orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds for broken tags; OpenCV has decoded the pixels
        orientation = 1
    return upright(image, orientation)


def upright(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Stored pixels [H, W, ...], turned and mirrored as EXIF says.

    Args:
        pixels: of an image file.
        orientation: by EXIF, 1 to 8; other values change nothing.
    """
    if not 2 <= orientation <= 8:
        return np.ascontiguousarray(pixels)
    mirrored, turns = ((1, 0), (0, 2), (1, 2), (1, 1), (0, 3), (1, 3), (0, 1))[orientation - 2]
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def to_rgb(image: NDArray[Any]) -> Image:
    """RGB of what OpenCV decoded: BGR or, from some cameras, grey; 8 or 16 bits."""
    if image.dtype != np.uint8:
        image = (image >> 8).astype(np.uint8)
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB), np.uint8)


def check_single_picture(path: Path) -> None:
    """Refuse an image file that holds more than a frame.

    Raises:
        SourceError: when it does.
    """
    if (count := count_pictures(path)) > 1:
        remedy = "save each of them as a file of one folder, or convert them to a video"
        raise SourceError(f"{path} holds {count} pictures in one image file", remedy)


def check_depth(path: Path) -> None:
    """Refuse an image that can be decoded, and has 16 bits whose upper half is empty.

    Raises:
        SourceError: when it has.
    """
    pixels = np.frombuffer(path.read_bytes(), np.uint8)
    deep = cv2.imdecode(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is not None and deep.dtype.itemsize == 2 and 0 < deep.max() <= MAX_EMPTY:
        bits = max(8, int(deep.max()).bit_length())
        raise SourceError(
            f"{path} has 16 bits, of which only {bits} are used, so that it would be read as almost black",
            f"multiply the values by {1 << (16 - bits)}, or save them as 8 bits",
        )


def count_pictures(path: Path) -> int:
    """Pictures in an image file: frames of an animation, pages of a TIFF. 1 where Pillow cannot tell.

    Thumbnails do not count.
    """
    try:
        data = path.read_bytes()
        reader = _reader(data)
        if reader is None:
            return 1
        with reader(io.BytesIO(data)) as picture:
            return len(full_pages(picture))
    except Exception:  # Pillow raises many kinds for broken headers
        return 1


def full_pages(picture: Pillow.Image) -> list[int]:
    """Positions of the pictures in a file that are no thumbnails; moves within the file."""
    count = int(getattr(picture, "n_frames", 1))
    if count == 1 or not isinstance(picture, TiffImageFile):
        return list(range(count))
    full = []
    for page in range(count):
        picture.seek(page)
        if not picture.tag_v2.get(REDUCED_IMAGE, 0) & 1:
            full.append(page)
    return full or [0]


def header_size(data: bytes) -> tuple[int, int] | None:
    """(H, W) by the header of a PNG, JPEG, BMP, WebP or TIFF file; no pixel is unpacked.

    Returns:
        None for other files, and where Pillow cannot read the header; OpenCV may still decode the file.

    Raises:
        ValueError: when a checksum in a PNG does not fit: its decoder would report that on stderr.
    """
    reader = _reader(data)
    if reader is None:
        return None
    try:
        with reader(io.BytesIO(data)) as picture:
            if reader is PngImageFile:
                picture.verify()
            return picture.height, picture.width
    except Exception as error:  # Pillow raises many kinds for broken headers
        if reader is PngImageFile:
            raise ValueError(str(error)) from error
        return None


def _reader(data: bytes) -> type[ImageFile] | None:
    return next((reader for start, reader in FORMATS.items() if data.startswith(start)), None)
