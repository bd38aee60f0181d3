"""The kernels' C interface, and the torch operator on it, with kernels executed on the CPU."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import operator_libraries
import pytest
import torch
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from torch import Tensor
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.plugins.library import cuda_runtime
from maskring.plugins.windowed_affinity import cuda_op, torch_blocks, torch_cuda, torch_op

SM = 86
HALF = Case("half", 13, 17, 6, ((1, 2, 0),), channels=64, dtype="float16")
CASES = {
    "mma f16 r8 c64 o7": HALF,
    "gather f16": Case("moved", 9, 7, 2, ((1, 3),), channels=16, dtype="float16", offsets=3),
    "simt f32": Case("float32", 11, 9, 3, ((1, 2), (0, 1)), channels=8),
}


@pytest.fixture(scope="module")
def kernels() -> cuda_op.CudaKernels:
    return cuda_op.CudaKernels(operator_libraries.emulated())


def arguments(case: Case) -> tuple[list[Any], tuple[int, float]]:
    data = inputs_of(case)
    arrays = (data.query, data.keys, data.values, data.dilation, data.offsets)
    return [None if x is None else torch.from_numpy(x) for x in arrays], (data.radius, data.scale)


@pytest.mark.parametrize(("row", "case"), CASES.items(), ids=CASES)
def test_the_chosen_row_computes_what_the_reference_does(
    kernels: cuda_op.CudaKernels, row: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[int] = []
    launch = kernels.launch
    monkeypatch.setattr(kernels, "launch", lambda row, *rest: (launched.append(row), launch(row, *rest)))
    tensors, settings = arguments(case)
    out = torch_cuda.compute(kernels, *tensors, *settings, SM, 0)
    assert out is not None
    assert [kernels.names[each] for each in launched] == [row]
    assert np.abs(out.numpy() - expected_of(case)).max() <= TOLERANCE[case.dtype]


def test_tensors_may_be_strided_and_begin_anywhere(kernels: cuda_op.CudaKernels) -> None:
    tensors, settings = arguments(CASES["simt f32"])
    expected = torch_cuda.compute(kernels, *tensors, *settings, SM, 0)
    scattered = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in tensors[:3]]
    shifted = [torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape) for x in tensors[:3]]
    assert all(x.data_ptr() % cuda_op.ALIGNMENT for x in shifted)
    for moved in (scattered, shifted):
        found = torch_cuda.compute(kernels, *moved, *tensors[3:], *settings, SM, 0)
        assert found is not None and expected is not None and torch.equal(found, expected)


@pytest.mark.parametrize(
    "case", [Case("12 channels", channels=12), Case("radius 17", radius=17, height=3, width=3)], ids=str
)
def test_what_no_kernel_computes_is_left_to_the_blocks(kernels: cuda_op.CudaKernels, case: Case) -> None:
    tensors, settings = arguments(case)
    assert torch_cuda.compute(kernels, *tensors, *settings, SM, 0) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_the_blocks(kernels: cuda_op.CudaKernels, dtype: torch.dtype) -> None:
    tensors, settings = arguments(Case("types"))
    floats = [x.to(dtype) for x in tensors[:3]]
    assert torch_cuda.compute(kernels, *floats, *tensors[3:], *settings, SM, 0) is None


def test_the_operator_takes_the_kernels_result(
    kernels: cuda_op.CudaKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_emulated_gpu(*given: Any) -> Tensor | None:
        return torch_cuda.compute(kernels, *given, SM, 0)

    tensors, (radius, scale) = arguments(HALF)
    monkeypatch.setattr(torch_op, "native_can_run", lambda *_: False)
    monkeypatch.setattr(torch_cuda, "forward", on_emulated_gpu)
    out = torch_op.windowed_affinity(*tensors, radius=radius, scale=scale)
    assert np.abs(out.numpy() - expected_of(HALF)).max() <= TOLERANCE["float16"]
    assert not torch.equal(out, torch_blocks.forward(*tensors, radius, scale, 0)), (
        "the blocks round otherwise"
    )
    best = torch_op.windowed_affinity(*tensors, radius=radius, scale=scale, top_k=4)
    assert torch.equal(best, torch_blocks.forward(*tensors, radius, scale, 4)), "kernels have no top_k"


def test_tensors_of_the_cpu_are_not_for_the_gpu() -> None:
    tensors, settings = arguments(HALF)
    assert torch_cuda.forward(*tensors, *settings) is None


def test_reasons_and_failures_are_told(kernels: cuda_op.CudaKernels) -> None:
    problem = cuda_op.Problem(type=0, batch=1, slots=1, channels=8, labels=1, height=1, width=1, radius=17)
    assert kernels.choose(problem, SM) is None
    reason = kernels.reason_against(kernels.names.index("simt f32"), problem, SM)
    assert reason is not None and "radius" in reason and "; " in reason
    with pytest.raises(RuntimeError, match="failed"):
        kernels.launch(-1, problem, 0)


def test_the_library_names_its_cuda(tmp_path: Path) -> None:
    version = cuda_runtime(operator_libraries.emulated())
    assert version is not None and version >= (12, 0)
    assert cuda_runtime(tmp_path / "absent.so") is None


def test_libraries_without_kernels_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.so"
    other.write_bytes(b"no library")
    with raises_user_error(UnavailableError, mentions=(str(other), "CUDA toolkit")):
        cuda_op.CudaKernels(other)
    monkeypatch.setattr(ctypes, "sizeof", lambda _: 1)
    with raises_user_error(UnavailableError, mentions=("another version", "reinstall")):
        cuda_op.CudaKernels(operator_libraries.emulated())


@pytest.mark.parametrize("outdated", [True, False])
def test_an_installed_library_that_cannot_be_used_is_told(
    outdated: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cuda_op, "onnxruntime_library", operator_libraries.emulated)
    if outdated:
        monkeypatch.setattr(ctypes, "sizeof", lambda _: 1)
    found = cuda_op.installed_kernels.__wrapped__()
    assert (found is None) == outdated
    assert ("another version" in caplog.text and "reinstall" in caplog.text) == outdated


def test_a_library_without_cuda_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    assert cuda_op.installed_kernels.__wrapped__() is None
    assert not caplog.text


def test_the_operator_works_without_the_cpu_module() -> None:
    script = """
import sys
sys.modules["maskring.plugins.windowed_affinity._native"] = None
import torch
from maskring.plugins.windowed_affinity.torch_op import windowed_affinity
ones = torch.ones(1, 1, 8, 4, 4, dtype=torch.float64)
windowed_affinity(ones[0], ones, ones, torch.ones(1, 1, dtype=torch.int32), radius=1, scale=1.0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
