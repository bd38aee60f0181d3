"""GPU day: are the Triton kernels right, and how fast are they? In a dry run Triton's interpreter runs them."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from blocks import Passes
from gpu_day_cases import Problem, Tensors, tensors_of
from gpu_day_state import Day
from torch import Tensor

from maskring.plugins.windowed_affinity import torch_blocks, torch_triton

TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Of the largest value, and of 1."""

NAMES = ("result", "query gradient", "key gradient", "value gradient")


def runs_here(day: Day) -> bool:
    """Whether the kernels run: compiled for the GPU or, in a dry run, by the interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    if day.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which nothing has done yet
    return day.dry_run or torch_triton.available()


def without() -> AbstractContextManager[Any]:
    """The torch operator without the Triton kernels."""
    return mock.patch.object(torch_triton, "can_run", lambda *_: False)


def cases(small: bool) -> list[Problem]:
    """What is checked: the reads of recipes, odd sizes, mixed steps, empty slots, all types."""
    tiny = [Problem((1, 2, 0), 9, 7, 2, channels=16, dtype="float32")]
    if small:
        return tiny
    types = ("float32", "float16", "bfloat16")
    return [
        *tiny,
        *(Problem((1,) * 5, 96, 96, 6, labels=1, dtype=dtype) for dtype in types),
        *(Problem((1, 3, 3, 3, 3), 120, 75, 12, labels=4, dtype=dtype) for dtype in types),
        Problem((1, 0, 2, 1, 0, 3, 0, 4), 61, 53, 6, 7, dtype="float32"),
        Problem((2**31 - 1, 1), 12, 35, 6, dtype="float32"),
        Problem((1, 2), 1, 1, 6, dtype="float32"),
        Problem((1, 2), 33, 40, 6, 16, 128, dtype="float32"),
        Problem((5, 2), 40, 40, 3, 2, 37, dtype="float32"),
    ]


def correctness(day: Day) -> None:
    """Results and gradients against the blocks in float64; the bits of a second run; slots that are not read."""
    if importlib.util.find_spec("triton") is None:
        return day.note("skipped", "Triton is not installed")
    if not runs_here(day):
        raise SystemExit("Triton cannot compile the kernels here; the warning above says why")
    wrong: list[str] = []
    for checked, problem in enumerate(cases(small=day.dry_run), 1):
        if not day.in_time:
            day.note("unfinished", f"stopped before {problem}")
            break
        fault = fault_of(day, problem, tensors_of(problem, day.device))
        if fault:
            wrong.append(f"{problem}: {fault}")
        day.note("checked", checked)
        day.note("wrong", wrong)
    if wrong:
        raise SystemExit(f"{len(wrong)} are wrong; the first: {wrong[0]}")
    return None


def fault_of(day: Day, problem: Problem, given: Tensors) -> str | None:
    """What is wrong with result or gradients; None if nothing is."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, problem.labels, problem.height, problem.width)
    grad = torch.randn(shape, generator=generator).to(day.device, given.query.dtype)
    first, second = computed(problem, given, grad), computed(problem, given, grad)
    for name, right, found, again in zip(NAMES, expected(problem, given, grad), first, second, strict=True):
        error = float((found.double() - right).abs().max()) / max(1.0, float(right.abs().max()))
        if not error <= TOLERANCE[problem.dtype]:
            return f"{name} has error {error}"
        if not torch.equal(found, again):
            return f"{name} has other bits in a second run"
    return None


def computed(problem: Problem, given: Tensors, grad: Tensor) -> list[Tensor]:
    tensors = (given.query, given.keys, given.values, given.dilation)
    read = torch_triton.Problem(*tensors, problem.radius, problem.scale)
    out = torch_triton.forward(read)
    return [out, *gradients(torch_triton.backward(grad, out, read, [True] * 3))]


def expected(problem: Problem, given: Tensors, grad: Tensor) -> list[Tensor]:
    unread = (given.dilation == 0)[:, :, None, None, None]
    keys, values = (x.double().masked_fill(unread, 0) for x in (given.keys, given.values))
    inputs = (given.query.double(), keys, values, given.dilation, None, problem.radius, problem.scale, 0)
    out = torch_blocks.forward(*inputs)
    return [out, *gradients(torch_blocks.backward(grad.double(), out, *inputs, [True] * 3))]


def gradients(found: torch_blocks.Gradients) -> list[Tensor]:
    return [x for x in (found.query, found.keys, found.values) if x is not None]


def times(day: Day, passes: Passes) -> dict[str, float]:
    """Milliseconds of both passes."""
    problem = passes.problem
    query, keys, values = passes.inputs
    steps = passes.dilation.to(day.device)
    read = torch_triton.Problem(query, keys, values, steps, problem.radius, problem.channels**-0.5)
    out = torch_triton.forward(read)
    backward: Callable[[], Any] = functools.partial(
        torch_triton.backward, passes.grad, out, read, list(problem.gradients)
    )
    return {
        "forward_ms": day.milliseconds(lambda: torch_triton.forward(read), 10),
        "backward_ms": day.milliseconds(backward, 10),
    }
