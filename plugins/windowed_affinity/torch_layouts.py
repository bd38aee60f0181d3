"""Groups queries with their candidates, so that plain torch can use matrix products.

:class:`Tiles` pairs square tiles of queries with the union of their windows. :class:`OffsetWindows` pairs
each query with its own window, for offsets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 8
"""Side of a tile of queries. Larger tiles make larger products, with more pairs outside the windows."""

BLOCK_BYTES_CPU = 8 << 20
BLOCK_BYTES_DEVICE = 256 << 20
"""Bytes of a block's largest tensor: on a CPU small enough for its caches, on a GPU enough to fill it."""


class Layout(Protocol):
    """Groups of queries and the candidates of each group.

    There are G groups of T queries. A group has L candidates; some lie outside the window of some query.
    """

    def split(self, maps: Tensor) -> Tensor:
        """[D, H, W] -> [G, T, D]: maps of the current frame, in groups."""

    def join(self, groups: Tensor) -> Tensor:
        """[G, T, D] -> [D, H, W]: the inverse of :meth:`split`."""

    def prepare(self, maps: Tensor) -> Tensor:
        """[N, D, H, W] -> maps of the memory in the order that :meth:`candidates` reads."""

    def restore(self, prepared: Tensor) -> Tensor:
        """The adjoint of :meth:`prepare`: -> [N, D, H, W]."""

    def blocks(self) -> Iterator[slice]:
        """Ranges of groups that fit into one block."""

    def candidates(self, prepared: Tensor, block: slice) -> Tensor:
        """-> [g, L, D]: the candidates of each group in the block."""

    def scatter_add(self, prepared: Tensor, block: slice, grads: Tensor) -> None:
        """The adjoint of :meth:`candidates`: add [g, L, D] where they were read."""

    def mask(self, logits: Tensor, block: slice) -> Tensor:
        """Mask the logits [g, T, L] of candidates outside a query's window, in place."""

    def reachable(self) -> Tensor | None:
        """bool [1, H, W]: queries with a valid candidate; None if all have one."""


def masked_logit(dtype: torch.dtype) -> float:
    """The logit of a masked candidate: below every real logit, and finite even if two are added.

    With -inf, rows without any candidate (padding) would become NaN.
    """
    return torch.finfo(dtype).min / 4


class Tiles:
    """Square tiles of queries with the union of their windows, for windows centred on their own pixel.

    A window with dilation d contains only pixels of its own phase (row % d, column % d). So the frame is
    split into d * d smaller frames, in which windows are dense.

    Args:
        slots: N, number of slots, all with this dilation.
        dilation: d, step of the window.
        radius: window positions per side.
        query: [C, H, W], for its size, type and device.
    """

    def __init__(self, slots: int, dilation: int, radius: int, query: Tensor) -> None:
        self.height, self.width = query.shape[1:]
        self.slots, self.dilation, self.radius = slots, dilation, radius
        self.rows = math.ceil(self.height / (dilation * TILE))
        self.columns = math.ceil(self.width / (dilation * TILE))
        self.side = TILE + 2 * radius
        self.per_block = _groups_per_block(TILE * TILE * slots * self.side**2, query)
        self._window = self._window_bias(query)
        inside = self.prepare(query.new_ones(1, 1, self.height, self.width))
        self._outside = (1 - inside) * masked_logit(query.dtype)

    def _window_bias(self, like: Tensor) -> Tensor:
        """[1, T, 1, L / N]: 0 where a candidate of the tile lies in a query's window."""
        query = torch.arange(TILE, device=like.device).view(TILE, 1)
        candidate = torch.arange(self.side, device=like.device)
        inside = (candidate >= query) & (candidate <= query + 2 * self.radius)  # [TILE, side], along one axis
        in_window = inside.view(TILE, 1, self.side, 1) & inside.view(1, TILE, 1, self.side)
        bias = like.new_zeros(in_window.shape).masked_fill_(~in_window, masked_logit(like.dtype))
        return bias.view(1, TILE * TILE, 1, self.side**2)

    def _phases(self, maps: Tensor) -> Tensor:
        """[N, D, H, W] -> [phases, N, D, TILE * rows, TILE * columns], zero beyond the frame."""
        step, (count, depth) = self.dilation, maps.shape[:2]
        tall, wide = TILE * self.rows * step, TILE * self.columns * step
        padded = F.pad(maps, (0, wide - self.width, 0, tall - self.height))
        split = padded.view(count, depth, tall // step, step, wide // step, step)
        return split.permute(3, 5, 0, 1, 2, 4).flatten(0, 1)

    def _frames(self, phases: Tensor) -> Tensor:
        """The inverse of :meth:`_phases`."""
        step, (count, depth, tall, wide) = self.dilation, phases.shape[1:]
        split = phases.reshape(step, step, count, depth, tall, wide).permute(2, 3, 4, 0, 5, 1)
        return split.reshape(count, depth, tall * step, wide * step)[..., : self.height, : self.width]

    def split(self, maps: Tensor) -> Tensor:
        phases = self._phases(maps.unsqueeze(0))[:, 0]  # [phases, D, tall, wide]
        tiles = phases.view(-1, maps.shape[0], self.rows, TILE, self.columns, TILE)
        return tiles.permute(0, 2, 4, 3, 5, 1).reshape(-1, TILE * TILE, maps.shape[0])

    def join(self, groups: Tensor) -> Tensor:
        tiles = groups.view(-1, self.rows, self.columns, TILE, TILE, groups.shape[-1])
        phases = tiles.permute(0, 5, 1, 3, 2, 4).reshape(
            -1, 1, groups.shape[-1], self.rows * TILE, self.columns * TILE
        )
        return self._frames(phases)[0]

    def prepare(self, maps: Tensor) -> Tensor:
        phases = self._phases(maps).permute(0, 1, 3, 4, 2)  # [phases, N, tall, wide, D]
        return F.pad(phases, (0, 0, self.radius, self.radius, self.radius, self.radius)).contiguous()

    def restore(self, prepared: Tensor) -> Tensor:
        r = self.radius
        inner = prepared[:, :, r : prepared.shape[2] - r, r : prepared.shape[3] - r]
        return self._frames(inner.permute(0, 1, 4, 2, 3))

    def blocks(self) -> Iterator[slice]:
        groups = self.dilation**2 * self.rows * self.columns
        return _blocks(groups, self.per_block)

    def _tiles(self, prepared: Tensor, block: slice) -> Iterator[Tensor]:
        """Views [N, side, side, D] of the candidates of each tile in the block."""
        for group in range(block.start, block.stop):
            quotient, column = divmod(group, self.columns)
            phase, row = divmod(quotient, self.rows)
            top, left = row * TILE, column * TILE
            yield prepared[phase, :, top : top + self.side, left : left + self.side]

    def candidates(self, prepared: Tensor, block: slice) -> Tensor:
        return torch.stack(list(self._tiles(prepared, block))).flatten(1, 3)

    def scatter_add(self, prepared: Tensor, block: slice, grads: Tensor) -> None:
        for place, grad in zip(self._tiles(prepared, block), grads, strict=True):
            place += grad.view(place.shape)

    def mask(self, logits: Tensor, block: slice) -> Tensor:
        outside = self.candidates(self._outside, block).view(-1, 1, 1, self.side**2)
        by_slot = logits.view(*logits.shape[:2], self.slots, self.side**2)
        by_slot += self._window + outside
        return logits

    def reachable(self) -> Tensor | None:
        return None  # a window centred on its own pixel contains at least that pixel


class OffsetWindows:
    """Single queries with their own windows, for offsets.

    Args:
        offsets: [N, 2, H, W] displacement of each window's centre.
        dilations: step of the window in each of the N slots, all >= 1.
        radius: window positions per side.
        query: [C, H, W], for its type and device.
    """

    def __init__(self, offsets: Tensor, dilations: list[int], radius: int, query: Tensor) -> None:
        self.slots, _, self.height, self.width = offsets.shape
        self.offsets = offsets.permute(2, 3, 0, 1).reshape(-1, self.slots, 2)
        self.steps = torch.tensor(dilations, device=offsets.device)
        self.reach = torch.arange(-radius, radius + 1, device=offsets.device)
        self.window = len(self.reach) ** 2
        # The copied candidates, not the logits, are the largest tensor of a block.
        self.per_block = _groups_per_block(self.slots * self.window * query.shape[0], query)

    def split(self, maps: Tensor) -> Tensor:
        return maps.flatten(1).t().unsqueeze(1)

    def join(self, groups: Tensor) -> Tensor:
        return groups[:, 0].t().view(-1, self.height, self.width)

    def prepare(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])

    def restore(self, prepared: Tensor) -> Tensor:
        return prepared.view(self.slots, self.height, self.width, -1).permute(0, 3, 1, 2)

    def blocks(self) -> Iterator[slice]:
        return _blocks(self.height * self.width, self.per_block)

    def _indices(self, block: slice) -> tuple[Tensor, Tensor]:
        """Flat indices into the prepared maps, and whether they are valid; both [g, N, P, P]."""
        pixel = torch.arange(block.start, block.stop, device=self.steps.device)
        displacement = self.steps.view(1, -1, 1) * self.reach  # [1, N, P]
        centre = self.offsets[block]
        y = (pixel // self.width).view(-1, 1, 1) + centre[..., :1] + displacement  # [g, N, P]
        x = (pixel % self.width).view(-1, 1, 1) + centre[..., 1:] + displacement
        inside_y, inside_x = (y >= 0) & (y < self.height), (x >= 0) & (x < self.width)
        slot = torch.arange(self.slots, device=y.device).view(-1, 1) * self.height
        rows = (slot + y.clamp(0, self.height - 1)) * self.width
        index = rows.unsqueeze(-1) + x.clamp(0, self.width - 1).unsqueeze(-2)
        return index, inside_y.unsqueeze(-1) & inside_x.unsqueeze(-2)

    def candidates(self, prepared: Tensor, block: slice) -> Tensor:
        index, _ = self._indices(block)
        return prepared.index_select(0, index.flatten()).view(len(index), -1, prepared.shape[1])

    def scatter_add(self, prepared: Tensor, block: slice, grads: Tensor) -> None:
        index, _ = self._indices(block)
        prepared.index_add_(0, index.flatten(), grads.flatten(0, 1))

    def mask(self, logits: Tensor, block: slice) -> Tensor:
        _, inside = self._indices(block)
        return logits.masked_fill_(~inside.flatten(1).unsqueeze(1), masked_logit(logits.dtype))

    def reachable(self) -> Tensor | None:
        valid = [self._indices(block)[1].flatten(1).any(1) for block in self.blocks()]
        return torch.cat(valid).view(1, self.height, self.width)


def _groups_per_block(elements: int, like: Tensor) -> int:
    budget = BLOCK_BYTES_CPU if like.device.type == "cpu" else BLOCK_BYTES_DEVICE
    return max(1, budget // (elements * like.element_size()))


def _blocks(groups: int, per_block: int) -> Iterator[slice]:
    for start in range(0, groups, per_block):
        yield slice(start, min(start + per_block, groups))
