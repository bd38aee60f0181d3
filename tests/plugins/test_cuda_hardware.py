"""The compiled kernels on a real GPU. Skipped where there is none.

``bench/gpu_day.py`` makes the same checks, and measures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from maskring.common.errors import UnavailableError
from maskring.plugins.operator_library import onnxruntime_library
from maskring.plugins.windowed_affinity import torch_cuda, torch_op
from maskring.plugins.windowed_affinity.cuda_op import CudaKernels

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from gpu_day_cases import Problem, cases, tensors_of
from gpu_day_kernels import fault_of, reason, reference
from gpu_day_state import Day, described

EXPECTED = {
    ("float16", 6, 3): "mma f16 r8 c64 o7",
    ("float16", 6, 11): "mma f16 r8 c64 o15",
    ("float16", 12, 3): "mma f16 r12 c64 o7",
    ("float16", 12, 32): "mma f16 r12 c64",
    ("float16", 2, 3): "mma f16 r4 c64 o7",
    ("float32", 6, 3): "simt f32 r6",
}
"""(type, radius, labels) of frames with 64 channels -> the row that must be chosen from compute capability 8.0 on."""


@pytest.fixture(scope="module")
def kernels() -> CudaKernels:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    try:
        return CudaKernels(onnxruntime_library())
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path / "found.json", 1e6, False, None)


@pytest.mark.parametrize("problem", cases(), ids=str)
def test_every_row_is_right(kernels: CudaKernels, day: Day, problem: Problem) -> None:
    """Values, the bits of a second run and of a captured graph, canaries around the output, NaN in unread slots."""
    given = tensors_of(problem, day.device)
    expected = reference(problem, given)
    rows = [row for row in range(len(kernels.names)) if not reason(day, kernels, row, problem, given)]
    assert rows
    faults = {kernels.names[row]: fault_of(day, kernels, row, problem, given, expected) for row in rows}
    assert not any(faults.values()), faults


@pytest.mark.parametrize("width", [120, 214, 75])
def test_tracking_reaches_the_tensor_cores(kernels: CudaKernels, day: Day, width: int) -> None:
    if day.sm < 80:
        pytest.skip("the GPU is older than compute capability 8.0")
    for (dtype, radius, labels), name in EXPECTED.items():
        problem = Problem((1, 3, 3, 3, 3), 120, width, radius, labels, dtype=dtype)
        given = tensors_of(problem, day.device)
        row = kernels.choose(described(problem, given, given.values[:, 0].contiguous()), day.sm)
        assert row is not None and kernels.names[row] == name


def test_the_torch_operator_launches_them(
    kernels: CudaKernels, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    launch = kernels.launch
    monkeypatch.setattr(torch_cuda, "installed_kernels", lambda: kernels)
    monkeypatch.setattr(kernels, "launch", lambda row, *rest: (launched.append(row), launch(row, *rest)))
    problem = Problem((1, 3, 0), 60, 54, 6)
    given = tensors_of(problem, day.device)
    out = torch_op.windowed_affinity(
        given.query, given.keys, given.values, given.dilation, radius=problem.radius, scale=problem.scale
    )
    assert launched
    assert (out.double() - reference(problem, given)).abs().max() <= 2e-3
