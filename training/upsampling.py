"""From one value per feature to one per pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .encoder import STRIDE


def upsample(maps: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation [B, O, h, w] -> [B, O, H, W] that puts feature i on pixel 4 * i.

    Pixels beyond the last feature take its value. One replicated row and column make ``align_corners`` do
    exactly this: h + 1 points over 4 * h + 1 pixels lie 4 pixels apart.
    """
    rows, columns = maps.shape[-2:]
    padded = functional.pad(maps, (0, 1, 0, 1), mode="replicate")
    size = (STRIDE * rows + 1, STRIDE * columns + 1)
    large = functional.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    return large[..., :height, :width]
