"""The reference implementation of windowed memory affinity: simple, slow, differentiable, float32 or float64.

``tests/plugins/`` compares every other implementation with this one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def windowed_affinity(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None = None,
    *,
    radius: int,
    scale: float,
    top_k: int = 0,
) -> Tensor:
    """Copy labels from memory frames to the current frame by feature similarity inside a window.

    One softmax runs jointly over all slots and all window positions inside the frame. Positions outside the
    frame and slots with dilation 0 get weight 0, not logit 0 (in MAST's code they take part of the weight).
    The contents of an empty slot do not matter. Half types are computed in float32 and rounded at the end.

    Args:
        query: [B, C, H, W] features of the current frame.
        keys: [B, N, C, H, W] features of N memory frames, in any order.
        values: [B, N, O, H, W] label maps of those frames.
        dilation: [B, N] int32; 0 = empty slot, d >= 1 = step between window positions in that slot.
        offsets: [B, N, 2, H, W] int32 displacement (dy, dx) of each pixel's window centre, or None for 0.
        radius: window positions per side; the window holds (2 * radius + 1) ** 2 positions.
        scale: factor on the inner products before the softmax.
        top_k: if > 0, only logits not below the k-th largest of a pixel are used (all ties included).

    Returns:
        [B, O, H, W] in the dtype of ``values``; 0 where no window contains a valid position.

    Source: arXiv 2006.12480, section 3 (joint softmax over references); MAST (CVPR 2020), section 3.3 (ROI
    localisation, here ``offsets``).
    """
    batch, channels, height, width = query.shape
    slots = values.shape[1]
    out_type = values.dtype
    dtype = torch.promote_types(torch.promote_types(query.dtype, values.dtype), torch.float32)
    query, keys, values = query.to(dtype), keys.to(dtype), values.to(dtype)
    rows = torch.arange(height, device=query.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=query.device).view(1, 1, 1, width)
    steps = dilation.long().view(batch, slots, 1, 1)
    centre_y, centre_x = rows, columns
    if offsets is not None:
        centre_y, centre_x = rows + offsets[:, :, 0], columns + offsets[:, :, 1]

    def gather(maps: Tensor, index: Tensor) -> Tensor:
        depth = maps.shape[2]
        index = index.reshape(batch, slots, 1, height * width).expand(-1, -1, depth, -1)
        return maps.flatten(3).gather(3, index).view(batch, slots, depth, height, width)

    logits, sampled = [], []
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = centre_y + dy * steps, centre_x + dx * steps
            y, x = y.expand(batch, slots, height, width), x.expand(batch, slots, height, width)
            valid = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (steps > 0)
            index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
            similarity = scale * (query.unsqueeze(1) * gather(keys, index)).sum(2)
            logits.append(similarity.masked_fill(~valid, -torch.inf))
            sampled.append(gather(values, index).masked_fill(~valid.unsqueeze(2), 0.0))

    joint = torch.stack(logits, 2).flatten(1, 2)  # [B, N * P^2, H, W]
    if top_k > 0:
        kth = joint.topk(min(top_k, joint.shape[1]), dim=1).values[:, -1:]
        joint = joint.masked_fill(joint < kth, -torch.inf)
    reachable = (joint > -torch.inf).any(1, keepdim=True)
    weights = joint.masked_fill(~reachable, 0.0).softmax(1)  # if nothing is valid, all candidates are 0
    candidates = torch.stack(sampled, 2).flatten(1, 2)  # [B, N * P^2, O, H, W]
    return (weights.unsqueeze(2) * candidates).sum(1).to(out_type)
