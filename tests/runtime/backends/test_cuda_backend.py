"""The backend of onnxruntime's CUDA provider: on emulated kernels, and what it says without a GPU.

Host memory stands in for the GPU's, and onnxruntime's CPU provider executes the operator of the CUDA provider
(:func:`operator_libraries.emulated`). Everything above onnxruntime is the code that runs on a GPU.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import operator_libraries
import pytest
from pixel_model import write_pixel_model
from support import export_tiny_model
from user_errors import raises_user_error

from maskring.common.errors import ModelError, SourceError, UnavailableError
from maskring.plugins.windowed_affinity.onnx_op import is_memory_read
from maskring.runtime.backends import DeviceFrame, open_backend
from maskring.runtime.backends.onnxrt import cuda_backend, cuda_provider
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.cuda_backend import OnnxRuntimeCudaBackend
from maskring.runtime.backends.onnxrt.cuda_tensors import ALIGNMENT, CudaTensors
from maskring.runtime.backends.onnxrt.session import open_session
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 49, 66
RANDOM = np.random.default_rng(0)
FRAMES = [RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(12)]
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[8:30, 8:30], MASK[20:44, 34:60] = 3, 9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def host_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = operator_libraries.emulated()
    monkeypatch.setattr(cuda_provider, "DEVICE", "cpu")
    monkeypatch.setattr(
        cuda_provider, "open_cuda_session", lambda graph: open_session(graph, 1, library=library)
    )


def run(tracker: Tracker) -> list[Any]:
    """Two objects, one of them removed, a third one added in its place."""
    third = np.where(MASK == 9, 77, 0).astype(np.uint8)[::-1].copy()
    results = []
    for index, frame in enumerate(FRAMES):
        if index == 5:
            tracker.remove(3)
        results.append(tracker.step(frame, {0: MASK, 7: third, 9: MASK // 3}.get(index)))
    return results


def assert_same(results: list[Any], expected: list[Any]) -> None:
    for index, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        np.testing.assert_allclose(result.probabilities, wanted.probabilities, atol=1e-3)
        assert (result.labels == wanted.labels).mean() > 0.999, index
        assert [state.id for state in result.objects] == [state.id for state in wanted.objects]


# ---- tracking


@pytest.mark.usefixtures("host_as_gpu")
def test_tracks_like_the_cpu(model: Path) -> None:
    with (
        Tracker(OnnxRuntimeCudaBackend(model)) as ours,
        Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1)) as theirs,
    ):
        assert_same(run(ours), run(theirs))


@pytest.mark.usefixtures("host_as_gpu")
def test_label_maps_reach_slots_that_are_not_aligned(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 x 17 features of 4 bytes: most slots begin between two multiples of 16."""
    copied: list[int] = []
    copy = OnnxRuntimeCudaBackend._copy_value

    def watched(backend: OnnxRuntimeCudaBackend, tensors: CudaTensors, target: int) -> None:
        copied.append(target % ALIGNMENT)
        copy(backend, tensors, target)

    monkeypatch.setattr(OnnxRuntimeCudaBackend, "_copy_value", watched)
    with Tracker(OnnxRuntimeCudaBackend(model)) as ours, Tracker(OnnxRuntimeBackend(model)) as theirs:
        assert_same(run(ours), run(theirs))
    assert copied and all(copied)


class Driver:
    """The few calls of the driver, over memory of the host."""

    def __init__(self, readable: bool = True, streams: tuple[int, ...] = (1,)) -> None:
        self.readable, self.streams, self.finished = readable, streams, []
        self.contexts = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _: int) -> int:
        context._obj.value = 1
        self.contexts += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, *_: Any) -> int:
        self.contexts -= 1
        return 0

    def cuPointerGetAttribute(self, ordinal: Any, *_: Any) -> int:
        ctypes.cast(ordinal, ctypes.POINTER(ctypes.c_int))[0] = 0
        return 0 if self.readable else 1

    def cuStreamSynchronize(self, stream: Any) -> int:
        self.finished.append(stream.value)
        return 0 if stream.value in self.streams else 400


def framed(pixels: np.ndarray, stream: int | None = 1) -> DeviceFrame:
    interface = {"shape": pixels.shape, "typestr": "|u1", "data": (pixels.ctypes.data, False), "version": 3}
    return DeviceFrame(SimpleNamespace(__cuda_array_interface__=interface | {"stream": stream}, kept=pixels))


@pytest.mark.usefixtures("host_as_gpu")
def test_frames_on_the_gpu_are_read_in_place_once_their_stream_is_done(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    monkeypatch.setattr(cuda_backend, "cuda_driver", lambda: driver)
    with Tracker(OnnxRuntimeCudaBackend(model)) as ours, Tracker(OnnxRuntimeBackend(model)) as theirs:
        for index, frame in enumerate(
            FRAMES
        ):  # of frames on a GPU, no picture is kept for objects that come later
            mask = None if index else MASK
            assert_same([ours.step(framed(frame), mask)], [theirs.step(frame, mask)])
        assert driver.finished == [1] * len(FRAMES)
        assert driver.contexts == 1
    assert driver.contexts == 0


@pytest.mark.usefixtures("host_as_gpu")
@pytest.mark.parametrize(
    ("driver", "mentions"), [(Driver(readable=False), "CUDA_VISIBLE_DEVICES"), (Driver(streams=()), "stream")]
)
def test_frames_that_the_gpu_cannot_read_are_refused_and_tracking_goes_on(
    model: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver, mentions: str
) -> None:
    monkeypatch.setattr(cuda_backend, "cuda_driver", lambda: driver)
    with Tracker(OnnxRuntimeCudaBackend(model)) as tracker:
        tracker.step(FRAMES[0], MASK)
        with raises_user_error(SourceError, mentions=(mentions,)):
            tracker.step(framed(FRAMES[1]))
        tracker.step(FRAMES[1])


@pytest.mark.usefixtures("host_as_gpu")
def test_what_the_kernels_do_not_support_is_told_with_a_remedy(tmp_path: Path) -> None:
    model = write_pixel_model(tmp_path / "top_k.onnx", top_k=4)
    proto = onnx.load(model)
    for attribute in next(filter(is_memory_read, proto.graph.node)).attribute:
        if attribute.name == "top_k":
            attribute.i = 4
    onnx.save(proto, model)
    with raises_user_error(ModelError, mentions=(model, "--top-k 0")):
        OnnxRuntimeCudaBackend(model)


@pytest.mark.usefixtures("host_as_gpu")
def test_closing_twice_and_using_a_closed_one(model: Path) -> None:
    backend = OnnxRuntimeCudaBackend(model)
    with pytest.raises(ValueError, match="allocate"):
        backend.write_value(0, np.zeros((2, 13, 17), np.float32))
    backend.close(), backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.allocate(HEIGHT, WIDTH, 8, 2)


# ---- what is missing


def refuse(*_: Any) -> Any:
    raise UnavailableError("this machine has no NVIDIA driver", "install NVIDIA's driver")


@pytest.fixture
def nearly_ready(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Everything that `require_cuda` asks for is there."""
    monkeypatch.setattr(cuda_provider, "installed_packages", lambda: {"onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda_provider.PROVIDER])
    monkeypatch.setattr(cuda_provider, "has_cuda", lambda _: True)
    monkeypatch.setattr(cuda_provider, "compute_capability", lambda: "sm90")
    return monkeypatch


@pytest.mark.parametrize(
    ("part", "value", "mentions"),
    [
        ("installed_packages", lambda: {"onnxruntime": "1", "onnxruntime-gpu": "1"}, ("both", "uninstall")),
        ("has_cuda", lambda _: False, ("no CUDA kernels", "nvcc")),
        ("compute_capability", refuse, ("driver",)),
    ],
)
def test_each_missing_part_is_named(
    nearly_ready: pytest.MonkeyPatch, part: str, value: Any, mentions: tuple[str, ...]
) -> None:
    nearly_ready.setattr(cuda_provider, part, value)
    with raises_user_error(UnavailableError, mentions=mentions):
        cuda_provider.require_cuda()


def test_an_onnxruntime_for_cpus_is_named_with_the_command(
    model: Path, nearly_ready: pytest.MonkeyPatch
) -> None:
    nearly_ready.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with raises_user_error(
        UnavailableError, mentions=(cuda_provider.PROVIDER, "pip install", "onnxruntime-gpu")
    ):
        open_backend(model, device="cuda")


def test_a_provider_that_does_not_start_never_falls_back(
    model: Path, nearly_ready: pytest.MonkeyPatch
) -> None:
    """Where libraries of the provider are missing, onnxruntime opens the session on the CPU, as this one does."""
    nearly_ready.setattr(
        cuda_provider, "open_session", lambda graph, threads, library, providers: open_session(graph, threads)
    )
    with raises_user_error(UnavailableError, mentions=(cuda_provider.PROVIDER, ".so", "cudnn")):
        open_backend(model, device="cuda")


def test_the_function_body_is_no_choice_on_a_gpu(model: Path) -> None:
    with raises_user_error(ModelError, mentions=(model, "--kernel function")):
        open_backend(model, device="cuda", kernel="function")


GPU_PYTHON = "MASKRING_GPU_PYTHON"


def test_the_real_package_refuses_without_a_gpu(model: Path) -> None:
    """onnxruntime-gpu itself, in an environment of its own."""
    python = os.environ.get(GPU_PYTHON)
    if not python:
        pytest.skip(f"set {GPU_PYTHON} to the Python of an environment with onnxruntime-gpu and maskring")
    code = "import sys, maskring; maskring.open_tracker(sys.argv[1], device='cuda')"
    done = subprocess.run([python, "-c", code, model], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    last = done.stderr.strip().splitlines()[-1]
    assert "UnavailableError" in last and ("driver" in last or "cudnn" in last), done.stderr
    assert sys.executable != python
