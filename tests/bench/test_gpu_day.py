"""GPU day: a dry run on emulated kernels, what it calls wrong, its time limits, and what is packed for it."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import operator_libraries
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import gpu_day_kernels
import gpu_day_triton
from gpu_day import LEAST_SECONDS, LIBRARY, STEPS, Step, limits
from gpu_day_cases import Problem, cases, tensors_of
from gpu_day_pack import pack
from gpu_day_state import Day

from maskring.plugins.windowed_affinity import torch_blocks, torch_triton

PROGRAM = Path(__file__).parents[2] / "bench" / "gpu_day.py"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Path:
    path = operator_libraries.emulated()
    monkeypatch.setenv("MASKRING_ONNXRUNTIME_LIBRARY", str(path))
    return path


def test_a_dry_run_goes_through_every_step(library: Path, tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, "--dry-run", "--out", tmp_path]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["steps"]) == [step.name for step in STEPS]
    assert not {name: found["failed"] for name, found in results["steps"].items() if "failed" in found}
    assert done.returncode == 0, done.stderr
    assert results["steps"]["correctness"]["checked"] == len(cases(small=True))
    if importlib.util.find_spec("triton") is not None:
        assert results["steps"]["triton_kernels"]["checked"] == 1
        assert "triton" in results["steps"]["training"]
    assert results["dry_run"] and "--dry-run" in results["command"]


def nothing(library: Any, row: int, problem: Any, stream: int) -> None:
    """A kernel that writes nothing."""


def wild(library: Any, row: int, problem: Any, stream: int) -> None:
    """A kernel that also writes before its output."""
    library.launch(row, problem, stream)
    size = 4 if problem.type == 0 else 2
    ctypes.memset(problem.out - size, 0, size)


def restless(library: Any, row: int, problem: Any, stream: int) -> None:
    """A kernel whose result differs in its last bits from run to run."""
    library.launch(row, problem, stream)
    restless.runs += 1  # type: ignore[attr-defined]
    ctypes.memset(problem.out, restless.runs, 1)  # type: ignore[attr-defined]


restless.runs = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kernel", "fault"), [(nothing, "error nan"), (wild, "beyond its output"), (restless, "other bits")]
)
def test_a_wrong_kernel_is_found(
    kernel: Callable[..., None], fault: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = gpu_day_kernels.kernels()

    class Broken:
        names = kernels.names
        reason_against = staticmethod(kernels.reason_against)
        workspace_bytes = staticmethod(kernels.workspace_bytes)

        def launch(self, row: int, problem: Any, stream: int) -> None:
            kernel(kernels, row, problem, stream)

    monkeypatch.setattr(gpu_day_kernels, "kernels", Broken)
    monkeypatch.setattr(gpu_day_kernels, "cases", lambda small: [cases(small)[1]])  # in float32
    day = Day(tmp_path / "found.json", 1e6, True, None)
    with pytest.raises(SystemExit, match="wrong"):
        gpu_day_kernels.correctness(day)
    (told,) = json.loads((tmp_path / "found.json").read_text())["wrong"]
    assert fault in told and "simt f32" in told


@pytest.mark.parametrize(
    ("broken", "fault"), [("query", "query gradient has error"), ("keys", "key gradient has error")]
)
def test_a_wrong_gradient_is_found(
    broken: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the blocks in place of the kernels."""

    def forward(read: torch_triton.Problem) -> torch.Tensor:
        given = (read.query, read.keys, read.values, read.dilation, None, read.radius, read.scale, 0)
        return torch_blocks.forward(*given)

    def backward(
        grad: Any, out: Any, read: torch_triton.Problem, needs: list[bool]
    ) -> torch_blocks.Gradients:
        given = (read.query, read.keys, read.values, read.dilation, None, read.radius, read.scale, 0)
        found = torch_blocks.backward(grad, out, *given, needs)
        getattr(found, broken).mul_(1.001)
        return found

    monkeypatch.setattr(torch_triton, "forward", forward)
    monkeypatch.setattr(torch_triton, "backward", backward)
    problem = Problem((1, 2), 5, 4, 1, channels=8, dtype="float32")
    day = Day(tmp_path / "found.json", 1e6, True, None)
    told = gpu_day_triton.fault_of(day, problem, tensors_of(problem, torch.device("cpu")))
    assert told is not None and fault in told


def test_each_row_has_a_case(library: Path, tmp_path: Path) -> None:
    """What the GPU runs includes every row of the dispatch table, and its policy, odd widths and empty slots."""
    kernels, day = gpu_day_kernels.kernels(), Day(tmp_path / "found.json", 1, True, None)
    reached = set()
    for problem in cases():
        small = Problem(**{**vars(problem), "height": 1, "width": 1})
        given = tensors_of(small, torch.device("cpu"))
        for row, name in enumerate(kernels.names):
            if not gpu_day_kernels.reason(day, kernels, row, small, given):
                reached.add(name)
    assert reached == set(kernels.names)
    assert {problem.width % 8 for problem in cases()} >= {0, 6, 3}
    assert any(0 in problem.steps for problem in cases())


def test_slots_that_are_not_read_hold_nan() -> None:
    given = tensors_of(Problem((1, 0), 3, 4, 1, channels=8), torch.device("cpu"))
    assert given.keys[:, 1].isnan().all() and given.values[:, 1].isnan().all()
    assert given.keys[:, 0].isfinite().all()


def test_optional_steps_leave_time_to_the_others() -> None:
    steps = (Step("a", 10, optional=True), Step("b", 50), Step("c", 10, optional=True))
    assert limits(steps, 0, 100) == 10
    assert limits(steps, 0, 52) == 2 < LEAST_SECONDS
    assert limits(steps, 1, 30) == 30
    assert limits(steps, 2, 4) == 4
    required = {step.name for step in STEPS if not step.optional}
    assert {"correctness", "tuning"} <= required


def test_everything_is_packed_or_nothing(tmp_path: Path) -> None:
    library, clip, out = tmp_path / "built.so", tmp_path / "clip", tmp_path / "packed"
    library.write_bytes(b"library")
    clip.mkdir()
    (clip / "00000.jpg").write_bytes(b"frame")
    assert pack(out, library, [clip], []) == len(b"library") + len(b"frame")
    assert (out / LIBRARY).read_bytes() == b"library"
    assert (out / "footage" / "clip" / "00000.jpg").read_bytes() == b"frame"
    with (clip / "large.mp4").open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(SystemExit, match=r"large\.mp4"):
        pack(tmp_path / "too_much", library, [clip], [])
    assert not (tmp_path / "too_much").exists()
