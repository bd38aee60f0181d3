"""Label masks on disk: which pixel belongs to which object."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngImageFile

from ...common.errors import MaskError
from ...common.files import atomic_path
from ...common.types import Labels
from .frame import MAX_PIXELS
from .palette import PALETTE

SIGNATURE = b"\x89PNG\r\n\x1a\n"

DEPTH_BYTE = 24
"""Where the header of a PNG has its bits per sample; Pillow does not tell them."""

ORIENTATION = 0x0112
"""EXIF tag: 1 is upright, 2 to 8 are mirrored or turned."""

MAX_VALUES = 32
"""More grey values or colours than this are a photograph, not objects."""

WHITE = 255

FEW_BLENDS = 2
"""Up to so many values without a block of 3x3 pixels are small objects; more of them are soft edges."""

MAX_FILE_BYTES = 1 << 28

REMEDY = "save it as a palette PNG in which the index of a pixel is the number of its object"


def read_mask(path: Path | str, *, allow_empty: bool = False) -> Labels:
    """Read object ids from a PNG.

    - Palette: the index is the id.
    - Grey: the value is the id. But a mask of only black and the brightest value (0 and 255 in DAVIS-2016) is
      object 1, and so is a white shape with soft edges, from half the brightness on.
    - Colour: black is the background. Colours of the DAVIS palette mean their index, greys are read as above,
      and others are numbered from 1 in the order of their (red, green, blue) values.
    - Alpha: fully transparent pixels are background.

    An EXIF orientation is applied, as it is to frames.

    Args:
        path: the file.
        allow_empty: accept a mask without objects, as annotations of later frames may be.

    Returns:
        [H, W] uint8, 0 is the background.

    Raises:
        MaskError: when the file is missing, not a PNG, damaged, of 16 bits or empty, holds too many values,
            or shows several objects with soft edges.
    """
    path = Path(path)
    labels = _read(path)
    if not allow_empty and not labels.any():
        raise MaskError(f"the mask {path} holds no object", "draw at least one object into it")
    return labels


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
    file = io.BytesIO()
    # Masks are runs of equal pixels, which run-length encoding packs best and fastest.
    picture.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


def is_palette_png(data: bytes) -> bool:
    """Whether the bytes are a PNG with a palette, whose pixels are object ids by definition."""
    with PngImageFile(io.BytesIO(data)) as picture:
        return bool(picture.mode == "P")


def _read(path: Path) -> Labels:
    """Labels of a file, upright."""
    data = _bytes(path)
    if not data.startswith(SIGNATURE):
        raise MaskError(f"the mask {path} is not a PNG", REMEDY)
    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            picture.verify()  # every checksum, which decoding does not look at
        picture = PngImageFile(io.BytesIO(data))
        depth, (width, height) = data[DEPTH_BYTE], picture.size
        if width * height > MAX_PIXELS:
            raise MaskError(f"the mask {path} claims to hold {width} x {height} pixels", REMEDY)
        if depth == 16:
            raise MaskError(f"the mask {path} has 16 bits per pixel", REMEDY)
        pixels = np.asarray(picture)
        exif = Pillow.Exif()
        exif.load(picture.info.get("exif", b""))
    except MaskError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise MaskError(f"the mask {path} is damaged ({error})", "save or copy it again") from error
    return _upright(_labels(pixels, picture.mode, depth, path), exif.get(ORIENTATION, 1))


def _labels(pixels: NDArray[Any], mode: str, depth: int, path: Path) -> Labels:
    """Object ids [H, W] of pixels as Pillow decodes them, by its name of their mode."""
    if mode == "P":
        return pixels
    if mode in ("1", "L"):
        # Pillow spreads the values of 1, 2 and 4 bits over 0 to 255.
        brightest = (1 << depth) - 1
        grey = (pixels * 255 if mode == "1" else pixels).astype(np.uint8) // (255 // brightest)
        return _from_grey(grey, brightest, path)
    if mode in ("LA", "RGBA"):
        pixels = np.where(pixels[..., -1:] > 0, pixels[..., :-1], 0).astype(np.uint8)
    return _from_grey(pixels[..., 0], 255, path) if mode == "LA" else _from_colours(pixels, path)


def _upright(pixels: Labels, orientation: int) -> Labels:
    """Stored pixels [H, W] as they are to be shown."""
    if not 2 <= orientation <= 8:
        return np.ascontiguousarray(pixels)
    mirrored, turns = ((1, 0), (0, 2), (1, 2), (1, 1), (0, 3), (1, 3), (0, 1))[orientation - 2]
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def _bytes(path: Path) -> bytes:
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises on names that are too long)
        raise MaskError(f"the mask {path} does not exist", "check the path")
    if not path.is_file():
        raise MaskError(f"the mask {path} is not a file", "name one PNG file")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MaskError(f"the mask {path} is larger than {MAX_FILE_BYTES >> 20} MB", REMEDY)
        return path.read_bytes()
    except OSError as error:
        raise MaskError(
            f"the mask {path} cannot be read ({error.strerror})", "check its permissions"
        ) from error


def _from_grey(grey: Labels, brightest: int, path: Path) -> Labels:
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    objects = values[values > 0]
    if len(objects) == 1 and objects[0] == brightest:
        return (grey > 0).astype(np.uint8)
    flat = _flat_values(grey)
    blends = np.setdiff1d(objects, flat)
    if WHITE in flat and len(blends) == len(objects) - 1 and counts[blends].sum() <= counts[WHITE]:
        return (grey > WHITE // 2).astype(np.uint8)
    if len(objects) > MAX_VALUES:
        raise MaskError(
            f"the mask {path} has {len(values)} grey values, so they cannot all be objects", REMEDY
        )
    _check_hard_edges(len(blends), len(objects), path)
    return grey


def _flat_values(image: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Values that fill a block of 3x3 pixels somewhere, as those along a soft edge do not."""
    across = (image[:, 2:] == image[:, 1:-1]) & (image[:, :-2] == image[:, 1:-1])
    rows = image[:, 1:-1]
    flat = across[2:] & across[1:-1] & across[:-2] & (rows[2:] == rows[1:-1]) & (rows[:-2] == rows[1:-1])
    return np.unique(rows[1:-1][flat])


def _check_hard_edges(blends: int, objects: int, path: Path) -> None:
    if blends > FEW_BLENDS and blends > objects - blends > 0:
        raise MaskError(
            f"the mask {path} has soft edges: {blends} colours or greys appear along edges alone",
            "draw without smoothing, scale without interpolation, and " + REMEDY,
        )


def _from_colours(image: NDArray[np.uint8], path: Path) -> Labels:
    """Labels of an RGB picture [H, W, 3]."""
    red, green, blue = (image[..., channel].astype(np.uint32) for channel in range(3))
    packed = (red << 16) | (green << 8) | blue
    colours, positions = np.unique(packed, return_inverse=True)
    ids = _ids_of(colours)
    if ids is None and (colours == (colours & 0xFF) * 0x010101).all():
        return _from_grey(np.ascontiguousarray(image[..., 0]), 255, path)
    if len(colours) > MAX_VALUES + 1:
        raise MaskError(f"the mask {path} has {len(colours)} colours, so they cannot all be objects", REMEDY)
    if colours[0] != 0:
        raise MaskError(f"the mask {path} has no black background", "paint everything but the objects black")
    objects = colours[1:]
    _check_hard_edges(len(np.setdiff1d(objects, _flat_values(packed))), len(objects), path)
    if ids is None:
        ids = np.arange(len(colours), dtype=np.uint8)
    labels: Labels = ids[positions.reshape(packed.shape)]
    return labels


def _ids_of(colours: NDArray[np.uint32]) -> Labels | None:
    """Object ids of packed RGB colours when all of them belong to the DAVIS palette, else None."""
    palette = {int.from_bytes(colour.tobytes(), "big"): index for index, colour in enumerate(PALETTE)}
    if any(int(colour) not in palette for colour in colours):
        return None
    return np.array([palette[int(colour)] for colour in colours], np.uint8)
