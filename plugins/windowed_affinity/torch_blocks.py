"""Windowed memory affinity in plain torch, block by block: any device, any float type, little memory.

Only one block of logits exists at a time, and the backward pass computes it again. How queries are grouped
into blocks is the business of :mod:`.torch_layouts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .torch_layouts import Layout, Tiles, Windows, hidden


@dataclass
class Normaliser:
    """What the softmax of a pixel needs to know when its slots lie in several layouts; both [1, H, W].

    Attributes:
        top: the largest logit.
        peak: its weight, 1 / sum of exp(logit - top) over all logits that take part. A log-sum-exp would hold
            both in one number, too coarse a float where logits are large.
        floor: the k-th largest logit, or None when all take part.
    """

    top: Tensor
    peak: Tensor
    floor: Tensor | None


class Part:
    """The slots of one batch element that share a layout."""

    def __init__(
        self, layout: Layout, query: Tensor, keys: Tensor, values: Tensor, slots: list[int], top_k: int
    ) -> None:
        self.layout, self.slots, self.top_k = layout, slots, top_k
        self.query = layout.split(query)
        self.keys = layout.prepare(keys[slots].to(query.dtype))
        self.values = layout.prepare(values[slots].to(query.dtype))

    def logits(self, block: slice, keys: Tensor) -> Tensor:
        return self.layout.hide(self.query[block] @ keys.mT, block)

    def weights(self, block: slice, keys: Tensor, normaliser: Normaliser | None) -> Tensor:
        """[g, T, L]: the softmax over everything a query sees, this part's share of it."""
        logits = self.logits(block, keys)
        if normaliser is None:
            if self.top_k > 0:
                logits = _drop(logits, _largest(logits, self.top_k)[..., -1:])
            return logits.softmax(-1)
        if normaliser.floor is not None:
            logits = _drop(logits, self.layout.split(normaliser.floor)[block])
        logits -= self.layout.split(normaliser.top)[block]
        return logits.exp_().mul_(self.layout.split(normaliser.peak)[block])

    def read(self, normaliser: Normaliser | None) -> Tensor:
        """[O, H, W]: this part's share of the result."""
        out = []
        for block in self.layout.blocks():
            weights = self.weights(block, self.layout.candidates(self.keys, block), normaliser)
            out.append(weights @ self.layout.candidates(self.values, block))
        return self.layout.join(torch.cat(out))

    def largest(self) -> Tensor:
        """[<= top_k, H, W]: the largest logits of each pixel."""
        found = []
        for block in self.layout.blocks():
            logits = self.logits(block, self.layout.candidates(self.keys, block))
            found.append(_largest(logits, self.top_k))
        return self.layout.join(torch.cat(found))

    def top_and_total(self, floor: Tensor | None) -> tuple[Tensor, Tensor]:
        """The part's largest logit and its sum of exp(logit - largest), each [1, H, W]."""
        tops, totals = [], []
        for block in self.layout.blocks():
            logits = self.logits(block, self.layout.candidates(self.keys, block))
            if floor is not None:
                logits = _drop(logits, self.layout.split(floor)[block])
            tops.append(logits.amax(-1, keepdim=True))
            totals.append(logits.sub_(tops[-1]).exp_().sum(-1, keepdim=True))
        return self.layout.join(torch.cat(tops)), self.layout.join(torch.cat(totals))


def _largest(logits: Tensor, top_k: int) -> Tensor:
    return logits.topk(min(top_k, logits.shape[-1]), dim=-1).values


def _drop(logits: Tensor, floor: Tensor) -> Tensor:
    return logits.masked_fill_(logits < floor, hidden(logits.dtype))


def parts_of(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: list[int],
    offsets: Tensor | None,
    radius: int,
    top_k: int,
) -> list[Part]:
    """The parts of one batch element; ``query`` [C, H, W] is scaled and in the type of the computation."""
    filled = [slot for slot, step in enumerate(dilation) if step > 0]
    if not filled:
        return []
    if offsets is not None:
        windows = Windows(offsets[filled], [dilation[slot] for slot in filled], radius, query)
        return [Part(windows, query, keys, values, filled, top_k)]
    parts = []
    last = max(query.shape[1:]) - 1
    for step in sorted({dilation[slot] for slot in filled}):
        slots = [slot for slot in filled if dilation[slot] == step]
        # Positions further away than the frame is long are never valid; a window of one has no step.
        reach = min(radius, last // step)
        tiles = Tiles(len(slots), step if reach else 1, reach, query)
        parts.append(Part(tiles, query, keys, values, slots, top_k))
    return parts


def normaliser_of(parts: list[Part], top_k: int) -> Normaliser | None:
    """What joins the softmax of several parts; None for a single one, which knows by itself."""
    if len(parts) == 1:
        return None
    floor = None
    if top_k > 0:
        floor = _largest(torch.cat([part.largest() for part in parts]).movedim(0, -1), top_k)[..., -1]
        floor = floor.unsqueeze(0)
    tops, totals = map(torch.stack, zip(*(part.top_and_total(floor) for part in parts), strict=True))
    top = tops.amax(0)
    return Normaliser(top, 1 / (totals * (tops - top).exp()).sum(0), floor)


def computation_type(*tensors: Tensor) -> torch.dtype:
    """float64 when any tensor is, else float32: half types are accumulated in float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def forward(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    radius: int,
    scale: float,
    top_k: int,
) -> Tensor:
    """:func:`~.reference.windowed_affinity`, block by block."""
    scaled = query.to(computation_type(query, keys, values)) * scale
    out = scaled.new_zeros(query.shape[0], *values.shape[2:])
    for b, steps in enumerate(dilation.tolist()):
        moved = None if offsets is None else offsets[b]
        parts = parts_of(scaled[b], keys[b], values[b], steps, moved, radius, top_k)
        if not parts:
            continue
        normaliser = normaliser_of(parts, top_k)
        for part in parts:
            read = part.read(normaliser)
            reachable = part.layout.reachable()
            out[b] += read if reachable is None else read * reachable
    return out.to(values.dtype)


@dataclass
class Gradients:
    """Where the gradients of one batch element go; None for those that nobody needs."""

    query: Tensor | None
    keys: Tensor | None
    values: Tensor | None


def backward(
    grad: Tensor,
    out: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    radius: int,
    scale: float,
    top_k: int,
    needs: list[bool],
) -> Gradients:
    """Gradients for query, keys and values, from the result and its gradient [B, O, H, W].

    With weights p = softmax(s) and result o = p v: dv = p' do, ds = p * (v do - <o, do>), and dq, dk from ds.
    """
    dtype = computation_type(query, keys, values)
    scaled, grad = query.to(dtype) * scale, grad.to(dtype)
    inner = (grad * out.to(dtype)).sum(1, keepdim=True)
    inputs = zip((query, keys, values), needs, strict=True)
    found = Gradients(*(torch.zeros_like(x, dtype=dtype) if need else None for x, need in inputs))
    for b, steps in enumerate(dilation.tolist()):
        moved = None if offsets is None else offsets[b]
        parts = parts_of(scaled[b], keys[b], values[b], steps, moved, radius, top_k)
        if not parts:
            continue
        normaliser = normaliser_of(parts, top_k)
        for part in parts:
            _part_backward(part, normaliser, grad[b], inner[b], _element(found, b))
    if found.query is not None:
        found.query *= scale
    return found


def _element(found: Gradients, b: int) -> Gradients:
    return Gradients(*(None if x is None else x[b] for x in (found.query, found.keys, found.values)))


def _part_backward(
    part: Part, normaliser: Normaliser | None, grad: Tensor, inner: Tensor, found: Gradients
) -> None:
    """Add the gradients that pass through ``part`` to ``found``."""
    layout = part.layout
    reachable = layout.reachable()
    if reachable is not None:
        grad = grad * reachable
    grad, inner = layout.split(grad), layout.split(inner)
    into_keys = None if found.keys is None else torch.zeros_like(part.keys)
    into_values = None if found.values is None else torch.zeros_like(part.values)
    into_query = []
    for block in layout.blocks():
        keys = layout.candidates(part.keys, block)
        weights = part.weights(block, keys, normaliser)
        if into_values is not None:
            layout.scatter_add(into_values, block, weights.mT @ grad[block])
        if found.query is None and into_keys is None:
            continue
        values = layout.candidates(part.values, block)
        slope = torch.baddbmm(inner[block].expand_as(weights), grad[block], values.mT, beta=-1)
        slope *= weights
        if found.query is not None:
            into_query.append(slope @ keys)
        if into_keys is not None:
            layout.scatter_add(into_keys, block, slope.mT @ part.query[block])
    if found.query is not None:
        found.query += layout.join(torch.cat(into_query))
    for whole, prepared in ((found.keys, into_keys), (found.values, into_values)):
        if whole is not None and prepared is not None:
            for slot, gradient in zip(part.slots, layout.restore(prepared), strict=True):
                whole[slot] = gradient
