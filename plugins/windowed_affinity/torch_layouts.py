"""Groups queries with their candidates, so that plain torch can use matrix products.

:class:`Tiles` pairs square tiles of queries with the union of their windows. :class:`OffsetWindows` pairs
each query with its own window, for offsets.
"""

from __future__ import annotations

import itertools
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


def block_bytes(device: torch.device) -> int:
    return BLOCK_BYTES_CPU if device.type == "cpu" else BLOCK_BYTES_DEVICE


class Layout(Protocol):
    """Groups of queries and the candidates of each group.

    E batch elements are laid out together. There are G groups of T queries, element after element. A group has
    L candidates; some lie outside the window of some query.
    """

    def split(self, maps: Tensor) -> Tensor:
        """[E, D, H, W] -> [G, T, D]: maps of the current frames, in groups."""

    def join(self, groups: Tensor) -> Tensor:
        """[G, T, D] -> [E, D, H, W]: the inverse of :meth:`split`."""

    def prepare(self, maps: Tensor) -> Tensor:
        """[E, N, D, H, W] -> maps of the memory in the order that :meth:`candidates` reads."""

    def restore(self, prepared: Tensor) -> Tensor:
        """The adjoint of :meth:`prepare`: -> [E, N, D, H, W]."""

    def blocks(self) -> Iterator[slice]:
        """Ranges of groups that fit into one block."""

    def candidates(self, prepared: Tensor, block: slice) -> Tensor:
        """-> [g, L, D]: the candidates of each group in the block."""

    def scatter_add(self, prepared: Tensor, block: slice, grads: Tensor) -> None:
        """The adjoint of :meth:`candidates`: add [g, L, D] where they were read."""

    def mask(self, logits: Tensor, block: slice) -> Tensor:
        """Mask the logits [g, T, L] of candidates outside a query's window, in place."""

    def reachable(self) -> Tensor | None:
        """bool [E, 1, H, W]: queries with a valid candidate; None if all have one."""


def masked_logit(dtype: torch.dtype) -> float:
    """The logit of a masked candidate: below every real logit, and finite even if two are added.

    With -inf, rows without any candidate (padding) would become NaN.
    """
    return torch.finfo(dtype).min / 4


class Tiles:
    """Square tiles of queries with the union of their windows, for windows centred on their own pixel.

    A window with dilation d contains only pixels of its own phase (row % d, column % d). So each frame is
    split into d * d smaller frames, in which windows are dense. There are F = E * d * d of these.

    Args:
        slots: N, number of slots, all with this dilation.
        dilation: d, step of the window.
        radius: window positions per side.
        query: [E, C, H, W], for its size, type and device.
    """

    def __init__(self, slots: int, dilation: int, radius: int, query: Tensor) -> None:
        elements, _, self.height, self.width = query.shape
        self.slots, self.dilation, self.radius = slots, dilation, radius
        self.frames = elements * dilation**2
        self.rows = math.ceil(self.height / (dilation * TILE))
        self.columns = math.ceil(self.width / (dilation * TILE))
        self.side = TILE + 2 * radius
        self.reach = math.ceil(self.side / TILE)  # tiles that the candidates of a tile span, along one axis
        self.per_block = _groups_per_block(TILE * TILE * slots * self.side**2, query)
        self._window = self._window_bias(query)
        inside = self.prepare(query.new_ones(1, 1, 1, self.height, self.width))
        outside = (1 - inside) * masked_logit(query.dtype)
        self._outside = outside.expand(elements, *outside.shape).flatten(0, 1)

    def _window_bias(self, like: Tensor) -> Tensor:
        """[1, T, 1, L / N]: 0 where a candidate of the tile lies in a query's window."""
        query = torch.arange(TILE, device=like.device).view(TILE, 1)
        candidate = torch.arange(self.side, device=like.device)
        inside = (candidate >= query) & (candidate <= query + 2 * self.radius)  # [TILE, side], along one axis
        in_window = inside.view(TILE, 1, self.side, 1) & inside.view(1, TILE, 1, self.side)
        bias = like.new_zeros(in_window.shape).masked_fill_(~in_window, masked_logit(like.dtype))
        return bias.view(1, TILE * TILE, 1, self.side**2)

    def _phases(self, maps: Tensor) -> Tensor:
        """[E, N, D, H, W] -> [F, N, D, TILE * rows, TILE * columns], zero beyond the frame."""
        step, (elements, count, depth) = self.dilation, maps.shape[:3]
        tall, wide = TILE * self.rows * step, TILE * self.columns * step
        padded = F.pad(maps, (0, wide - self.width, 0, tall - self.height))
        split = padded.view(elements, count, depth, tall // step, step, wide // step, step)
        return split.permute(0, 4, 6, 1, 2, 3, 5).flatten(0, 2)

    def _whole(self, phases: Tensor) -> Tensor:
        """The inverse of :meth:`_phases`."""
        step, (count, depth, tall, wide) = self.dilation, phases.shape[1:]
        split = phases.reshape(-1, step, step, count, depth, tall, wide).permute(0, 3, 4, 5, 1, 6, 2)
        whole = split.reshape(-1, count, depth, tall * step, wide * step)
        return whole[..., : self.height, : self.width]

    def split(self, maps: Tensor) -> Tensor:
        phases = self._phases(maps.unsqueeze(1))[:, 0]  # [F, D, tall, wide]
        tiles = phases.view(-1, maps.shape[1], self.rows, TILE, self.columns, TILE)
        return tiles.permute(0, 2, 4, 3, 5, 1).reshape(-1, TILE * TILE, maps.shape[1])

    def join(self, groups: Tensor) -> Tensor:
        tiles = groups.view(-1, self.rows, self.columns, TILE, TILE, groups.shape[-1])
        phases = tiles.permute(0, 5, 1, 3, 2, 4).reshape(
            -1, 1, groups.shape[-1], self.rows * TILE, self.columns * TILE
        )
        return self._whole(phases)[:, 0]

    def prepare(self, maps: Tensor) -> Tensor:
        """-> [F, N, TILE * (rows + reach - 1), TILE * (columns + reach - 1), D]."""
        phases = self._phases(maps).permute(0, 1, 3, 4, 2)  # [F, N, tall, wide, D]
        # Whole tiles, so that scatter_add can view a gradient of this shape as tiles.
        after = TILE * (self.reach - 1) - self.radius
        return F.pad(phases, (0, 0, self.radius, after, self.radius, after)).contiguous()

    def restore(self, prepared: Tensor) -> Tensor:
        tall, wide = self.rows * TILE, self.columns * TILE
        inner = prepared[:, :, self.radius : self.radius + tall, self.radius : self.radius + wide]
        return self._whole(inner.permute(0, 1, 4, 2, 3))

    def blocks(self) -> Iterator[slice]:
        """Whole frames, or whole rows of one frame, or a part of one row: so a block is a box of tiles."""
        frame = self.rows * self.columns
        if self.per_block >= frame:
            return _blocks(0, self.frames * frame, self.per_block // frame * frame)
        whole = frame if self.per_block >= self.columns else self.columns
        size = self.per_block // self.columns * self.columns or self.per_block
        starts = range(0, self.frames * frame, whole)
        return (block for start in starts for block in _blocks(start, start + whole, size))

    def _box(self, block: slice) -> tuple[slice, slice, slice]:
        """The frames, rows and columns of tiles in a block."""
        frame, count = self.rows * self.columns, block.stop - block.start
        first, inside = divmod(block.start, frame)
        row, column = divmod(inside, self.columns)
        width = min(count, self.columns)
        height = min(count // width, self.rows)
        return (
            slice(first, first + count // (height * width)),
            slice(row, row + height),
            slice(column, column + width),
        )

    def candidates(self, prepared: Tensor, block: slice) -> Tensor:
        frames, rows, columns = self._box(block)
        windows = prepared[frames].unfold(2, self.side, TILE).unfold(3, self.side, TILE)
        of_tiles = windows[:, :, rows, columns].permute(0, 2, 3, 1, 5, 6, 4)  # [f, r, c, N, side, side, D]
        return of_tiles.reshape(block.stop - block.start, -1, prepared.shape[-1])

    def scatter_add(self, prepared: Tensor, block: slice, grads: Tensor) -> None:
        frames, rows, columns = self._box(block)
        in_tiles = (self.rows + self.reach - 1, TILE, self.columns + self.reach - 1, TILE)
        into = prepared[frames].view(-1, self.slots, *in_tiles, grads.shape[-1])
        height, width = rows.stop - rows.start, columns.stop - columns.start
        shape = (-1, height, width, self.slots, self.side, self.side, grads.shape[-1])
        of_tiles = grads.view(shape).permute(0, 3, 1, 4, 2, 5, 6)
        # One addition for each tile that the candidates of a tile span. In descending order, each place gets its
        # terms in the order of the groups, whatever the blocks are.
        for below, right in itertools.product(reversed(range(self.reach)), repeat=2):
            part = of_tiles[:, :, :, below * TILE : (below + 1) * TILE, :, right * TILE : (right + 1) * TILE]
            down = slice(rows.start + below, rows.stop + below)
            across = slice(columns.start + right, columns.stop + right)
            into[:, :, down, : part.shape[3], across, : part.shape[5]] += part

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
        offsets: [E, N, 2, H, W] displacement of each window's centre.
        dilations: step of the window in each of the N slots, all >= 1.
        radius: window positions per side.
        query: [E, C, H, W], for its type and device.
    """

    def __init__(self, offsets: Tensor, dilations: list[int], radius: int, query: Tensor) -> None:
        self.elements, self.slots, _, self.height, self.width = offsets.shape
        self.offsets = offsets.permute(0, 3, 4, 1, 2).reshape(-1, self.slots, 2)
        self.steps = torch.tensor(dilations, device=offsets.device)
        self.reach = torch.arange(-radius, radius + 1, device=offsets.device)
        self.window = len(self.reach) ** 2
        # The copied candidates, not the logits, are the largest tensor of a block.
        self.per_block = _groups_per_block(self.slots * self.window * query.shape[1], query)

    def split(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).reshape(-1, 1, maps.shape[1])

    def join(self, groups: Tensor) -> Tensor:
        by_element = groups.view(self.elements, self.height, self.width, -1)
        return by_element.permute(0, 3, 1, 2).contiguous()

    def prepare(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 1, 3, 4, 2).reshape(-1, maps.shape[2])

    def restore(self, prepared: Tensor) -> Tensor:
        shape = (self.elements, self.slots, self.height, self.width, -1)
        return prepared.view(shape).permute(0, 1, 4, 2, 3)

    def blocks(self) -> Iterator[slice]:
        return _blocks(0, self.elements * self.height * self.width, self.per_block)

    def _indices(self, block: slice) -> tuple[Tensor, Tensor]:
        """Flat indices into the prepared maps, and whether they are valid; both [g, N, P, P]."""
        group = torch.arange(block.start, block.stop, device=self.steps.device)
        element, pixel = group // (self.height * self.width), group % (self.height * self.width)
        displacement = self.steps.view(1, -1, 1) * self.reach  # [1, N, P]
        centre = self.offsets[block]
        y = (pixel // self.width).view(-1, 1, 1) + centre[..., :1] + displacement  # [g, N, P]
        x = (pixel % self.width).view(-1, 1, 1) + centre[..., 1:] + displacement
        inside_y, inside_x = (y >= 0) & (y < self.height), (x >= 0) & (x < self.width)
        slot = element.view(-1, 1, 1) * self.slots + torch.arange(self.slots, device=y.device).view(-1, 1)
        rows = (slot * self.height + y.clamp(0, self.height - 1)) * self.width
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
        return torch.cat(valid).view(self.elements, 1, self.height, self.width)


def _groups_per_block(elements: int, like: Tensor) -> int:
    return max(1, block_bytes(like.device) // (elements * like.element_size()))


def _blocks(first: int, end: int, per_block: int) -> Iterator[slice]:
    for start in range(first, end, per_block):
        yield slice(start, min(start + per_block, end))
