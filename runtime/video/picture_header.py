"""What the headers of pictures tell, before anything is unpacked: how large they are, how they are turned."""

from __future__ import annotations

import re
import struct

from ...common.errors import SourceError

MAX_PIXELS = 1 << 27
"""Larger pictures are refused before anything is unpacked: 134 megapixels are four 8K frames."""

FRAME_HEADER = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf].{2}[\x08\x0c](.{4})[\x01-\x04]", re.DOTALL
)
"""SOF of a JPEG: marker, length, bits, height, width, components; entropy-coded data never holds a marker."""

TIFF_ORDER = {b"II*\0": "<", b"MM\0*": ">"}
TIFF_WIDTH, TIFF_HEIGHT, TIFF_ORIENTATION = 0x0100, 0x0101, 0x0112
TIFF_NUMBERS = {3: "H", 4: "I"}
"""Types of a tag's value, as ``struct`` has them."""

MOST_TIFF_TAGS = 200


def check_pixel_limit(name: object, height: float, width: float) -> None:
    """Refuse what a small file may blow up to.

    Raises:
        SourceError: when a picture has more than :data:`MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise SourceError(f"{name} claims to hold {width:.0f} x {height:.0f} pixels", "use smaller frames")


def told_size(data: bytes) -> tuple[int, int] | None:
    """(H, W) that the header of a PNG, JPEG, BMP, WebP or TIFF file tells, before anything is unpacked.

    None when there is no such header. Formats: the PNG specification; ITU-T T.81, annex B; Microsoft's
    BITMAPINFOHEADER; RFC 9649; TIFF 6.0.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(height), abs(width)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    tags = _tiff_tags(data)
    return (tags[TIFF_HEIGHT], tags[TIFF_WIDTH]) if {TIFF_HEIGHT, TIFF_WIDTH} <= tags.keys() else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The largest size in any frame header of a JPEG, wherever it stands: thumbnails have their own."""
    sizes = [struct.unpack(">HH", found) for found in FRAME_HEADER.findall(data)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def exif_orientation(exif: bytes) -> int:
    """1 = upright, 2 to 8 = mirrored or turned, as Exif 2.3, table 4, has them; 1 for what cannot be read."""
    told = _tiff_tags(exif).get(TIFF_ORIENTATION, 1)
    return told if 1 <= told <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Those of the first directory that are one number; none where there is no TIFF. Format: TIFF 6.0."""
    order = TIFF_ORDER.get(data[:4])
    if order is None or len(data) < 8:
        return {}
    (start,) = struct.unpack_from(order + "I", data, 4)
    tags: dict[int, int] = {}
    for at in range(start + 2, min(len(data) - 11, start + 2 + 12 * MOST_TIFF_TAGS), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        if count == 1 and kind in TIFF_NUMBERS:
            (tags[tag],) = struct.unpack_from(order + TIFF_NUMBERS[kind], data, at + 8)
    return tags
