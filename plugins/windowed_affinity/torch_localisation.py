"""ROI localisation: where in a memory frame the window of each pixel is to be centred."""

from __future__ import annotations

import torch
from torch import Tensor

from .torch_op import windowed_affinity


def localise(query: Tensor, keys: Tensor, dilation: Tensor, *, radius: int, scale: float) -> Tensor:
    """Find window centres by a coarse search: the operator itself, reading coordinates instead of labels.

    In every slot on its own, ``query`` is compared with the pixels of a window whose step is that slot's
    dilation; the expected coordinate (soft-argmax), rounded, is the centre. No gradient passes.

    Args:
        query: [B, C, H, W].
        keys: [B, N, C, H, W].
        dilation: [B, N] int32. Slots at 2 and more are searched; offsets of the others are 0.
        radius, scale: of the search.

    Returns:
        [B, N, 2, H, W] int32: (dy, dx) from a pixel to the centre of its window, the operator's ``offsets``.

    Source: MAST (CVPR 2020), section 3.3, with the operator's rule at borders: positions outside the frame
    weigh nothing (MAST's code gives them logit 0, which pulls centres inwards).
    """
    batch, slots = keys.shape[:2]
    height, width = query.shape[-2:]
    rows = torch.arange(height, device=query.device, dtype=query.dtype)
    columns = torch.arange(width, device=query.device, dtype=query.dtype)
    own = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    each = query.detach().unsqueeze(1).expand(keys.shape).flatten(0, 1)
    found = windowed_affinity(
        each,
        keys.detach().flatten(0, 1).unsqueeze(1),
        own.expand(batch * slots, 1, 2, height, width),
        dilation.reshape(batch * slots, 1),
        radius=radius,
        scale=scale,
    )
    moved = (found - own).round().to(torch.int32).view(batch, slots, 2, height, width)
    return moved * (dilation > 1).to(torch.int32)[:, :, None, None, None]
