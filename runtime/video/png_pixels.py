"""Whether a PNG holds the pixels that its header promises.

Pillow leaves pixels black for which a file has no data. A damaged height would give a mask without the object, and
take memory for pixels that do not exist.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE_BYTES = 8

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples of a pixel."""

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced picture: first column and row, and the steps from one to the next."""

PIECE = 1 << 16


def check_pixels(data: bytes) -> None:
    """Check that the pixels of a PNG are complete; they are unpacked, and not kept.

    Args:
        data: a file whose header and checksums are sound.

    Raises:
        ValueError: when pixels are missing.
        zlib.error: when they cannot be unpacked.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, SIGNATURE_BYTES + 8)
    bits = depth * CHANNELS[colour]
    parts = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in PASSES]
    sizes = parts if interlaced else [(width, height)]
    missing = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    unpacker = zlib.decompressobj()
    for packed in _packed_pixels(data):
        while packed and missing > 0:
            missing -= len(unpacker.decompress(packed, PIECE))
            packed = unpacker.unconsumed_tail
        if missing <= 0:
            return
    while missing > 0 and (rest := unpacker.decompress(b"", PIECE)):
        missing -= len(rest)
    if missing > 0:
        raise ValueError(f"its header says {width} x {height} pixels, and some of them are missing")


def _packed_pixels(data: bytes) -> Iterator[bytes]:
    """Content of the IDAT chunks."""
    at = SIGNATURE_BYTES
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
