"""Commands on engines: the backend is chosen by the file, and what is missing is one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model
from support import HEIGHT, WIDTH
from typer.testing import CliRunner, Result
from user_errors import assert_command_error, raises_user_error

from maskring.cli import app
from maskring.common.errors import UserError
from maskring.export.engine import EngineOptions, build_engine
from maskring.models import open_tracker
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.video.masks import read_mask

if TYPE_CHECKING:
    from conftest import Workspace

OPTIONS = EngineOptions(height=(HEIGHT,) * 3, width=(WIDTH,) * 3, objects=(1, 1, 4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("model") / "pixel.onnx")


@pytest.fixture(scope="module")
def engine(model: Path) -> Path:
    return write_engine(model, model.with_suffix(".engine"), OPTIONS)


def track(workspace: Workspace, model: Path, out: Path, *extra: str) -> Result:
    arguments = ["track", workspace.frames, "--mask", workspace.mask, "--model", model, "--out", out, *extra]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_one_sentence(done: Result, *words: str) -> None:
    assert_command_error(done.exit_code, done.stderr, words)


def test_track(
    workspace: Workspace, model: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same masks as from the .onnx."""
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    for path, out, kernel in ((engine, "engine", []), (model, "onnx", ["--kernel", "function"])):
        done = track(workspace, path, tmp_path / out, "--no-overlay", *kernel)
        assert done.exit_code == 0, done.output
    masks = sorted((tmp_path / "onnx" / "masks").iterdir())
    assert len(masks) == len(list(workspace.frames.iterdir()))
    for mask in masks:
        ours = read_mask(tmp_path / "engine" / "masks" / mask.name)
        np.testing.assert_array_equal(ours, read_mask(mask))
    assert gpu.executions == len(masks) + 1  # and one to warm up
    assert not +gpu.alive


def test_an_engine_has_its_kernel_built_in(workspace: Workspace, engine: Path, tmp_path: Path) -> None:
    done = track(workspace, engine, tmp_path / "out", "--kernel", "function")
    assert_one_sentence(done, "engine", "--kernel function")


def test_no_tensorrt(
    workspace: Workspace, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = track(workspace, engine, tmp_path / "out")
    assert_one_sentence(done, "module of tensorrt cannot be imported", "pip install 'maskring[gpu]'")


def test_nothing_that_calls_the_driver(
    workspace: Workspace, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_device.install(monkeypatch, FakeGpu(), package=None)
    done = track(workspace, engine, tmp_path / "out")
    assert_one_sentence(done, "pycuda", "cuda-bindings", "give an .onnx")


def test_no_gpu(workspace: Workspace, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    gpu.fail("init")
    assert_one_sentence(track(workspace, engine, tmp_path / "out"), "the GPU cannot be used", "nvidia-smi")


def test_an_engine_without_what_stands_beside_it(workspace: Workspace, engine: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.engine"
    lone.write_bytes(engine.read_bytes())
    done = track(workspace, lone, tmp_path / "out")
    assert_one_sentence(done, "lone.engine.json", "does not exist", "maskring build")


def test_a_policy_that_does_not_fit_leaves_nothing_open(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    with raises_user_error(UserError, mentions=(12, 8)):
        open_tracker(engine, policy=MemoryPolicy(long_term=(0, 5), short_term=(1, 9)))
    assert not +gpu.alive


def test_a_real_engine_of_nvidias_builder(workspace: Workspace, tmp_path: Path) -> None:
    """Built by TensorRT-RTX here; that there is no GPU to run it is said in one sentence."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="no TensorRT-RTX: pip install 'maskring[rtx]'")
    out = tmp_path / "real.engine"
    sizes = {"height": OPTIONS.height, "width": OPTIONS.width, "objects": OPTIONS.objects}
    options = EngineOptions(runtime="tensorrt-rtx", compute_capabilities=("sm86",), **sizes)
    build_engine(workspace.model, out, options)
    done = track(workspace, out, tmp_path / "out")
    if done.exit_code == 0:
        pytest.skip("this machine has a GPU: the engine runs")
    assert_one_sentence(done)
