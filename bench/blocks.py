"""The torch operator's blocks against the same blocks tile by tile, which gather and scatter in a Python loop.

    python bench/blocks.py                  # both ways by turns, one thread; launches of a step of `paper`
    python bench/blocks.py --repeats 1

Prints processor time of one thread (best of the repeats), the largest difference of results and gradients, and
the operations that torch starts for the affinity of one training step of the recipe `paper`. On a GPU each of them
is a launch, so they are counted as for a GPU, on tensors without data.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskring.plugins.windowed_affinity import torch_blocks
from maskring.plugins.windowed_affinity.torch_layouts import TILE, Tiles
from maskring.training.losses import targets_and_references
from maskring.training.network.encoder import STRIDE
from maskring.training.recipe import load_recipe

VIEWS = {
    "view",
    "slice",
    "select",
    "permute",
    "expand",
    "unsqueeze",
    "t",
    "transpose",
    "_unsafe_view",
    "unfold",
}
VIEWS |= {"detach", "split", "as_strided", "alias", "squeeze", "_reshape_alias", "unbind"}


@contextlib.contextmanager
def tile_by_tile() -> Iterator[None]:
    """Gather and scatter the candidates of each tile on their own, one batch element at a time."""

    def tiles(self: Tiles, prepared: Tensor, block: slice) -> Iterator[Tensor]:
        for group in range(block.start, block.stop):
            quotient, column = divmod(group, self.columns)
            frame, row = divmod(quotient, self.rows)
            top, left = row * TILE, column * TILE
            yield prepared[frame, :, top : top + self.side, left : left + self.side]

    def candidates(self: Tiles, prepared: Tensor, block: slice) -> Tensor:
        return torch.stack(list(tiles(self, prepared, block))).flatten(1, 3)

    def scatter_add(self: Tiles, prepared: Tensor, block: slice, grads: Tensor) -> None:
        for place, grad in zip(tiles(self, prepared, block), grads, strict=True):
            place += grad.view(place.shape)

    def each_element(steps: list[list[int]], *_: Any) -> Iterator[slice]:
        return (slice(b, b + 1) for b in range(len(steps)))

    with (
        mock.patch.object(Tiles, "candidates", candidates),
        mock.patch.object(Tiles, "scatter_add", scatter_add),
        mock.patch.object(torch_blocks, "alike_elements", each_element),
        mock.patch.object(torch_blocks, "_exp_", Tensor.exp_),
    ):
        yield


@dataclass(frozen=True)
class Problem:
    """A call of the operator; ``gradients`` says whether query, keys and values need one."""

    steps: tuple[int, ...]
    size: int
    radius: int
    labels: int = 1
    batch: int = 1
    channels: int = 64
    gradients: tuple[bool, bool, bool] = (True, True, False)

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, steps {' '.join(map(str, self.steps))}, radius {self.radius}"


PROBLEMS = (
    Problem((1, 1), 48, 6),
    Problem((1,) * 5, 96, 6),
    Problem((1, 3, 3, 3, 3), 120, 12, labels=4),
)


def paper_step() -> Problem:
    """The reads of one training step of the recipe ``paper``."""
    recipe = load_recipe("paper")
    pairs = targets_and_references(recipe.frames, recipe.references)
    return Problem(
        steps=(1,) * len(pairs[0][1]),
        size=recipe.crop // STRIDE,
        radius=recipe.radius,
        batch=recipe.clips * len(pairs),
        gradients=(True, recipe.momentum == 0, False),
    )


@dataclass(frozen=True)
class Passes:
    """Forward and backward pass of a problem; ``device`` is ``cpu``, or ``meta`` for tensors without data."""

    problem: Problem
    device: str = "cpu"

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        p = self.problem
        frame, memory = (p.size, p.size), (p.batch, len(p.steps))
        made = [torch.randn(p.batch, p.channels, *frame, device=self.device)]
        made += [torch.randn(*memory, depth, *frame, device=self.device) for depth in (p.channels, p.labels)]
        grad = torch.randn(p.batch, p.labels, *frame, device=self.device)
        object.__setattr__(self, "inputs", made)
        object.__setattr__(self, "grad", grad)
        object.__setattr__(self, "dilation", torch.tensor([p.steps] * p.batch, dtype=torch.int32))

    inputs: Any = None
    grad: Any = None
    dilation: Any = None

    def forward(self) -> Tensor:
        settings: tuple[Any, ...] = (self.dilation, None, self.problem.radius, self.problem.channels**-0.5, 0)
        return torch_blocks.forward(*self.inputs, *settings)

    def backward(self, out: Tensor) -> list[Tensor]:
        settings: tuple[Any, ...] = (self.dilation, None, self.problem.radius, self.problem.channels**-0.5, 0)
        inputs: tuple[Any, ...] = (self.grad, out, *self.inputs, *settings, list(self.problem.gradients))
        found = torch_blocks.backward(*inputs)
        return [x for x in (found.query, found.keys, found.values) if x is not None]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and the tensors that they join."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts["views" if name in VIEWS else "launches"] += 1
        if name in ("cat", "stack"):
            self.counts["joined"] += len(args[0])
        return func(*args, **(kwargs or {}))


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "tile by tile": tile_by_tile,
    "vectorised": contextlib.nullcontext,
}


def measure(problem: Problem, repeats: int) -> None:
    passes = Passes(problem)
    best = {way: [float("inf")] * 2 for way in WAYS}
    results = {}
    for _ in range(repeats):
        for way, context in WAYS.items():
            with context():
                start = time.process_time()
                out = passes.forward()
                middle = time.process_time()
                results[way] = [out, *passes.backward(out)]
                seconds = (middle - start, time.process_time() - middle)
            best[way] = [min(pair) for pair in zip(best[way], seconds, strict=True)]
    print(problem)
    for way, (forward, backward) in best.items():
        print(f"  {way:12}  forward {forward * 1e3:7.1f} ms   backward {backward * 1e3:7.1f} ms")
    before, after = results.values()
    print(
        f"  largest difference {max(float((x - y).abs().max()) for x, y in zip(before, after, strict=True))}"
    )


def count(problem: Problem) -> None:
    passes = Passes(problem, "meta")
    print(f"recipe paper, one step: batch {problem.batch}, {problem}")
    for way, context in WAYS.items():
        for direction, run in (
            ("forward", passes.forward),
            ("backward", lambda: passes.backward(passes.grad)),
        ):
            with context(), Operations() as operations:
                run()
            cells = (f"{operations.counts[key]:6} {key}" for key in ("launches", "views", "joined"))
            print(f"  {way:12}  {direction:8}", " ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count(paper_step())
    for problem in PROBLEMS:
        measure(problem, options.repeats)


if __name__ == "__main__":
    main()
