"""Colours of objects: the palette of PASCAL VOC, which DAVIS and YouTube-VOS use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def davis_palette() -> NDArray[np.uint8]:
    """RGB colour of each object id, [256, 3] uint8; id 0, the background, is black.

    Bit 7 - k of a channel's value is bit 3 * k + channel of the id, so neighbouring ids differ most
    (``VOCcolormap`` of the PASCAL VOC development kit).
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = davis_palette()
PALETTE.setflags(write=False)
