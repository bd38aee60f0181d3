"""A model of raw pixels, its engines, and fake GPUs to run them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fake_device
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model
from tensorrt_scene import OPTIONS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("model") / "pixel.onnx")


@pytest.fixture(scope="module")
def engine(model: Path) -> Path:
    return write_engine(model, model.with_suffix(".engine"), OPTIONS)


@pytest.fixture(scope="module")
def rtx_engine(model: Path) -> Path:
    """The function body is built into it: it reads all slots in each step."""
    options = dataclasses.replace(OPTIONS, runtime="tensorrt-rtx")
    return write_engine(model, model.with_name("rtx.engine"), options, tensorrt_version="1.7.1")


@pytest.fixture(params=fake_device.PACKAGES)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU on which torch has made its context current, called through either package."""
    gpu = FakeGpu()
    gpu.driver_stack.append("torch's")
    fake_device.install(monkeypatch, gpu, package=request.param)
    return gpu


@pytest.fixture(params=fake_device.PACKAGES)
def idle_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU whose engines execute nothing."""
    gpu = FakeGpu(no_op=True)
    fake_device.install(monkeypatch, gpu, package=request.param)
    return gpu
