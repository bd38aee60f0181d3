"""TIFF files of one channel by their tags, for kinds of pixels that Pillow reads and does not write.

Layout: TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf.
"""

from __future__ import annotations

import struct

import numpy as np

BYTE_ORDERS = {"<": b"II", ">": b"MM"}
SAMPLE_FORMATS = {"b": 1, "u": 1, "i": 2, "f": 3}


def grey_tiff(pixels: np.ndarray, *, bits: int = 0, white_is_zero: bool = False, order: str = "<") -> bytes:
    """An uncompressed TIFF.

    Args:
        pixels: [H, W]; its type says how samples are stored.
        bits: per sample, where they are fewer than 8: 1, 2 or 4.
        white_is_zero: how the file says that values are to be shown.
        order: of bytes.
    """
    height, width = pixels.shape
    if bits:
        rows = ["".join(f"{value:0{bits}b}" for value in row) for row in pixels.tolist()]
        rows = [row + "0" * (-len(row) % 8) for row in rows]
        data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    else:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    long, short, start = 4, 3, 8
    tags = [
        (256, long, width),
        (257, long, height),
        (258, short, bits or pixels.dtype.itemsize * 8),
        (259, short, 1),
        (262, short, 0 if white_is_zero else 1),
        (273, long, start),
        (277, short, 1),
        (278, long, height),
        (279, long, len(data)),
        (339, short, SAMPLE_FORMATS[pixels.dtype.kind]),
    ]
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "I", value) if kind == long else struct.pack(order + "HH", value, 0))
        for tag, kind, value in tags
    )
    data += b"\0" * (len(data) % 2)
    head = BYTE_ORDERS[order] + struct.pack(order + "HI", 42, start + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)
