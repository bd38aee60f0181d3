"""GPU day: a dry run on emulated kernels, what it calls wrong, its time limits, and what is packed for it."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import operator_libraries
import plugin_builds
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import gpu_day_kernels
import gpu_day_plugin
import gpu_day_steps
import gpu_day_tracking
import gpu_day_triton
from gpu_day import LEAST_SECONDS, LIBRARY, PLUGIN_PROGRAM, STEPS, Step, limits
from gpu_day_cases import Problem, cases, tensors_of
from gpu_day_pack import build_library, build_plugin_program, pack
from gpu_day_state import Day
from kernel_code import toolkit

from maskring.plugins.windowed_affinity import torch_blocks, torch_triton

PROGRAM = Path(__file__).parents[2] / "bench" / "gpu_day.py"


def has_nvcc() -> bool:
    try:
        return bool(toolkit("nvcc"))
    except SystemExit:
        return False


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Path:
    path = operator_libraries.emulated()
    monkeypatch.setenv("MASKRING_ONNXRUNTIME_LIBRARY", str(path))
    return path


@pytest.fixture
def carried(library: Path, tmp_path: Path) -> Path:
    """What ``gpu_day_pack.py`` gathers, with kernels that run on a CPU."""
    folder = tmp_path / "carried"
    folder.mkdir()
    (folder / LIBRARY).symlink_to(library)
    (folder / PLUGIN_PROGRAM).symlink_to(plugin_builds.plugin_values())
    return folder


def check_dry_run(steps: dict[str, dict[str, Any]]) -> None:
    """Nothing failed, and what the steps found out is there."""
    assert not {name: found["failed"] for name, found in steps.items() if "failed" in found}
    for step in {"correctness", "plugin"} & set(steps):
        assert steps[step]["checked"] == len(cases(small=True))
    if "tracking" in steps:
        assert steps["tracking"]["nano, torch.float32, pixels_that_differ"] == 0
    if importlib.util.find_spec("triton") is not None:
        assert steps.get("triton_kernels", {}).get("checked", 1) == 1
        assert "triton" in steps.get("training", {"triton": None})


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_dry_run_of_each_step(
    step: Step, carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which has imported torch already."""
    monkeypatch.setenv("MASKRING_ONNXRUNTIME_LIBRARY", str(carried / LIBRARY))
    made = tmp_path / "found.json"
    gpu_day_steps.STEPS[step.name](Day(made, 1e6, True, carried))
    check_dry_run({step.name: json.loads(made.read_text())})


@pytest.mark.parametrize(
    "steps",
    [("versions", "counters"), pytest.param([step.name for step in STEPS], marks=pytest.mark.slow)],
    ids=["two steps", "every step"],
)
def test_a_dry_run_has_a_process_for_each_step(
    steps: Sequence[str], carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASKRING_ONNXRUNTIME_LIBRARY")  # that of the carried folder is used
    command = [sys.executable, PROGRAM, "--dry-run", "--out", tmp_path, "--carried", carried]
    done = subprocess.run(
        [*command, "--only", *steps], env=os.environ, capture_output=True, text=True, check=False
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["steps"]) == list(steps)
    check_dry_run(results["steps"])
    assert done.returncode == 0, done.stderr
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


def test_a_plugin_with_wrong_values_is_found(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_day_plugin, "reference", lambda *given: gpu_day_kernels.reference(*given) + 0.01)
    monkeypatch.setenv("MASKRING_ONNXRUNTIME_LIBRARY", str(carried / LIBRARY))
    with pytest.raises(SystemExit, match="3 are wrong"):
        gpu_day_plugin.plugin(Day(tmp_path / "found.json", 1e6, True, carried))


def test_masks_that_differ_from_those_of_a_cpu_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run, which would be on the GPU, gets wrong labels into its memory."""
    backends: list[Any] = []

    class Forgetful(gpu_day_tracking.StepGraphBackend):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            backends.append(self)

        def write_value(self, slot: int, value: Any) -> None:
            super().write_value(slot, value[::-1].copy() if self is backends[0] else value)

    monkeypatch.setattr(gpu_day_tracking, "StepGraphBackend", Forgetful)
    with pytest.raises(SystemExit, match="pixels differ"):
        gpu_day_tracking.tracking(Day(tmp_path / "found.json", 1e6, True, None))


@pytest.mark.slow
@pytest.mark.skipif(not has_nvcc(), reason="no nvcc: pip install 'maskring[cuda]'")
def test_what_is_carried_can_be_built(tmp_path: Path) -> None:
    """With nvcc for sm_90; the program finds the library beside it."""
    build_library(tmp_path / LIBRARY, "90")
    build_plugin_program(tmp_path / PLUGIN_PROGRAM, tmp_path / LIBRARY)
    assert hasattr(ctypes.CDLL(str(tmp_path / LIBRARY)), "maskring_roof_launch")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    done = subprocess.run([moved / PLUGIN_PROGRAM, "--list"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(gpu_day_kernels.CudaKernels(moved / LIBRARY).names)


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
    assert pack(out, [library], [clip], []) == len(b"library") + len(b"frame")
    assert (out / library.name).read_bytes() == b"library"
    assert (out / "footage" / "clip" / "00000.jpg").read_bytes() == b"frame"
    with (clip / "large.mp4").open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(SystemExit, match=r"large\.mp4"):
        pack(tmp_path / "too_much", [library], [clip], [])
    assert not (tmp_path / "too_much").exists()
