"""Upsampling of feature grids that keeps element i at position factor * i."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NAME = "maskring::upsample_like"


def upsample(maps: Tensor, height: int, width: int, factor: int) -> Tensor:
    """Bilinear interpolation [B, O, h, w] -> [B, O, H, W] that puts element i at position factor * i.

    Positions beyond the last element take its value. One replicated row and column make ``align_corners`` do
    exactly this: h + 1 points over factor * h + 1 positions are ``factor`` positions apart.
    """
    rows, columns = maps.shape[-2:]
    padded = functional.pad(maps, (0, 1, 0, 1), mode="replicate")
    size = (factor * rows + 1, factor * columns + 1)
    large = functional.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    return large[..., :height, :width]


def upsample_like(coarse: Tensor, fine: Tensor, factor: int) -> Tensor:
    """:func:`upsample` of ``coarse`` to height and width of ``fine``; differentiable.

    It is an operator of its own so that the exported graph takes the size from ``fine``. Traced arithmetic would
    take it from the frame, and the encoder could not be cut out of the graph.
    """
    large: Tensor = torch.ops.maskring.upsample_like(coarse, fine, factor)
    return large


torch.library.define(NAME, "(Tensor coarse, Tensor fine, int factor) -> Tensor")


@torch.library.impl(NAME, "CompositeExplicitAutograd")
def _forward(coarse: Tensor, fine: Tensor, factor: int) -> Tensor:
    height, width = fine.shape[-2:]
    return upsample(coarse, height, width, factor).contiguous()


@torch.library.register_fake(NAME)  # type: ignore[untyped-decorator]
def _forward_fake(coarse: Tensor, fine: Tensor, factor: int) -> Tensor:
    return coarse.new_empty(*coarse.shape[:2], *fine.shape[-2:])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.shape, ctx.factor = inputs[0].shape, inputs[2]


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    height, width = grad.shape[-2:]
    with torch.enable_grad():  # the gradient of a linear map does not depend on its input
        coarse = grad.new_zeros(ctx.shape, requires_grad=True)
        large = upsample(coarse, height, width, ctx.factor)
    (gradient,) = torch.autograd.grad(large, coarse, grad)
    return gradient, None, None


torch.library.register_autograd(NAME, _autograd, setup_context=_setup_context)
