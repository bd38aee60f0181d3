"""The fake GPU against the real thing, as far as it can be installed: names, arguments, constants."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_device
import pytest
from fake_device import FakeGpu
from real_bindings import BARE, arguments, describe, fits, installed, public
from user_errors import assert_sentence, raises_user_error

from maskring.common.errors import UnavailableError
from maskring.common.machine import cuda_driver

BINDINGS = ["tensorrt", BARE, "tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_lean_bindings"]


def fake_tensorrt(rtx: bool) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        return fake_device.install(patch, FakeGpu(no_op=True), version="1.7.1", rtx=rtx)


CLASSES = ("Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "IProfiler")
OF_RTX = ("IRuntimeConfig", "IRuntimeCache")


@pytest.fixture(scope="module", params=BINDINGS)
def real(request: pytest.FixtureRequest) -> dict[str, dict[str, str | None]]:
    """Docstrings of the real classes, from a process of their own: two TensorRTs do not share one."""
    if not installed(request.param):
        pytest.skip(f"no {request.param}: pip install 'maskring[gpu]' or 'maskring[tensorrt-test]'")
    fake = fake_tensorrt("rtx" in request.param)
    classes = (*CLASSES, *(OF_RTX if "rtx" in request.param else ()))
    wanted = {kind: public(getattr(fake, kind)) for kind in classes}
    wanted |= {"DataType": ["FLOAT", "HALF", "INT32", "UINT8"], "TensorIOMode": ["INPUT", "OUTPUT"]}
    wanted["ILogger"] += ["ERROR", "INTERNAL_ERROR"]
    wanted["IExecutionContext"] += ["profiler"]
    wanted["Runtime"] += ["engine_host_code_allowed"]
    if "rtx" in request.param:
        wanted["IRuntimeConfig"] += ["dynamic_shapes_kernel_specialization_strategy"]
        wanted["DynamicShapesKernelSpecializationStrategy"] = ["LAZY", "EAGER"]
    return describe(request.param, wanted) | {"fake": {"module": fake.__name__}}


def test_tensorrt_has_what_the_fake_has(real: dict[str, dict[str, str | None]]) -> None:
    fake = fake_tensorrt(real["fake"]["module"] == "tensorrt_rtx")
    missing = [f"{kind}.{name}" for kind, names in real.items() for name, doc in names.items() if doc is None]
    assert not missing
    compared = 0
    for kind in (kind for kind in (*CLASSES, *OF_RTX) if kind in real):
        for name in public(getattr(fake, kind)):
            attribute, doc = inspect.getattr_static(getattr(fake, kind), name), real[kind][name] or ""
            if isinstance(attribute, property):
                assert doc == "property", f"{kind}.{name}"
                continue
            assert fits(doc, name, arguments(attribute)), f"{kind}.{name}: {doc}"
            compared += 1
    assert compared >= 9


@pytest.fixture(scope="module")
def pycuda() -> Any:
    try:
        import pycuda.driver
    except ImportError as error:
        pytest.skip(f"no pycuda ({error}): pip install 'maskring[gpu]' on a machine with an NVIDIA GPU")
    return pycuda.driver


def test_pycuda_has_what_the_fake_has(pycuda: Any) -> None:
    """Boost.Python calls some arguments arg1, arg2, ...; those with a name have the fake's, in its order."""
    from fake_device.pycuda_driver import pycuda_driver

    fake = pycuda_driver(FakeGpu())
    compared = 0
    for name, value in vars(fake).items():
        if name.startswith("__"):
            continue
        real = getattr(pycuda, name)
        members = public(value) if inspect.isclass(value) and not issubclass(value, Exception) else []
        for owner, ours, theirs in [(name, value, real)] * inspect.isfunction(value) + [
            (f"{name}.{member}", inspect.getattr_static(value, member), getattr(real, member))
            for member in members
        ]:
            if not inspect.isfunction(ours):
                continue
            named = re.findall(r"\(\w+\)(\w+)(?:=[^,)]*)?", (theirs.__doc__ or "").split("->")[0])
            named = [argument for argument in named if argument != "self"]
            expected = arguments(ours)
            given = named[len(named) - len(expected) :] if expected else []
            for mine, real_name in zip(expected, given, strict=True):
                assert mine == real_name or re.fullmatch(r"arg\d+", real_name), f"{owner}: {theirs.__doc__}"
            compared += 1
    assert compared >= 15
    assert pycuda.event_flags.DISABLE_TIMING == fake.event_flags.DISABLE_TIMING
    assert issubclass(pycuda.MemoryError, pycuda.Error) and issubclass(pycuda.LaunchError, pycuda.Error)


@pytest.fixture(scope="module")
def bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        pytest.skip(f"no cuda-bindings ({error}): pip install 'maskring[gpu]'")
    return driver


def test_cuda_bindings_has_what_the_fake_has(bindings: Any) -> None:
    """Results are tuples whose first item is the code."""
    from fake_device.bindings_driver import CUresult, bindings_driver

    fake = bindings_driver(FakeGpu())
    calls = {name: value for name, value in vars(fake).items() if name.startswith("cu")}
    assert len(calls) >= 30
    for name, ours in calls.items():
        assert arguments(getattr(bindings, name)) == arguments(ours), name
    for ours in CUresult:
        theirs = getattr(bindings.CUresult, ours.name)
        assert (int(theirs), bool(theirs)) == (ours, bool(ours))
    assert int(bindings.CUstream(7)) == 7


TOUR = """
import numpy as np
from maskring.common.errors import UnavailableError
from maskring.runtime.backends.trt.device import Device

device = Device()
print(device.package, device.name, device.compute_capability, device.can_lock_pages)
with device.current():
    first, second = device.allocate(600), device.allocate(600)
    given, got = device.pin((10, 20, 3), np.uint8), device.pin((10, 20, 3), np.uint8)
    given.array[:] = 5
    device.upload_early(first.address, given.array)
    device.await_early_upload()
    device.await_foreign(1)
    device.capture(lambda: device.copy(second.address, first.address, 600)).launch()
    device.download(got.array, second.address)
    device.synchronize()
    print("copied", int(got.array.sum()), device.can_read(first.address), device.can_read(8))
    device.clear(first)
    device.download(got.array, first.address)
    print("cleared", int(got.array.sum()))
    try:
        device.allocate(2_000_000)
    except UnavailableError as error:
        print(error)
with device.closing():
    pass
"""


def test_the_device_on_the_real_cuda_bindings(bindings: Any, tmp_path: Path) -> None:
    """It finds a libcuda of ours, which checks what the package makes of the arguments."""
    source = Path(fake_device.__file__).with_name("libcuda.c")
    flags = ["-shared", "-fPIC", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
    subprocess.run(["cc", *flags, source, "-o", tmp_path / "libcuda.so.1", "-ldl"], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", TOUR]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = Counter(done.stdout.splitlines())
    assert lines.pop("cuda-bindings stub sm87 True") == 1
    assert lines.pop(f"copied {5 * 600} True False") == lines.pop("cleared 0") == 1
    (refusal,) = (line for line in lines if "MB" in line)
    assert_sentence(refusal, ("5 of 9 MB", "2 MB"))
    del lines[refusal]
    assert lines == {
        "legacy stream recorded": 1,
        "graph destroyed": 1,
        "graph launched": 1,
        "memory freed": 2,
        "pages unlocked": 2,
        "stream destroyed": 2,
        "event destroyed": 2,
        "context released": 1,
    }


def test_without_a_gpu_cuda_bindings_says_so(bindings: Any) -> None:
    """Ours on the real package, as far as a machine without a GPU goes."""
    try:
        cuda_driver()
    except UnavailableError:
        from maskring.runtime.backends.trt import bindings_driver

        with raises_user_error(UnavailableError, mentions=("cuda", "nvidia-smi")):
            bindings_driver.open_driver(bindings, 0)
    else:
        pytest.skip("this machine has NVIDIA's driver")


def cuda_header() -> str:
    """``cuda.h`` of a toolkit, or of the package that ``maskring[cuda]`` brings."""
    folders = [Path("/usr/local/cuda/include")]
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec else None) or ():
        folders += sorted(Path(place).glob("*/include"))
    for folder in folders:
        if (folder / "cuda.h").is_file():
            return (folder / "cuda.h").read_text(errors="replace")
    pytest.skip("no cuda.h: pip install 'maskring[cuda]'")


def test_driver_calls_have_the_arguments_of_cuda_h() -> None:
    """Calls that go past pycuda, by their exported names: as many arguments as the header declares."""
    header = cuda_header()
    from fake_device.cuda_library import CudaLibrary

    calls = [name for name in vars(CudaLibrary) if name.startswith("cu")]
    assert len(calls) >= 14
    for name in calls:
        # A program that is compiled against the header is linked to the name that a macro makes of its own.
        macro = re.search(rf"#define (\w+)\s+(?:__CUDA_API_PT[DS]Z\()?{name}\)?\s", header)
        written = macro.group(1) if macro else name
        declared = re.search(rf"CUresult CUDAAPI {written}\(([^)]*)\)", header)
        assert declared, name
        assert len(declared.group(1).split(",")) == len(arguments(getattr(CudaLibrary, name))), name
        renamed = re.search(rf"#define {written}\s+(?:__CUDA_API_PT[DS]Z\()?(\w+)", header)
        assert renamed is None or renamed.group(1) == name, f"{written} is {renamed and renamed.group(1)}"


def test_constants_are_those_of_cuda_h() -> None:
    from maskring.runtime.backends.trt import driver

    header = cuda_header()
    expected = {
        "CU_STREAM_NON_BLOCKING": driver.NON_BLOCKING_STREAM,
        "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": driver.CAPTURE_THREAD_LOCAL,
        "CU_EVENT_DISABLE_TIMING": driver.EVENT_WITHOUT_TIMING,
        "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL": driver.POINTER_DEVICE_ORDINAL,
        "CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED": driver.HOST_REGISTER_SUPPORTED,
    }
    for name, value in expected.items():
        found = re.search(rf"\b{name}\s*=\s*(0x[0-9a-f]+|\d+)", header)
        assert found and int(found.group(1), 0) == value, name


def test_the_driver_exports_what_is_called() -> None:
    from fake_device.cuda_library import CudaLibrary

    try:
        library = cuda_driver()
    except UnavailableError as error:
        pytest.skip(str(error))
    for name in vars(CudaLibrary):
        if name.startswith("cu"):
            assert hasattr(library, name), name
