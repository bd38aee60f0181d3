"""The operator library in onnxruntime: what it refuses, threads and sessions at once, CUDA's operator, versions.

``test_sweep.py`` compares its values with the reference.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import operator_libraries
import pytest
from affinity_cases import TOLERANCE, Array, Case, expected_of, inputs_of
from compilers import compiler
from cuda_on_cpu.fibers import emulator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from operator_models import named_inputs, read_model
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.plugins import onnxruntime_library, operator_library
from maskring.runtime.backends.onnxrt.session import SESSION_ERRORS

TOOLS = Path(__file__).resolve().parents[1] / "tools"
CASE = Case("some", height=13, width=17, radius=3, dilation=((1, 2, 0),), channels=16)
OLDEST = "1.17.0"


def session(data: Any, library: Path | None = None, threads: str | None = None, **attributes: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.add_session_config_entry(operator_library.THREADS_ENTRY, threads)
    options.register_custom_ops_library(str(library or onnxruntime_library()))
    model = read_model(data, **attributes).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(opened: Any, data: Any) -> Array:
    (out,) = opened.run(None, named_inputs(data))
    assert isinstance(out, np.ndarray)
    return out


# ---- which file


def test_the_library_was_built_and_says_what_it_has() -> None:
    assert onnxruntime_library().is_file()
    assert operator_library.has_cuda(onnxruntime_library()) in (False, True)
    assert operator_library.has_cuda(operator_libraries.emulated())


def test_the_variable_names_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.so"
    monkeypatch.setenv(operator_library.LIBRARY_VARIABLE, str(other))
    with raises_user_error(UnavailableError, mentions=(str(other), operator_library.LIBRARY_VARIABLE)):
        onnxruntime_library()
    other.write_bytes(b"no library")
    assert onnxruntime_library() == other
    with raises_user_error(UnavailableError, mentions=(str(other), "reinstall")):
        operator_library.has_cuda(other)


def test_a_package_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_library, "LIBRARY_NAME", "libmaskring_absent.so")
    with raises_user_error(UnavailableError, mentions=("onnxruntime", "C++20")):
        onnxruntime_library()


# ---- what it refuses

WRONG_INPUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "keys of another height": (lambda d: replace(d, keys=d.keys[:, :, :, 1:]), "keys"),
    "keys of a rank too few": (lambda d: replace(d, keys=d.keys[0]), "keys"),
    "values of more slots": (lambda d: replace(d, values=np.concatenate([d.values] * 2, 1)), "values"),
    "dilation of fewer slots": (lambda d: replace(d, dilation=d.dilation[:, 1:]), "dilation"),
    "offsets of one coordinate": (lambda d: replace(d, offsets=d.offsets[:, :, :1]), "offsets"),
    "no pixel": (lambda d: replace(d, query=d.query[..., :0], keys=d.keys[..., :0], values=d.values[..., :0],
                                   offsets=d.offsets[..., :0]), "query"),
    "no channel": (lambda d: replace(d, query=d.query[:, :0], keys=d.keys[:, :, :0]), "query"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_wrong_inputs_are_told_and_break_nothing(name: str) -> None:
    data = inputs_of(replace(CASE, offsets=2))
    change, blamed = WRONG_INPUTS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(onnxruntime_library()))
    model = read_model(data)
    for tensor in model.graph.input:  # nothing declared, so that onnxruntime itself refuses nothing
        tensor.type.tensor_type.ClearField("shape")
    opened = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with pytest.raises(InvalidArgument, match=f"WindowedAffinity: {blamed} .*; "):
        run(opened, change(data))
    assert np.abs(run(opened, data) - expected_of(replace(CASE, offsets=2))).max() <= TOLERANCE["float32"]


@pytest.mark.parametrize(
    "wrong", [{"radius": -1}, {"radius": 2**40}, {"top_k": -2}, {"scale": -1.0}, {"scale": float("nan")}]
)
def test_wrong_attributes_are_refused_before_the_first_step(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SESSION_ERRORS, match=f"{name} .*export"):
        session(inputs_of(CASE), **wrong)


@pytest.mark.parametrize("threads", ["0", "-1", "many", "5000", "1" * 40])
def test_threads_out_of_range_are_refused(threads: str) -> None:
    with pytest.raises(SESSION_ERRORS):
        session(inputs_of(CASE), threads=threads)


# ---- threads and sessions


def test_the_number_of_threads_changes_no_bit() -> None:
    for case in (CASE, replace(CASE, offsets=3), replace(CASE, top_k=4)):
        data = inputs_of(case)
        assert np.array_equal(run(session(data, threads="1"), data), run(session(data, threads="3"), data))


def test_sessions_run_at_once_on_frames_of_any_size() -> None:
    cases = [
        replace(CASE, height=5 + i, width=9 + 2 * i, dilation=((i % 3, 1, 0),), seed=i) for i in range(8)
    ]
    opened = [session(inputs_of(CASE), threads=str(1 + i % 2)) for i in range(3)]
    data = [inputs_of(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: run(opened[i % 3], data[i % 8]), range(48)))
    for i, result in enumerate(results):
        assert np.abs(result - expected_of(cases[i % 8])).max() <= TOLERANCE["float32"]


SANITIZED = "import test_operator_library as t; t.misuse_and_use()"


def misuse_and_use() -> None:
    """What the sanitizers are to see: every kind of call, right and wrong, in several threads."""
    test_sessions_run_at_once_on_frames_of_any_size()
    test_the_number_of_threads_changes_no_bit()
    for name in WRONG_INPUTS:
        test_wrong_inputs_are_told_and_break_nothing(name)
    test_wrong_attributes_are_refused_before_the_first_step({"radius": -1})
    test_threads_out_of_range_are_refused("1" * 40)


def test_under_sanitizers() -> None:
    library = operator_libraries.sanitized()
    environment = {
        **os.environ,
        "LD_PRELOAD": operator_libraries.address_sanitizer(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        operator_library.LIBRARY_VARIABLE: str(library),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(TOOLS), str(TOOLS.parent)]),
    }
    command = [sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


# ---- CUDA's operator, executed on emulated kernels


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("offsets", [None, 3])
def test_the_operator_of_the_cuda_provider_computes_what_the_reference_does(
    dtype: str, offsets: int | None
) -> None:
    case = replace(CASE, channels=64, radius=6, dtype=dtype, offsets=offsets)
    out = run(session(inputs_of(case), operator_libraries.emulated()), inputs_of(case))
    assert out.dtype == dtype
    assert np.abs(out - expected_of(case)).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [({"channels": 12}, "channels"), ({"radius": 17}, "radius"), ({"labels": 33}, "labels")],
)
def test_what_no_cuda_kernel_supports_is_told(changes: dict[str, Any], blamed: str) -> None:
    data = inputs_of(replace(CASE, **changes))
    opened = session(data, operator_libraries.emulated())
    with pytest.raises(InvalidArgument, match=f"{blamed}.*; "):
        run(opened, data)


def test_top_k_is_refused_by_cuda_when_the_session_opens() -> None:
    with pytest.raises(SESSION_ERRORS, match=r"top_k.*--top-k 0"):
        session(inputs_of(replace(CASE, top_k=3)), operator_libraries.emulated())


def test_cuda_refuses_an_address_that_its_kernels_cannot_load_from() -> None:
    data = inputs_of(CASE)
    opened = session(data, operator_libraries.emulated())
    binding = opened.io_binding()
    storage = np.zeros(data.keys.size + 32, np.float32)
    start = -storage.ctypes.data % 16 // 4 + 1  # four bytes behind a multiple of 16
    shifted = storage[start : start + data.keys.size].reshape(data.keys.shape)
    shifted[:] = data.keys
    for name, array in {**named_inputs(data), "keys": shifted}.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    binding.bind_output("out")
    with pytest.raises(RuntimeError, match=r"keys .*16 bytes"):
        opened.run_with_iobinding(binding)


# ---- onnxruntime's interface


def test_the_interface_is_that_of_onnxruntimes_header() -> None:
    root = os.environ.get("ONNXRUNTIME_ROOT")
    if not root:
        pytest.skip("no onnxruntime headers: set ONNXRUNTIME_ROOT to the folder of a release's include/")
    tool = compiler()
    if tool is None:
        pytest.skip("no C++ compiler")
    check = TOOLS / "onnxruntime_cpp" / "abi_check.cpp"
    includes = [f"-I{emulator.KERNELS.parent}", f"-I{Path(root) / 'include'}"]
    done = subprocess.run(
        [tool, "-std=c++20", "-fsyntax-only", *includes, check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


USED_ELSEWHERE = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__ == sys.argv[1], onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[3], options, providers=["CPUExecutionProvider"])
inputs = dict(numpy.load(sys.argv[4]))
expected = inputs.pop("expected")
assert abs(session.run(None, inputs)[0] - expected).max() < 1e-5
inputs["keys"] = inputs["keys"][..., 1:]
try:
    session.run(None, inputs)
except Exception as error:
    assert "keys is" in str(error), error
else:
    raise SystemExit("wrong shapes were accepted")
"""


@pytest.mark.slow
def test_the_oldest_onnxruntime_takes_the_library(tmp_path: Path) -> None:
    """The newest is the one that all other tests use."""
    target = tmp_path / "packages"
    wanted = [f"onnxruntime=={OLDEST}", "numpy<2"]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        "--target",
        str(target),
    ]
    installed = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"onnxruntime {OLDEST} cannot be installed here: {installed.stderr[-300:]}")
    model, arrays = tmp_path / "read.onnx", tmp_path / "arrays.npz"
    onnx.save(read_model(inputs_of(CASE)), model)
    np.savez(arrays, expected=expected_of(CASE), **named_inputs(inputs_of(CASE)))
    command = [sys.executable, "-c", USED_ELSEWHERE, OLDEST, onnxruntime_library(), model, arrays]
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
