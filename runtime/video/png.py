"""PNG as far as masks need it: chunks with their checksums, and exact palette indices both ways.

Pillow would do, but a board that only tracks has none, and OpenCV expands palettes to colours. So indices are
read by handing OpenCV the same file under a palette in which entry i is the grey i. Layout of chunks: the PNG
specification, https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .picture_header import MAX_PIXELS, exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    INDEXED: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
"""Bits per sample that the specification allows for each colour type."""


class PngError(ValueError):
    """The bytes are no valid PNG; the message ends the sentence 'FILE ...'."""


@dataclass(frozen=True, slots=True)
class Header:
    """The IHDR chunk: size in pixels, bits per sample, colour type (``GREY`` ...), interlacing."""

    width: int
    height: int
    depth: int
    colour: int
    interlace: int = 0

    def pack(self) -> bytes:
        """The chunk's body."""
        return struct.pack(">IIBBBBB", self.width, self.height, self.depth, self.colour, 0, 0, self.interlace)


@dataclass(frozen=True, slots=True)
class Png:
    """A parsed file: its header, its compressed scan lines, and how they are to be turned (EXIF's 1 to 8);
    colour tables and other remarks are left out.
    """

    header: Header
    pixels: bytes
    orientation: int = 1


def parse(data: bytes) -> Png:
    """Split a PNG into what decides its pixel values, with every checksum verified.

    Raises:
        PngError: when the bytes are no PNG, truncated, damaged, or describe an impossible or huge picture.
    """
    chunks = read_chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise PngError("has no header")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if not width or not height or depth not in DEPTHS.get(colour, ()):
        raise PngError("has an impossible header")
    if width * height > MAX_PIXELS:
        raise PngError(f"claims to hold {width} x {height} pixels")
    pixels = b"".join(body for kind, body in chunks if kind == b"IDAT")
    exif = next((body for kind, body in chunks if kind == b"eXIf"), b"")
    return Png(Header(width, height, depth, colour, interlace), pixels, exif_orientation(exif))


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels [H, W] as they are to be shown."""
    mirrored, turns = ((0, 0), (1, 0), (0, 2), (1, 2), (1, 1), (0, 3), (1, 3), (0, 1))[orientation - 1]
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def read_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of every chunk up to the end mark; at least one.

    Raises:
        PngError: when the bytes are no PNG, truncated, or a checksum does not fit.
    """
    if not data.startswith(SIGNATURE):
        raise PngError("is not a PNG")
    chunks: list[tuple[bytes, bytes]] = []
    position = len(SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if position + 12 > len(data):
            raise PngError("is truncated")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            raise PngError("is truncated")
        kind, body = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
            raise PngError("is damaged: a checksum does not fit")
        chunks.append((kind, body))
        position = end
    return chunks


def write_chunks(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these (type, body) chunks; the end mark is added."""
    parts = [SIGNATURE]
    for kind, body in (*chunks, (b"IEND", b"")):
        checksum = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]
    return b"".join(parts)


def decode_indices(png: Png) -> NDArray[np.uint8]:
    """Sample values of a palette or grey picture of up to 8 bits as they are stored, [H, W].

    Raises:
        PngError: when the scan lines cannot be unpacked.
    """
    header = png.header
    indexed = Header(header.width, header.height, header.depth, INDEXED, header.interlace)
    greys = np.repeat(np.arange(1 << header.depth, dtype=np.uint8), 3).tobytes()
    file = write_chunks([(b"IHDR", indexed.pack()), (b"PLTE", greys), (b"IDAT", png.pixels)])
    return np.ascontiguousarray(_decode(file, cv2.IMREAD_COLOR)[..., 0])


def decode_colours(png: Png) -> NDArray[np.uint8]:
    """Stored 8-bit samples of a picture without palette, [H, W, 4] BGRA with alpha, else [H, W, 3] BGR.

    Grey with alpha comes as BGRA, too.

    Raises:
        PngError: when the scan lines cannot be unpacked.
    """
    file = write_chunks([(b"IHDR", png.header.pack()), (b"IDAT", png.pixels)])
    return _decode(file, cv2.IMREAD_UNCHANGED)


def encode_indices(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """A palette PNG of 8 bits per pixel.

    Args:
        indices: [H, W].
        palette: RGB colour of each index, [256, 3].
    """
    height, width = indices.shape
    # Each line: a filter byte, then the difference to the line above, which in masks is nearly always 0.
    lines = np.empty((height, width + 1), np.uint8)
    lines[:, 0] = 2
    lines[0, 1:] = indices[0]
    np.subtract(indices[1:], indices[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    packed = packer.compress(lines.tobytes()) + packer.flush()
    header = Header(width, height, 8, INDEXED)
    return write_chunks([(b"IHDR", header.pack()), (b"PLTE", palette.tobytes()), (b"IDAT", packed)])


def _decode(file: bytes, flags: int) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise PngError("is damaged: its pixels cannot be unpacked")
    return np.asarray(image, np.uint8)
