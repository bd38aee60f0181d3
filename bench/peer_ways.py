"""Windowed memory affinity without maskring: the alternatives that ``peers.py`` measures.

Each maker takes a :class:`Case` and returns a function of query [1, C, H, W], keys [1, N, C, H, W] and values
[1, N, O, H, W] that returns [1, O, H, W]. Masks and the like, which do not depend on the tensors, are made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 0.125


@dataclass(frozen=True)
class Case:
    """Shape of one call: C, H and W, N slots, O labels, window radius; and where it runs."""

    size: int = 120
    radius: int = 12
    slots: int = 5
    labels: int = 2
    channels: int = 64
    device: str = "cpu"
    threads: int = 2

    @property
    def window(self) -> int:
        """Window positions per side."""
        return 2 * self.radius + 1

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, keys, values: features with variance 1, labels between 0 and 1."""
        generator = torch.Generator().manual_seed(0)
        grid = self.size, self.size
        query = torch.randn(1, self.channels, *grid, generator=generator)
        keys = torch.randn(1, self.slots, self.channels, *grid, generator=generator)
        values = torch.rand(1, self.slots, self.labels, *grid, generator=generator)
        return query.to(self.device), keys.to(self.device), values.to(self.device)


Read = Callable[[Tensor, Tensor, Tensor], Tensor]
Maker = Callable[[Case], Read]


class NotExpressible(Exception):
    """This alternative cannot compute this case; the message says why."""


def operator(case: Case) -> Read:
    """maskring's torch operator: on a CPU its forward pass is the native kernel."""
    from maskring.plugins.windowed_affinity.torch_op import windowed_affinity

    dilation = torch.ones(1, case.slots, dtype=torch.int32, device=case.device)
    return lambda query, keys, values: windowed_affinity(
        query, keys, values, dilation, radius=case.radius, scale=SCALE
    )


def inside(case: Case) -> Tensor:
    """[P^2, H * W] whether a window position lies in the frame."""
    ones = torch.ones(1, 1, case.size, case.size, device=case.device)
    return F.unfold(ones, case.window, padding=case.radius)[0] > 0


def unfolded(maps: Tensor, case: Case) -> Tensor:
    """[D, H, W] to [D, P^2, H * W]."""
    columns = F.unfold(maps[None], case.window, padding=case.radius)
    return columns.view(len(maps), case.window**2, -1)


def labels_of(logits: list[Tensor], values: Tensor, case: Case) -> Tensor:
    """Joint softmax over [P^2, H * W] logits of each slot, then the weighted labels, slot by slot."""
    weights = torch.stack(logits).flatten(0, 1).softmax(0).view(case.slots, case.window**2, -1)
    read = sum((unfolded(values[0, n], case) * weights[n]).sum(1) for n in range(case.slots))
    assert isinstance(read, Tensor)
    return read.view(1, case.labels, case.size, case.size)


def unfold(case: Case) -> Read:
    """What one writes first: unfold the memory, multiply, softmax; slot by slot, or less would fit."""
    valid = inside(case)

    def read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        flat = query[0].flatten(1).unsqueeze(1)
        logits = [
            (flat * unfolded(keys[0, n], case)).sum(0).mul(SCALE).masked_fill(~valid, -torch.inf)
            for n in range(case.slots)
        ]
        return labels_of(logits, values, case)

    return read


def correlation(case: Case) -> Read:
    """MAST's way: spatial-correlation-sampler for the logits, softmax, unfolded labels."""
    from spatial_correlation_sampler import spatial_correlation_sample

    valid = inside(case)

    def read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        logits = []
        for n in range(case.slots):
            found = spatial_correlation_sample(query, keys[:, n].contiguous(), patch_size=case.window)
            logits.append(found.view(case.window**2, -1).mul(SCALE).masked_fill(~valid, -torch.inf))
        return labels_of(logits, values, case)

    return read


TILE = 8
"""Pixels per side of a FlexAttention block: tokens are put into the order of tiles, or a block of the mask
would cover whole rows of pixels, nearly all of them outside each other's windows."""


def flex(case: Case) -> Read:
    """FlexAttention: slots one after the other as keys, windows as a block mask, labels as values."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    if case.device == "cpu":
        if torch.is_grad_enabled():
            raise NotExpressible("torch compiles FlexAttention's backward pass for GPUs only")
        narrowest = 1
    else:
        narrowest = 16  # of the values, on a GPU
    tiles = -(-case.size // TILE)
    per_slot = (tiles * TILE) ** 2

    token = torch.arange(per_slot, device=case.device)
    tile, rest = token // TILE**2, token % TILE**2
    rows, columns = tile // tiles * TILE + rest // TILE, tile % tiles * TILE + rest % TILE
    outside = (rows >= case.size) | (columns >= case.size)
    key_rows = rows.masked_fill(outside, -case.window).repeat(case.slots)  # in nobody's window
    key_columns = columns.repeat(case.slots)

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, right = rows[query] - key_rows[key], columns[query] - key_columns[key]
        return (down.abs() <= case.radius) & (right.abs() <= case.radius)

    row, column = torch.arange(tiles**2) // tiles, torch.arange(tiles**2) % tiles
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    meets = (apart * TILE - TILE + 1 <= case.radius).repeat(1, case.slots)
    count = meets.sum(1, dtype=torch.int32)[None, None].to(case.device)
    order = meets.int().argsort(dim=1, descending=True, stable=True).int()[None, None].to(case.device)
    mask = BlockMask.from_kv_blocks(count, order, BLOCK_SIZE=TILE**2, mask_mod=in_window)
    compiled = torch.compile(flex_attention, dynamic=False)
    margin = tiles * TILE - case.size

    def tokens(maps: Tensor) -> Tensor:
        """[M, D, H, W] to [1, 1, M * tokens, D], in the order of tiles."""
        padded = F.pad(maps, (0, margin, 0, margin)).view(*maps.shape[:2], tiles, TILE, tiles, TILE)
        return padded.permute(0, 2, 4, 3, 5, 1).reshape(1, 1, -1, maps.shape[1])

    def read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        wide = F.pad(values[0], (0, 0, 0, 0, 0, max(0, narrowest - case.labels)))
        found = compiled(tokens(query), tokens(keys[0]), tokens(wide), block_mask=mask, scale=SCALE)
        grid = found[0, 0, :, : case.labels].view(tiles, tiles, TILE, TILE, case.labels)
        whole = grid.permute(4, 0, 2, 1, 3).reshape(1, case.labels, tiles * TILE, tiles * TILE)
        return whole[..., : case.size, : case.size]

    return read


def neighborhood(case: Case) -> Read:
    """NATTEN's 2-D neighbourhood attention: one slot; windows are shifted into the frame at its borders."""
    import natten

    if case.slots > 1:
        raise NotExpressible("NATTEN attends to one frame, without a softmax over several")
    settings = {"backend": "flex-fna"} if case.device == "cpu" else {}  # it has no other there

    def tokens(maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)[:, :, :, None].contiguous()

    def read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        wide = F.pad(values[:, 0], (0, 0, 0, 0, 0, case.channels - case.labels))  # as wide as keys
        window = (case.window, case.window)
        found: Tensor = natten.na2d(
            tokens(query), tokens(keys[:, 0]), tokens(wide), kernel_size=window, scale=SCALE, **settings
        )
        return found[:, :, :, 0, : case.labels].permute(0, 3, 1, 2)

    return read


def function(case: Case) -> Read:
    """The exported node's body in standard operators, in onnxruntime; always reads the case's inputs."""
    from affinity import function_run

    if torch.is_grad_enabled():
        raise NotExpressible("onnxruntime has no backward pass")
    if case.device != "cpu":
        raise NotExpressible("measured on the CPU only")

    query, keys, values = (tensor.numpy() for tensor in case.inputs())
    run = function_run((query, keys, values, np.ones((1, case.slots), np.int32)), case.radius, case.threads)
    return lambda *same: torch.from_numpy(run()[0])
