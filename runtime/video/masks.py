"""Label masks on disk: which pixel belongs to which object."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from ...common.errors import MaskError
from ...common.files import atomic_path
from ...common.types import Labels
from .frame import MAX_PIXELS
from .images import FORMATS, ORIENTATION, full_pages, upright
from .mask_coding import (
    lossy_picture,
    picture_of_colours,
    picture_of_indices,
    picture_of_values,
    picture_with_alpha,
)
from .mask_edges import MAX_VALUES as MAX_VALUES
from .mask_ids import VOID, MaskIds, is_written
from .mask_picture import REMEDY, MaskPicture, check_objects
from .palette import PALETTE
from .png_pixels import check_pixels

MASK_FORMATS = FORMATS | {b"GIF8": GifImageFile, b"II+\0": TiffImageFile, b"MM\0+": TiffImageFile}
"""First bytes of a file -> Pillow's reader; unlike OpenCV, Pillow also reads GIF and BigTIFF."""

NUMPY = b"\x93NUMPY"

MASK_SUFFIXES = (
    ".png", ".tif", ".tiff", ".npy", ".bmp", ".gif", ".webp", ".jpg", ".jpeg",
)  # fmt: skip
"""Suffixes by which masks are found in folders, best first; a mask given by name may have any."""

DEPTH_BYTE = 24
"""Where the header of a PNG has its bits per sample; Pillow does not tell them."""

BITS, COMPRESSION, PHOTOMETRIC, SAMPLE_FORMAT = 0x0102, 0x0103, 0x0106, 0x0153
"""TIFF tags: bits per sample, how rows are packed, whether 0 is white, and whether samples are signed."""

LOSSY_COMPRESSION = (6, 7, 33003, 33005, 34712, 50001)
"""Of TIFF: JPEG, JPEG 2000 and WebP."""

OBJECT_255 = "maskring:255"
"""Text chunk of a PNG whose index 255 is an object beside others."""

MAX_FILE_BYTES = 1 << 28


def read_mask(path: Path | str | Pillow.Image, *, allow_empty: bool = False) -> Labels:
    """Read object ids from an image file.

    ``docs/sources.md`` has the table of what is read how. What is ambiguous and decided by a rule is said in a
    warning.

    Args:
        path: the file, or an image that Pillow has opened.
        allow_empty: accept a mask without objects, as annotations of later frames may be, and anything that
            only a tracker would take for an object, such as pixels that stand alone.

    Returns:
        [H, W] uint8, 0 is the background.

    Raises:
        MaskError: when the file is missing, damaged, no image or empty, or its values cannot be objects.
    """
    picture = read_picture(path)
    ids = MaskIds([picture.marks])
    for sentence in (*picture.notes, *ids.notes):
        warnings.warn(sentence, stacklevel=2)
    labels = ids.labels(picture)
    if not allow_empty:
        check_drawn(picture, labels)
    return labels


def check_drawn(picture: MaskPicture, labels: Labels) -> None:
    """Check that a mask, which someone drew to be tracked, shows objects.

    Args:
        picture: the mask.
        labels: [H, W], its object ids.

    Raises:
        MaskError: when it is empty, dithered, or has outlines in colours of their own.
    """
    check_not_empty(picture.name, labels)
    if not is_written(picture.marks):
        check_objects(picture.name, labels)


def check_not_empty(name: Path | str, labels: Labels) -> None:
    """Check that a mask shows an object.

    Raises:
        MaskError: when it does not.
    """
    if not labels.any():
        raise MaskError(f"the mask {name} holds no object", "draw at least one object into it")


def write_mask(path: Path | str, ids: Labels) -> None:
    """Write object ids as a palette PNG in DAVIS colours. The file appears only when it is complete.

    Args:
        path: the file.
        ids: [H, W] uint8.

    Raises:
        OutputError: when it cannot be written.
        ValueError: when ``ids`` is empty or has another shape or type.
    """
    with atomic_path(Path(path)) as partial:
        partial.write_bytes(encode_mask(ids))


def encode_mask(ids: Labels) -> bytes:
    """The bytes of a palette PNG in DAVIS colours.

    Args:
        ids: [H, W] uint8.

    Raises:
        ValueError: when ``ids`` is empty or has another shape or type.
    """
    if ids.ndim != 2 or ids.dtype != np.uint8 or not ids.size:
        raise ValueError(f"ids must be a filled uint8 array [H, W], not {ids.dtype} {list(ids.shape)}")
    height, width = ids.shape
    picture = Pillow.frombuffer("P", (width, height), np.ascontiguousarray(ids), "raw", "P", 0, 1)
    picture.putpalette(PALETTE.tobytes())
    texts = PngInfo()
    if ids.max() == VOID:
        texts.add_text(OBJECT_255, "object")
    file = io.BytesIO()
    # Masks are runs of equal pixels, which run-length encoding packs best and fastest.
    picture.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=texts)
    return file.getvalue()


def read_picture(source: Path | str | Pillow.Image) -> MaskPicture:
    """The areas of a mask, upright, before they have ids.

    Args:
        source: as for :func:`read_mask`.

    Raises:
        MaskError: see :func:`read_mask`.
    """
    if isinstance(source, Pillow.Image):
        return _read("image", source, b"")
    path = Path(source)
    data = _bytes(path)
    if data.startswith(NUMPY):
        return _array(path, data)
    reader = next((reader for start, reader in MASK_FORMATS.items() if data.startswith(start)), None)
    if reader is None:
        raise MaskError(f"the mask {path} is not a PNG or another image that can hold ids", REMEDY)
    try:
        if reader is PngImageFile:
            with PngImageFile(io.BytesIO(data)) as picture:
                _check_size(str(path), picture)
                picture.verify()  # every checksum, which decoding does not look at
            check_pixels(data)
        with reader(io.BytesIO(data)) as picture:
            return _read(str(path), picture, data)
    except MaskError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        if reader is TiffImageFile and isinstance(error, (SyntaxError, LookupError)):
            raise MaskError(
                f"the mask {path} is damaged, or a TIFF of a kind that Pillow does not know ({error})",
                "save it again, as PNG or in 8 or 16 bits",
            ) from error
        raise MaskError(f"the mask {path} is damaged ({error})", "save or copy it again") from error


@dataclass(frozen=True)
class _Storage:
    """What a file says about its pixels beyond Pillow's mode.

    Attributes:
        depth: bits per sample.
        lossy: they were compressed with loss.
        signed: they may be negative.
        inverted: 0 is white, and Pillow leaves it so.
    """

    depth: int = 8
    lossy: bool = False
    signed: bool = False
    inverted: bool = False


def _read(name: str, picture: Pillow.Image, data: bytes) -> MaskPicture:
    """The areas of an image that Pillow has opened.

    Args:
        data: the file; empty where it is not known.
    """
    _check_size(name, picture)
    if (pages := _pages(picture)) > 1:
        raise MaskError(f"the mask {name} holds {pages} pictures", "save each as a file of its own")
    storage = _storage(picture, data)
    picture.load()
    if storage.depth == 16 and picture.mode not in ("I", "I;16", "I;16B", "I;16L", "F"):
        raise MaskError(f"the mask {name} has 16 bits per channel and several channels", REMEDY)
    areas = _areas(name, picture, storage)
    # Pillow turns TIFFs itself; 10.0 leaves the tag in place.
    orientation = 1 if isinstance(picture, TiffImageFile) else picture.getexif().get(ORIENTATION, 1)
    return MaskPicture(name, upright(areas.areas, orientation), areas.marks, areas.notes)


def _storage(picture: Pillow.Image, data: bytes) -> _Storage:
    if isinstance(picture, TiffImageFile):
        tags = picture.tag_v2
        bits, formats = _tuple(tags.get(BITS, 8)), _tuple(tags.get(SAMPLE_FORMAT, 1))
        inverted = max(bits) > 8 and tags.get(PHOTOMETRIC) == 0
        return _Storage(max(bits), tags.get(COMPRESSION) in LOSSY_COMPRESSION, 2 in formats, inverted)
    if isinstance(picture, PngImageFile):
        return _Storage(data[DEPTH_BYTE] if data else 8)
    return _Storage(lossy=picture.format in ("JPEG", "MPO") or b"VP8 " in _webp_chunks(data))


def _webp_chunks(data: bytes) -> set[bytes]:
    """Kinds of the chunks of a WebP file."""
    kinds, at = set[bytes](), 12
    while data.startswith(b"RIFF") and at + 8 <= len(data):
        kinds.add(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return kinds


def _check_size(name: str, picture: Pillow.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise MaskError(f"the mask {name} claims to hold {width} x {height} pixels", REMEDY)


def _areas(name: str, picture: Pillow.Image, storage: _Storage) -> MaskPicture:
    """The areas as they are stored, by Pillow's mode of the image."""
    mode, clear = picture.mode, picture.info.get("transparency")
    pixels = np.asarray(picture)
    if mode == "P":
        return picture_of_indices(name, pixels, *_palette(picture), solid=OBJECT_255 in picture.info)
    if mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        inverted = storage.inverted and mode.startswith("I;16")
        seen = pixels != clear if isinstance(clear, int) else None
        return _deep(name, 65535 - pixels if inverted else pixels, seen)
    if mode in ("RGBA", "PA", "RGBX"):
        pixels = np.asarray(picture.convert("RGBA"))
        return picture_with_alpha(name, pixels[..., :3], pixels[..., 3], lossy=storage.lossy)
    if mode == "LA":
        return picture_with_alpha(name, pixels[..., 0], pixels[..., 1], lossy=storage.lossy)
    if storage.lossy and mode in ("L", "RGB"):
        return lossy_picture(name, pixels)
    if mode in ("1", "L"):
        return _greys(name, pixels, 1 if mode == "1" else storage.depth, clear, storage.signed)
    if mode == "RGB":
        seen = (pixels != clear).any(axis=-1) if isinstance(clear, tuple) else None
        return picture_of_colours(name, pixels, seen)
    raise MaskError(f"the mask {name} has the colour space {mode}", REMEDY)


def _greys(name: str, pixels: NDArray[Any], depth: int, clear: object, signed: bool) -> MaskPicture:
    """Areas of grey values of up to 8 bits.

    Args:
        clear: the value that is transparent, as Pillow tells it; None where there is none.
    """
    # Pillow spreads the values of 1, 2 and 4 bits over 0 to 255, but not the transparent one.
    brightest = (1 << depth) - 1
    grey = (pixels * 255 if depth == 1 and pixels.dtype == np.bool_ else pixels).astype(np.uint8)
    grey = grey // (255 // brightest)
    if signed and grey.max(initial=0) > 127:
        return picture_of_values(name, grey.view(np.int8), 127)
    if isinstance(clear, int):
        return picture_of_values(name, grey, brightest, grey != min(clear, brightest))
    return picture_of_values(name, grey, brightest)


def _palette(picture: Pillow.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """RGB colours [256, 3] and opacity [256] of a palette; entries that the file lacks are black."""
    colours, alpha = np.zeros((256, 3), np.uint8), np.full(256, 255, np.uint8)
    stored = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    colours[: len(stored)] = stored
    clear = picture.info.get("transparency")
    if isinstance(clear, bytes):
        alpha[: len(clear)] = np.frombuffer(clear, np.uint8)[:256]
    elif isinstance(clear, int) and 0 <= clear < 256:
        alpha[clear] = 0
    return colours, alpha


def _deep(name: str, values: NDArray[Any], visible: NDArray[np.bool_] | None = None) -> MaskPicture:
    """Areas of integers of more than 8 bits, or of floats that are whole numbers."""
    whole = np.isfinite(values).all() and (values == np.round(values)).all()
    if not (whole and values.max() < 1 << 31):
        raise MaskError(f"the mask {name} holds fractions or giant numbers", "save ids as whole numbers")
    return picture_of_values(name, values.astype(np.int64), (1 << 16) - 1, visible)


def _array(path: Path, data: bytes) -> MaskPicture:
    """Areas of an array in NumPy's file format."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise MaskError(f"the mask {path} is damaged ({error})", "save or copy it again") from error
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.squeeze(0 if array.shape[0] == 1 else 2)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise MaskError(
            f"the mask {path} is {array.dtype} {list(array.shape)}",
            "save object ids [height, width], and several masks as several files",
        )
    if array.size > MAX_PIXELS:
        raise MaskError(f"the mask {path} holds {array.size} pixels", REMEDY)
    if array.dtype == np.bool_:
        return picture_of_values(str(path), array.astype(np.uint8), 1)
    return picture_of_values(str(path), array, 255) if array.dtype == np.uint8 else _deep(str(path), array)


def _pages(picture: Pillow.Image) -> int:
    """Pictures in a file, thumbnails left out; moves to the first of them."""
    pages = full_pages(picture)
    if isinstance(picture, TiffImageFile):
        picture.seek(pages[0])
    return len(pages)


def _tuple(value: Any) -> tuple[int, ...]:
    """A TIFF tag of one number or of one for each channel."""
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _bytes(path: Path) -> bytes:
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises on names that are too long)
        raise MaskError(f"the mask {path} does not exist", "check the path")
    if not path.is_file():
        raise MaskError(f"the mask {path} is not a file", "name one image file")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MaskError(f"the mask {path} is larger than {MAX_FILE_BYTES >> 20} MB", REMEDY)
        return path.read_bytes()
    except OSError as error:
        raise MaskError(
            f"the mask {path} cannot be read ({error.strerror})", "check its permissions"
        ) from error
