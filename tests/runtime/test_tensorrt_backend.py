"""The TensorRT backend on a fake GPU: the same labels as onnxruntime, bit by bit, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model

from maskring.export.engine_from_onnx import EngineOptions
from maskring.runtime.backends.onnxruntime import OnnxRuntimeBackend
from maskring.runtime.backends.tensorrt import TensorRTBackend
from maskring.runtime.tracker import Tracker

HEIGHT, WIDTH = 49, 66
RANDOM = np.random.default_rng(0)
FRAMES = [RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(24)]
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[8:30, 8:30], MASK[20:44, 34:60] = 3, 9
OPTIONS = EngineOptions(height=(32, 49, 96), width=(32, 66, 128), objects=(1, 2, 6))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    return gpu


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("model") / "pixel.onnx")


@pytest.fixture(scope="module")
def engine(model: Path) -> Path:
    return write_engine(model, model.with_suffix(".engine"), OPTIONS)


@pytest.mark.parametrize("soft", [False, True])
def test_same_bits_as_onnxruntime(gpu: FakeGpu, model: Path, engine: Path, soft: bool) -> None:
    ours = Tracker(TensorRTBackend(engine), soft=soft)
    theirs = Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1), soft=soft)
    for index, frame in enumerate(FRAMES):
        mask = MASK if index == 0 else None
        result, expected = ours.step(frame, mask), theirs.step(frame, mask)
        np.testing.assert_array_equal(result.labels, expected.labels)
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    ours.close()
    assert not +gpu.alive
