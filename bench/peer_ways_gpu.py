"""Other ways to compute the affinity on a GPU, for ``gpu_day_steps.py``."""

from __future__ import annotations

from typing import Any

import torch

from training import einsum, unfolded


def flex_attention_ms(day: Any, size: int, radius: int, slots: int) -> dict[str, float]:
    """FlexAttention over all keys, with a block mask of the windows."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    places, channels = size * size, 64

    def in_window(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        place = key % places
        near_y = (query // size - place // size).abs() <= radius
        return near_y & ((query % size - place % size).abs() <= radius)

    kind = torch.float32 if day.dry_run else torch.float16
    query = torch.randn(1, 1, places, channels, device=day.device, dtype=kind, requires_grad=not day.dry_run)
    keys, values = (torch.randn(1, 1, slots * places, channels, device=day.device, dtype=kind) for _ in "kv")
    mask = create_block_mask(in_window, None, None, places, slots * places, device=day.device.type)
    compiled = flex_attention if day.dry_run else torch.compile(flex_attention)
    forward = day.milliseconds(lambda: compiled(query, keys, values, block_mask=mask))
    if day.dry_run:
        return {"forward_ms": forward}
    out = compiled(query, keys, values, block_mask=mask)
    grad = torch.ones_like(out)
    backward = day.milliseconds(lambda: torch.autograd.grad(out, query, grad, retain_graph=True))
    return {"forward_ms": forward, "backward_ms": backward}


def unfold_ms(day: Any, size: int, radius: int, slots: int) -> dict[str, float]:
    """Every window laid out in memory, in float32."""
    query = torch.randn(1, 64, size, size, device=day.device)
    keys, values = (torch.randn(1, slots, depth, size, size, device=day.device) for depth in (64, 3))
    return {"forward_ms": day.milliseconds(lambda: unfolded(einsum, query, keys, values, radius, 0.125), 5)}
