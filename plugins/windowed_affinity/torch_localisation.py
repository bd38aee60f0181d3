"""ROI localisation: finds window centres in memory frames, by a coarse search."""

from __future__ import annotations

import torch
from torch import Tensor

from .torch_op import windowed_affinity


def localise(
    query: Tensor, keys: Tensor, dilation: Tensor, *, radius: int, scale: float, step: int = 1
) -> Tensor:
    """Find window centres by running the operator on coordinates instead of labels.

    For each slot separately, ``query`` is compared with the pixels of a window whose step is about that
    slot's dilation. The centre is the expected coordinate (soft-argmax), rounded. There are no gradients. A
    ``step`` above 1 uses every step-th row and column only, which takes 1 / step^2 of the time; squares of
    step x step pixels then share an offset.

    Args:
        query: [B, C, H, W].
        keys: [B, N, C, H, W].
        dilation: [B, N] int32. Slots with 2 or more are searched; the others get offset 0. The step of the
            search window is the largest multiple of ``step`` up to the dilation, at least ``step``.
        radius, scale: of the search.
        step: between the rows and columns that are used.

    Returns:
        [B, N, 2, H, W] int32: (dy, dx) from each pixel to its window's centre, the operator's ``offsets``.

    Source: MAST (CVPR 2020), section 3.3. Unlike in MAST's code, positions outside the frame have weight 0
    (there they get logit 0, which pulls centres inwards), and ``step`` may be above 1.
    """
    batch, slots = keys.shape[:2]
    coarse_query = query.detach()[..., ::step, ::step]
    coarse_keys = keys.detach()[..., ::step, ::step]
    rows = torch.arange(coarse_query.shape[-2], device=query.device).to(query.dtype)
    columns = torch.arange(coarse_query.shape[-1], device=query.device).to(query.dtype)
    own = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    searched = dilation > 1
    centres = windowed_affinity(
        coarse_query.unsqueeze(1).expand(coarse_keys.shape).flatten(0, 1).contiguous(),
        coarse_keys.flatten(0, 1).unsqueeze(1).contiguous(),
        own.expand(batch * slots, 1, *own.shape).contiguous(),
        ((dilation // step).clamp(min=1) * searched).reshape(batch * slots, 1),
        radius=radius,
        scale=scale,
    )
    offsets = ((centres - own) * step).round().to(torch.int32).view(batch, slots, *own.shape)
    offsets = offsets * searched[:, :, None, None, None]
    return _repeated(offsets, step)[..., : query.shape[-2], : query.shape[-1]]


def _repeated(maps: Tensor, times: int) -> Tensor:
    """[..., h, w] -> [..., times * h, times * w], each pixel a square."""
    height, width = maps.shape[-2:]
    squares = maps[..., :, None, :, None].expand(*maps.shape[:-2], height, times, width, times)
    return squares.reshape(*maps.shape[:-2], height * times, width * times)
