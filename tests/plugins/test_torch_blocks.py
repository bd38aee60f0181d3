"""The blocks of plain torch against a Python loop over their tiles: the same bits, in far fewer operations."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from affinity_cases import Case, inputs_of
from torch import Tensor

from maskring.plugins.windowed_affinity import torch_blocks, torch_layouts

spec = importlib.util.spec_from_file_location(
    "bench_blocks", Path(__file__).parents[2] / "bench" / "blocks.py"
)
assert spec is not None and spec.loader is not None
blocks = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = blocks
spec.loader.exec_module(blocks)

CASES = [
    Case("one slot", 41, 38, 3),
    Case("elements with the same steps", 21, 18, 3, ((1, 2), (1, 2), (0, 1), (0, 1), (1, 2))),
    Case("three steps in a frame of odd sides", 37, 53, 6, ((1, 3, 4),)),
    Case("window wider than the frame", 9, 11, 12, ((1, 2, 0),)),
    Case("radius 0", 20, 9, 0, ((1, 4),)),
    Case("top k", 20, 27, 3, ((1, 2),), top_k=5, features="integers"),
    Case("large logits", 20, 27, 3, ((1, 2),), features="large"),
]


def results(case: Case) -> list[Tensor | None]:
    data = inputs_of(case)
    inputs = [torch.from_numpy(x) for x in (data.query, data.keys, data.values, data.dilation)]
    settings = (None, data.radius, data.scale, data.top_k)
    out = torch_blocks.forward(*inputs, *settings)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch_blocks.backward(grad, out, *inputs, *settings, needs=[True] * 3)
    return [out, found.query, found.keys, found.values]


@pytest.mark.parametrize("budget", [1 << 12, 1 << 17, 1 << 20, 1 << 27], ids="{} bytes".format)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_bits_as_tile_by_tile(case: Case, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a block is one tile, a part of a row, whole rows or several frames."""
    with blocks.tile_by_tile():
        expected = results(case)
    monkeypatch.setattr(torch_layouts, "BLOCK_BYTES_CPU", budget)
    for found, bits in zip(results(case), expected, strict=True):
        assert torch.equal(found, bits)


def test_a_training_step_takes_a_tenth_of_the_operations() -> None:
    passes = blocks.Passes(blocks.paper_step(), "meta")
    counts = []
    for way in (blocks.tile_by_tile, blocks.contextlib.nullcontext):
        with way(), blocks.Operations() as operations:
            passes.backward(passes.forward())
        counts.append(sum(operations.counts.values()))
    before, after = counts
    assert 10 * after <= before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exp_is_exact_down_to_the_smallest_normal_number(dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).tiny
    exponents = torch.linspace(-800, 0, 4001, dtype=dtype)
    exponents[0] = torch_layouts.masked_logit(dtype)
    exact = exponents.exp()
    found = torch_blocks._exp_(exponents.clone())
    assert torch.equal(found, torch.where(exact > 2 * smallest, exact, 0))
    assert (exact > 0).any() and found[0] == 0
