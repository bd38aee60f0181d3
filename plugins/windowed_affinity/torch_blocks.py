"""Windowed memory affinity in plain torch, block by block: any device, any float type, little memory.

Only one block of logits exists at a time; the backward pass computes it again. :mod:`.torch_layouts` groups
queries into blocks. Batch elements whose slots have the same steps share blocks, because on a GPU a step costs
more to launch than to run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .torch_layouts import Layout, OffsetWindows, Tiles, block_bytes, masked_logit


@dataclass
class Normaliser:
    """Joins the softmax of a query whose slots lie in several groups; all [E, 1, H, W].

    Attributes:
        maximum: the largest logit.
        max_weight: its weight, 1 / sum of exp(logit - maximum) over all logits in use. A single log-sum-exp
            would be too coarse where logits are large.
        threshold: the k-th largest logit, None if all logits are used.
    """

    maximum: Tensor
    max_weight: Tensor
    threshold: Tensor | None


class SlotGroup:
    """Slots of E batch elements that share a layout."""

    def __init__(
        self, layout: Layout, query: Tensor, keys: Tensor, values: Tensor, slots: list[int], top_k: int
    ) -> None:
        self.layout, self.top_k = layout, top_k
        # A range is read and written in place, a list through a copy.
        is_range = slots == list(range(slots[0], slots[-1] + 1))
        self.slots = slice(slots[0], slots[-1] + 1) if is_range else slots
        self.query = layout.split(query)
        self.keys = layout.prepare(keys[:, self.slots].to(query.dtype))
        self.values = layout.prepare(values[:, self.slots].to(query.dtype))

    def logits(self, block: slice, keys: Tensor) -> Tensor:
        return self.layout.mask(self.query[block] @ keys.mT, block)

    def weights(self, block: slice, keys: Tensor, normaliser: Normaliser | None) -> Tensor:
        """[g, T, L]: this group's part of the softmax over all candidates of a query."""
        logits = self.logits(block, keys)
        if normaliser is None:
            if self.top_k > 0:
                logits = _mask_below(logits, _largest(logits, self.top_k)[..., -1:])
            return logits.softmax(-1)
        if normaliser.threshold is not None:
            logits = _mask_below(logits, self.layout.split(normaliser.threshold)[block])
        logits -= self.layout.split(normaliser.maximum)[block]
        return _exp_(logits).mul_(self.layout.split(normaliser.max_weight)[block])

    def read(self, normaliser: Normaliser | None) -> Tensor:
        """[E, O, H, W]: this group's part of the result."""
        out = []
        for block in self.layout.blocks():
            weights = self.weights(block, self.layout.candidates(self.keys, block), normaliser)
            out.append(weights @ self.layout.candidates(self.values, block))
        return self.layout.join(torch.cat(out))

    def largest(self) -> Tensor:
        """[E, <= top_k, H, W]: the largest logits of each query."""
        largest = []
        for block in self.layout.blocks():
            logits = self.logits(block, self.layout.candidates(self.keys, block))
            largest.append(_largest(logits, self.top_k))
        return self.layout.join(torch.cat(largest))

    def maximum_and_sum(self, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        """The group's largest logit and the sum of exp(logit - largest), each [E, 1, H, W]."""
        maxima, sums = [], []
        for block in self.layout.blocks():
            logits = self.logits(block, self.layout.candidates(self.keys, block))
            if threshold is not None:
                logits = _mask_below(logits, self.layout.split(threshold)[block])
            maxima.append(logits.amax(-1, keepdim=True))
            sums.append(_exp_(logits.sub_(maxima[-1])).sum(-1, keepdim=True))
        return self.layout.join(torch.cat(maxima)), self.layout.join(torch.cat(sums))


def _largest(logits: Tensor, top_k: int) -> Tensor:
    return logits.topk(min(top_k, logits.shape[-1]), dim=-1).values


def _exp_(exponents: Tensor) -> Tensor:
    """exp of numbers up to 0, in place. On a CPU, a result below twice the smallest normal number becomes 0.

    The exp of torch's CPU builds takes 60 times as long where it underflows, as for every masked candidate.
    """
    if exponents.device.type != "cpu":
        return exponents.exp_()
    smallest = torch.finfo(exponents.dtype).tiny
    return torch.threshold_(exponents.clamp_(min=math.log(1.5 * smallest)).exp_(), 2 * smallest, 0.0)


def _mask_below(logits: Tensor, threshold: Tensor) -> Tensor:
    return logits.masked_fill_(logits < threshold, masked_logit(logits.dtype))


def slot_groups(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: list[int],
    offsets: Tensor | None,
    radius: int,
    top_k: int,
) -> list[SlotGroup]:
    """Groups the slots of E batch elements, whose steps ``dilation`` are the same.

    Args:
        query: [E, C, H, W], scaled and of the computation's type.
        keys, values, offsets: as in :func:`forward`.
    """
    non_empty = [slot for slot, step in enumerate(dilation) if step > 0]
    if not non_empty:
        return []
    if offsets is not None:
        windows = OffsetWindows(offsets[:, non_empty], [dilation[slot] for slot in non_empty], radius, query)
        return [SlotGroup(windows, query, keys, values, non_empty, top_k)]
    groups = []
    last = max(query.shape[2:]) - 1
    for step in sorted({dilation[slot] for slot in non_empty}):
        slots = [slot for slot in non_empty if dilation[slot] == step]
        # Positions farther away than the frame's longer side are never valid. A window of one needs no step.
        reach = min(radius, last // step)
        tiles = Tiles(len(slots), step if reach else 1, reach, query)
        groups.append(SlotGroup(tiles, query, keys, values, slots, top_k))
    return groups


def alike_elements(steps: list[list[int]], keys: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Ranges of batch elements with the same steps, few enough for their keys to fit into one block."""
    element_bytes = keys[0].numel() * dtype.itemsize if len(keys) else 0
    most = max(1, block_bytes(keys.device) // max(1, element_bytes))
    first = 0
    for _, alike in itertools.groupby(steps):
        end = first + len(list(alike))
        for start in range(first, end, most):
            yield slice(start, min(start + most, end))
        first = end


def normaliser_of(groups: list[SlotGroup], top_k: int) -> Normaliser | None:
    """The normaliser of several groups; None for a single group, which needs none."""
    if len(groups) == 1:
        return None
    threshold = None
    if top_k > 0:
        largest = torch.cat([group.largest() for group in groups], 1)
        threshold = _largest(largest.movedim(1, -1), top_k)[..., -1].unsqueeze(1)
    maxima, sums = map(torch.stack, zip(*(group.maximum_and_sum(threshold) for group in groups), strict=True))
    maximum = maxima.amax(0)
    return Normaliser(maximum, 1 / (sums * (maxima - maximum).exp()).sum(0), threshold)


def computation_type(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: half types are accumulated in float32."""
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
    steps = dilation.tolist()
    for some in alike_elements(steps, keys, scaled.dtype):
        moved = None if offsets is None else offsets[some]
        groups = slot_groups(scaled[some], keys[some], values[some], steps[some.start], moved, radius, top_k)
        if not groups:
            continue
        normaliser = normaliser_of(groups, top_k)
        for group in groups:
            read = group.read(normaliser)
            reachable = group.layout.reachable()
            out[some] += read if reachable is None else read * reachable
    return out.to(values.dtype)


@dataclass
class Gradients:
    """Gradients; None for those that are not needed."""

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
    row_sums = (grad * out.to(dtype)).sum(1, keepdim=True)
    inputs = zip((query, keys, values), needs, strict=True)
    gradients = Gradients(*(torch.zeros_like(x, dtype=dtype) if need else None for x, need in inputs))
    steps = dilation.tolist()
    for some in alike_elements(steps, keys, dtype):
        moved = None if offsets is None else offsets[some]
        groups = slot_groups(scaled[some], keys[some], values[some], steps[some.start], moved, radius, top_k)
        if not groups:
            continue
        normaliser = normaliser_of(groups, top_k)
        for group in groups:
            _group_backward(group, normaliser, grad[some], row_sums[some], _elements(gradients, some))
    if gradients.query is not None:
        gradients.query *= scale
    return gradients


def _elements(gradients: Gradients, some: slice) -> Gradients:
    return Gradients(
        *(None if x is None else x[some] for x in (gradients.query, gradients.keys, gradients.values))
    )


def _group_backward(
    group: SlotGroup, normaliser: Normaliser | None, grad: Tensor, row_sums: Tensor, gradients: Gradients
) -> None:
    """Add the gradients that pass through ``group`` to ``gradients``."""
    layout = group.layout
    reachable = layout.reachable()
    if reachable is not None:
        grad = grad * reachable
    grad, row_sums = layout.split(grad), layout.split(row_sums)
    into_keys = None if gradients.keys is None else torch.zeros_like(group.keys)
    into_values = None if gradients.values is None else torch.zeros_like(group.values)
    into_query = []
    for block in layout.blocks():
        keys = layout.candidates(group.keys, block)
        weights = group.weights(block, keys, normaliser)
        if into_values is not None:
            layout.scatter_add(into_values, block, weights.mT @ grad[block])
        if gradients.query is None and into_keys is None:
            continue
        values = layout.candidates(group.values, block)
        logit_grads = torch.baddbmm(row_sums[block].expand_as(weights), grad[block], values.mT, beta=-1)
        logit_grads *= weights
        if gradients.query is not None:
            into_query.append(logit_grads @ keys)
        if into_keys is not None:
            layout.scatter_add(into_keys, block, logit_grads.mT @ group.query[block])
    if gradients.query is not None:
        gradients.query += layout.join(torch.cat(into_query))
    for whole, prepared in ((gradients.keys, into_keys), (gradients.values, into_values)):
        if whole is not None and prepared is not None:
            whole[:, group.slots] = layout.restore(prepared)
