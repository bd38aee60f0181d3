"""The Triton kernels against the reference in float64, run by Triton's interpreter, and compiled for GPUs.

The interpreter replaces the compiler where ``TRITON_INTERPRET`` is set before Triton is imported, so one process with
it computes all cases.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import once
import pytest
import torch
import triton_runs
from affinity_cases import Case
from checkout import ROOT
from torch import Tensor
from triton_runs import CASES, problem_of

from maskring.plugins.windowed_affinity import reference, torch_blocks, torch_op, torch_triton

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; it has wheels for Linux"
)

EPSILON = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 8e-3}
"""Of the largest value, and of 1."""


def run(script: Path, *arguments: object, **environment: str) -> None:
    command = [sys.executable, script, *arguments]
    done = subprocess.run(
        [*map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def computed() -> dict[str, list[Tensor]]:
    """Result and gradients of each case, by the interpreter; made by one of the processes that run tests."""
    sources = [torch_triton.__file__, triton_runs.__file__, ROOT / "tests/tools/affinity_cases.py"]
    sources.append(Path(torch_triton.__file__).with_name("torch_triton_kernels.py"))
    made = ROOT / "build" / "triton" / f"{triton_runs.digest(sources)}.pt"
    with once.alone(made) as needed:
        if needed:
            partial = made.with_suffix(".partial")
            run(Path(triton_runs.__file__), "interpret", partial, TRITON_INTERPRET="1")
            partial.replace(made)
    loaded: dict[str, list[Tensor]] = torch.load(made)
    return loaded


@needs_triton
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_reference(
    case: Case, computed: dict[str, list[Tensor]]
) -> None:
    problem, grad = problem_of(case)
    inputs = [x.double().requires_grad_() for x in (problem.query, problem.keys, problem.values)]
    out = reference.windowed_affinity(*inputs, problem.dilation, radius=problem.radius, scale=problem.scale)
    expected = [out.detach(), *torch.autograd.grad(out, inputs, grad.double())]
    found = computed[case.name]
    for tensor, right, like in zip(found, expected, (grad, *inputs), strict=True):
        assert tensor.shape == like.shape and tensor.dtype == problem.query.dtype
        assert tensor.is_contiguous()
        error = (tensor.double() - right).abs().max()
        assert error <= EPSILON[triton_runs.type_of(case)] * max(1, float(right.abs().max()))


@needs_triton
def test_unread_slots_may_hold_nan(computed: dict[str, list[Tensor]]) -> None:
    for tensor in computed["unread"]:
        assert tensor.isfinite().all()
    assert (computed["unread"][2][:, 1] == 0).all() and (computed["unread"][3][:, 1] == 0).all()


@needs_triton
def test_a_second_run_gives_the_same_bits(computed: dict[str, list[Tensor]]) -> None:
    assert all(map(torch.equal, computed["again"], computed[CASES[0].name]))


@needs_triton
def test_only_needed_gradients_are_computed(computed: dict[str, list[Tensor]]) -> None:
    query, keys, values = CASES[0].name, "only keys", "only values"
    assert torch.equal(computed[keys][0], computed[query][2])
    assert torch.equal(computed[values][0], computed[query][3])


@needs_triton
@pytest.mark.parametrize("sm", [80, *(pytest.param(sm, marks=pytest.mark.slow) for sm in (86, 90, 120))])
def test_the_kernels_compile_for_gpus(sm: int, tmp_path: Path) -> None:
    """What Triton makes of them without a GPU, for 64 channels in float32: registers, spills, shared memory."""
    made = tmp_path / "compiled.json"
    cache = ROOT / "build" / "triton" / "cache"
    run(Path(triton_runs.__file__), "compile", made, sm, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(cache))
    kernels: dict[str, dict[str, Any]] = json.loads(made.read_text())
    assert len(kernels) == 5
    for name, kernel in kernels.items():
        assert kernel["tensor_core_products"] > 0, name
        assert kernel["atomics"] == 0, name
        assert kernel["shared_bytes"] <= 99 << 10, name  # of compute capability 8.6; 8.0 and 9.0 have more
        assert kernel["spilled_bytes"] <= 64, name


# ---- which implementation is used


def tensors(dtype: torch.dtype = torch.float32, labels: int = 3) -> list[Tensor]:
    shape = (4, 5)
    return [
        torch.randn(1, 8, *shape, dtype=dtype),
        torch.randn(1, 2, 8, *shape, dtype=dtype),
        torch.randn(1, 2, labels, *shape, dtype=dtype),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_of_training_are_supported(dtype: torch.dtype) -> None:
    assert torch_triton.supports(*tensors(dtype))


@pytest.mark.parametrize(
    "given",
    [
        tensors(torch.float64),
        tensors(labels=torch_triton.MAX_LABELS + 1),
        [x.to("meta").expand(*x.shape[:-2], 1 << 15, 1 << 15) for x in (t[..., :1, :1] for t in tensors())],
    ],
    ids=["float64", "labels", "frame beyond 32 bits"],
)
def test_the_rest_is_left_to_the_blocks(given: list[Tensor]) -> None:
    assert not torch_triton.supports(*given)


def test_tensors_of_the_cpu_are_not_for_triton() -> None:
    assert not torch_triton.can_run(*tensors(), torch.ones(1, 2, dtype=torch.int32), None, 0)


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("top_k", [0, 3])
def test_the_operator_uses_what_can_run(offsets: bool, top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensors of a GPU that the compiled kernels do not take; offsets and top-k stay with the blocks."""
    used: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            used.append(name)
            return function(*given)

        return noted

    def as_blocks_forward(problem: torch_triton.Problem) -> Tensor:
        given = (problem.query, problem.keys, problem.values, problem.dilation, None)
        return torch_blocks.forward(*given, problem.radius, problem.scale, 0)

    def as_blocks_backward(
        grad: Tensor, out: Tensor, problem: torch_triton.Problem, needs: list[bool]
    ) -> Any:
        given = (grad, out, problem.query, problem.keys, problem.values, problem.dilation, None)
        return torch_blocks.backward(*given, problem.radius, problem.scale, 0, needs)

    monkeypatch.setattr(torch_op, "native_can_run", lambda *_: False)
    monkeypatch.setattr(torch_triton, "available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch_triton, "on_one_gpu", lambda *_: True)
    monkeypatch.setattr(torch_triton, "forward", noting("triton forward", as_blocks_forward))
    monkeypatch.setattr(torch_triton, "backward", noting("triton backward", as_blocks_backward))
    monkeypatch.setattr(torch_blocks, "forward", noting("forward", torch_blocks.forward))
    monkeypatch.setattr(torch_blocks, "backward", noting("backward", torch_blocks.backward))
    query, keys, values = tensors()
    query.requires_grad_()
    moved = torch.zeros(1, 2, 2, 4, 5, dtype=torch.int32) if offsets else None
    steps = torch.ones(1, 2, dtype=torch.int32)
    out = torch_op.windowed_affinity(query, keys, values, steps, moved, radius=1, scale=0.5, top_k=top_k)
    out.sum().backward()
    by_triton = ["triton forward", "forward", "triton backward", "backward"]
    assert used == (["forward", "backward"] if offsets or top_k else by_triton)


def test_an_old_gpu_keeps_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_triton, "on_one_gpu", lambda *_: True)
    monkeypatch.setattr(torch_triton, "available", lambda: True)
    steps = torch.ones(1, 2, dtype=torch.int32)
    for capability, taken in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert torch_triton.can_run(*tensors(), steps, None, 0) == taken


def test_the_switch_turns_triton_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(torch_triton.SWITCH, "0")
    torch_triton.available.cache_clear()
    try:
        assert not torch_triton.available()
    finally:
        torch_triton.available.cache_clear()


def test_a_machine_that_cannot_compile_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(problem: torch_triton.Problem) -> Tensor:
        raise RuntimeError("Failed to find C compiler\nset CC")

    ones = torch.ones

    def on_cpu(*shape: int, device: str, **options: Any) -> Tensor:
        return ones(*shape, **options)

    monkeypatch.delenv(torch_triton.SWITCH, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "ones", on_cpu)
    monkeypatch.setattr(torch_triton, "forward", no_compiler)
    torch_triton.available.cache_clear()
    try:
        assert not torch_triton.available() and not torch_triton.available()
    finally:
        torch_triton.available.cache_clear()
    (message,) = caplog.messages
    assert "Failed to find C compiler" in message and torch_triton.SWITCH in message
