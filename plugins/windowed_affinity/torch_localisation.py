"""ROI localisation: where in a memory frame the window of each pixel is to be centred."""

from __future__ import annotations

import torch
from torch import Tensor

from .torch_op import windowed_affinity


def localise(
    query: Tensor, keys: Tensor, dilation: Tensor, *, radius: int, scale: float, step: int = 1
) -> Tensor:
    """Find window centres by a coarse search: the operator itself, reading coordinates instead of labels.

    In every slot on its own, ``query`` is compared with the pixels of a window whose step is about that
    slot's dilation; the expected coordinate (soft-argmax), rounded, is the centre. No gradient passes. With a
    ``step`` above 1 every step-th row and column of query and keys take part, for 1 / step^2 of the time, and
    squares of step x step pixels move alike.

    Args:
        query: [B, C, H, W].
        keys: [B, N, C, H, W].
        dilation: [B, N] int32. Slots at 2 and more are searched; offsets of the others are 0. The window's
            step is the largest multiple of ``step`` up to it, and ``step`` at least.
        radius, scale: of the search; a window of the search has as many positions as one of the read.
        step: of rows and columns that take part.

    Returns:
        [B, N, 2, H, W] int32: (dy, dx) from a pixel to the centre of its window, the operator's ``offsets``.

    Source: MAST (CVPR 2020), section 3.3, with the operator's rule at borders: positions outside the frame
    weigh nothing (MAST's code gives them logit 0, which pulls centres inwards). MAST takes every pixel.
    """
    batch, slots = keys.shape[:2]
    coarse_query = query.detach()[..., ::step, ::step]
    coarse_keys = keys.detach()[..., ::step, ::step]
    rows = torch.arange(coarse_query.shape[-2], device=query.device).to(query.dtype)
    columns = torch.arange(coarse_query.shape[-1], device=query.device).to(query.dtype)
    own = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    searched = dilation > 1
    found = windowed_affinity(
        coarse_query.unsqueeze(1).expand(coarse_keys.shape).flatten(0, 1).contiguous(),
        coarse_keys.flatten(0, 1).unsqueeze(1).contiguous(),
        own.expand(batch * slots, 1, *own.shape).contiguous(),
        ((dilation // step).clamp(min=1) * searched).reshape(batch * slots, 1),
        radius=radius,
        scale=scale,
    )
    moved = ((found - own) * step).round().to(torch.int32).view(batch, slots, *own.shape)
    moved = moved * searched[:, :, None, None, None]
    return _repeated(moved, step)[..., : query.shape[-2], : query.shape[-1]]


def _repeated(maps: Tensor, times: int) -> Tensor:
    """[..., h, w] -> [..., times * h, times * w], each pixel a square."""
    height, width = maps.shape[-2:]
    squares = maps[..., :, None, :, None].expand(*maps.shape[:-2], height, times, width, times)
    return squares.reshape(*maps.shape[:-2], height * times, width * times)
