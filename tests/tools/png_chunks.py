"""PNG files by their chunks, so that tests can damage them and make headers that lie.

Layout: the PNG specification, https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


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


def read_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of every chunk of a sound PNG, the end mark included."""
    chunks, at = [], len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def write_chunks(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these (type, body) chunks; the end mark is added."""
    parts = [SIGNATURE]
    for kind, body in (*chunks, (b"IEND", b"")):
        checksum = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]
    return b"".join(parts)
