"""Engines on a real GPU: built here, tracked with, held to onnxruntime. Skipped where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint

from maskring.common.errors import UnavailableError
from maskring.export.engine import EngineOptions, build_engine
from maskring.plugins.library import library_path
from maskring.runtime.backends.device_frame import DeviceFrame
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.backends.trt.driver import open_driver
from maskring.runtime.backends.trt.module import import_tensorrt
from maskring.runtime.model.engine_file import TENSORRT, TENSORRT_RTX
from maskring.runtime.tracking.tracker import Tracker

FRAMES = 40


@pytest.fixture(scope="module")
def gpu() -> str:
    """Compute capability of the GPU."""
    try:
        driver = open_driver(0)
    except UnavailableError as error:
        pytest.skip(str(error))
    driver.release(current=False)
    return driver.compute_capability


@pytest.fixture(scope="module")
def model(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from maskring.export.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("hardware")
    out = folder / "tiny.onnx"
    checkpoint = write_tiny_checkpoint(folder / "tiny.safetensors")
    export_onnx(checkpoint, out, radius=3, height=HEIGHT, width=WIDTH, num_labels=3)
    return out


@pytest.fixture(scope="module", params=[TENSORRT, TENSORRT_RTX])
def engine(request: pytest.FixtureRequest, gpu: str, model: Path) -> Path:
    """The model as an engine of each runtime that is here."""
    try:
        import_tensorrt(request.param)
        if request.param == TENSORRT:
            library_path()
    except UnavailableError as error:
        pytest.skip(str(error))
    rtx = request.param == TENSORRT_RTX
    if rtx and "tensorrt" in sys.modules:
        pytest.skip("two TensorRTs do not share a process: pytest -k tensorrt-rtx runs these")
    out = model.with_name(f"{request.param}.engine")
    build_engine(model, out, EngineOptions(request.param, compute_capabilities=(gpu,) if rtx else ()))
    return out


def two_objects() -> np.ndarray:
    mask = moving_square(0)[1].copy()
    mask[36:46, 4:20] = 2
    return mask


def steps(tracker: Tracker, wrap: Any = lambda image: image) -> Iterator[np.ndarray]:
    """Labels of a stream in which an object is removed and drawn again, and frames are named ahead."""
    images = [moving_square(abs(index % 14 - 7))[0] for index in range(FRAMES)]
    for index, image in enumerate(images):
        if index == 20:
            tracker.remove(2)
        if index + 1 < len(images):
            tracker.prefetch(images[index + 1])
        mask = two_objects() if index in (0, 25) else None
        yield tracker.step(wrap(image), mask).labels


def assert_close(model: Path, labels: list[np.ndarray]) -> None:
    """Kernels round differently: nearly all pixels have the same label."""
    with Tracker(OnnxRuntimeBackend(model)) as tracker:
        for ours, theirs in zip(labels, steps(tracker), strict=True):
            assert (ours == theirs).mean() > 0.99


def test_tracks_like_onnxruntime(model: Path, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    with Tracker(backend) as tracker:
        labels = list(steps(tracker))
        print("CUDA graphs:", backend.graphs_disabled or "used")
    assert_close(model, labels)


def test_without_graphs_too(model: Path, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    assert backend._launcher is not None
    backend._launcher.graphs_disabled = "this test wants none"
    with Tracker(backend) as tracker:
        labels = list(steps(tracker))
    assert_close(model, labels)


def test_beside_torch_with_frames_on_the_gpu(model: Path, engine: Path) -> None:
    torch = pytest.importorskip("torch", reason="no torch: pip install 'maskring[train]'")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    product = torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")
    with Tracker(TensorRTBackend(engine)) as tracker:
        labels = list(steps(tracker, lambda image: DeviceFrame(torch.from_numpy(image).cuda())))
        assert float((product @ product).sum()) == 64.0**4
    assert float(product.sum()) == 64.0**3
    assert_close(model, labels)


def test_opening_and_closing_gives_memory_back(engine: Path) -> None:
    driver = open_driver(0)
    driver.push()
    try:
        left = []
        for _ in range(6):
            with Tracker(TensorRTBackend(engine)) as tracker:
                list(steps(tracker))
            left.append(driver.memory_left()[0])
        assert left[-1] >= left[2]  # the first rounds load what stays loaded
    finally:
        driver.release(current=True)
