"""The U-Net of refinement: RGB in, one logit per label and pixel out."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = (1, 2, 4, 4, 4)
"""Channels of each level as multiples of the width; each level has half the resolution of the one before."""

GROUP = 8
"""Channels that are normalised together."""


class UNet(nn.Module):
    """A U-Net whose finest level has half the resolution of the frame, which quarters the time it takes.

    Group normalisation: a prediction depends on its own frame alone, the same during and after adaptation.

    Args:
        labels: labels, background included.
        width: channels of the finest level, a multiple of 8.

    Source: Ronneberger et al. 2015 for the form; arXiv 2006.12480 for its use.
    """

    def __init__(self, labels: int, width: int = 16) -> None:
        super().__init__()
        widths = [width * factor for factor in LEVELS]
        self.width = width
        self.stem = _convolution(3, width, size=5, stride=2)
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(before, after), _convolution(after, after))
            for before, after in pairwise([width, *widths])
        )
        self.across = nn.ModuleList(nn.Conv2d(deeper, own, 1) for own, deeper in pairwise(widths))
        self.up = nn.ModuleList(_convolution(own, own) for own in widths[:-1])
        self.head = nn.Conv2d(width, labels, 1)

    @property
    def labels(self) -> int:
        """Labels, background included."""
        return self.head.out_channels

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, labels, H, W] of RGB ``image`` [B, 3, H, W] in 0..1."""
        size = image.shape[2:]
        x = self.stem((image - 0.45) / 0.25)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = _scaled(self.across[level](x), skips[level].shape[2:]) + skips[level]
            x = self.up[level](x)
        return _scaled(self.head(x), size)

    def grow(self, labels: int) -> None:
        """Make room for more labels; what is known of the others stays."""
        if labels <= self.labels:
            return
        head = nn.Conv2d(self.width, labels, 1).to(self.head.weight.device)
        with torch.no_grad():
            head.weight[: self.labels] = self.head.weight
            assert head.bias is not None and self.head.bias is not None
            head.bias[: self.labels] = self.head.bias
        self.head = head


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False),
        nn.GroupNorm(max(after // GROUP, 1), after),
        nn.LeakyReLU(0.1),
    )


def _scaled(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
