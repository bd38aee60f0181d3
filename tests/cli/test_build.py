"""``maskring build``: engines of NVIDIA's own builder, bad input in one sentence, builds that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import fake_builder
import pytest
from fake_builder import FakeBuilder, plugin_library
from pixel_model import write_pixel_model
from typer.testing import CliRunner, Result
from user_errors import assert_command_error

from maskring.cli import app
from maskring.plugins import library
from maskring.runtime.model.engine_file import read_engine, read_manifest

SIZES = ("--height", "32:48:96", "--width", "64", "--objects", "2")
RTX = ("--runtime", "tensorrt-rtx", "--compute-capability", "sm86")
needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason="no TensorRT-RTX: pip install 'maskring[rtx]'"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("model") / "pixel.onnx")


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch, plugin: Path) -> Iterator[FakeBuilder]:
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))
    with fake_builder.nvidia() as fake:
        yield fake


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_library(tmp_path_factory.mktemp("plugin") / "plugin.so")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(model: Path | str, *more: str, out: str = "m.engine") -> Result:
    return CliRunner().invoke(app, ["build", str(model), "--out", out, *more])


def refused(done: Result, *words: str) -> None:
    assert_command_error(done.exit_code, done.stderr, words)


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@needs_rtx
def test_an_engine_ahead_of_time(model: Path) -> None:
    done = build(model, *SIZES, *RTX)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("wrote m.engine (") and "scratch" in done.stdout and done.stderr == ""
    manifest = read_manifest(Path("m.engine"))
    assert read_engine(Path("m.engine"), manifest)
    assert manifest.key.shapes["frame"] == [[1, 32, 64, 3], [1, 48, 64, 3], [1, 96, 64, 3]]
    again = build(model, *SIZES, *RTX)
    assert again.exit_code == 0 and "m.engine is up to date" in again.stdout
    assert files() == ["m.engine", "m.engine.json"]


def test_an_engine_for_this_gpu(nvidia: FakeBuilder, model: Path) -> None:
    more = ("--optimization-level", "4", "--workspace", "64", "--version-compatible")
    more += ("--hardware-compatibility", "ampere-plus", "--timing-cache", "timings")
    done = build(model, *SIZES, *more)
    assert done.exit_code == 0, done.output
    assert "on the GPU: scratch 0.0 MB, activation 0.0 MB)" in done.stdout
    key = read_manifest(Path("m.engine")).key
    assert (key.optimization_level, key.workspace_mb, key.version_compatible) == (4, 64, True)
    assert key.hardware_compatibility == "ampere-plus"
    assert files() == ["m.engine", "m.engine.json", "timings"]
    anew = build(model, *SIZES)
    assert anew.exit_code == 0
    assert anew.stderr.startswith("rebuilt: optimization_level was 4 and is None; workspace_mb was 64")


def test_a_builder_that_says_nothing_of_memory(
    nvidia: FakeBuilder, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_builder.tensorrt_api, "MEMORY", ())
    done = build(model, *SIZES)
    assert done.stdout.startswith("wrote m.engine (") and done.stdout.endswith(" MB)\n"), done.output


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        (("--height", "48"), ("width", "--width N")),
        (("--height", "48:32:96", "--width", "64"), ("--height 48:32:96", "--height N")),
        ((*SIZES, "--objects", "300"), ("--objects 300", "255")),
        ((*SIZES, "--compute-capability", "sm86"), ("--compute-capability", "--runtime tensorrt-rtx")),
        ((*SIZES, "--runtime", "tensorrt-rtx"), ("TensorRT-RTX", "--compute-capability")),
        ((*SIZES, *RTX, "--version-compatible"), ("--version-compatible", "TensorRT-RTX")),
        ((*SIZES, *RTX, "--timing-cache", "timings"), ("--timing-cache", "TensorRT-RTX")),
    ],
)
def test_options_that_do_not_fit(
    nvidia: FakeBuilder, model: Path, options: tuple[str, ...], mentions: tuple[str, ...]
) -> None:
    refused(build(model, *options), *mentions)
    assert files() == []


@needs_rtx
def test_gpus_that_tensorrt_rtx_does_not_know(model: Path) -> None:
    more = ("--runtime", "tensorrt-rtx", "--compute-capability", "sm86, sm1")
    refused(build(model, *SIZES, *more), "compiles for no sm1; choose from sm75")
    assert files() == []


def test_models_and_outputs_that_do_not_serve(nvidia: FakeBuilder, model: Path) -> None:
    Path("cut.onnx").write_bytes(model.read_bytes()[:-1])
    Path("text.onnx").write_text("no model")
    Path("m.json").mkdir()
    refused(build("none.onnx", *SIZES), "none.onnx does not exist; check the path")
    for name in ("cut.onnx", "text.onnx"):
        refused(build(name, *SIZES), f"{name} is not an ONNX file")
    refused(build("m.json", *SIZES), "the model m.json cannot be read")
    refused(build(model, *SIZES, out="m.trt"), "m.trt does not end in .engine")
    refused(build(model, *SIZES, out="text.onnx/m.engine"), "text.onnx", "in the way")
    Path("folder.engine").mkdir()
    refused(build(model, *SIZES, out="folder.engine"), "folder.engine is a folder; give a file")
    assert files() == ["cut.onnx", "folder.engine", "m.json", "text.onnx"]
    assert nvidia.calls["build_serialized_network"] == 0


def test_what_is_missing(nvidia: FakeBuilder, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIBRARY_VARIABLE, "none.so")
    refused(build(model, *SIZES), "MASKRING_PLUGINS_LIBRARY", "none.so", "build the library")
    monkeypatch.setattr(fake_builder._Driver, "cuInit", lambda *_: 100)
    refused(
        build(model, *SIZES),
        "finds no GPU 0 (no CUDA-capable device is detected); install NVIDIA's driver",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", None)
        refused(build(model, *SIZES), "tensorrt cannot be imported; run pip install 'maskring[gpu]'")
    assert files() == []


def test_what_tensorrt_refuses(nvidia: FakeBuilder, model: Path) -> None:
    Path("timings").write_text("no timings")
    refused(build(model, *SIZES, "--timing-cache", "timings"), "the timing cache timings is damaged, or of")
    nvidia.fail("parse")
    refused(build(model, *SIZES), "could not build the engine: In node 7", "export it again")
    assert files() == ["timings"] and Path("timings").read_text() == "no timings"


UNDER_WAY = """
import sys
from contextlib import contextmanager
from maskring.commands import build
from maskring.__main__ import main

@contextmanager
def printed(**_):
    yield lambda phase, done, *_: print(phase, done, flush=True)

build.show_progress = printed
sys.argv = ["maskring", *sys.argv[1:]]
main()
"""


def start(model: Path) -> subprocess.Popen[str]:
    """A build in a process of its own, which is somewhere in the middle when this returns."""
    command = [sys.executable, "-c", UNDER_WAY, "build", str(model), "--out", "m.engine", *SIZES, *RTX]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Optimizing graph 3"):
            return process
    raise AssertionError(process.communicate()[1])


@needs_rtx
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_ends_by_itself(model: Path, number: signal.Signals) -> None:
    process = start(model)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=1800)
    assert process.returncode == 130, stderr
    assert stderr.strip().startswith("interrupted:")
    assert files() == []


@needs_rtx
def test_a_build_that_is_killed_leaves_what_was_there(nvidia: FakeBuilder, model: Path) -> None:
    """The engine of before stays whole, is not taken for what was asked for, and nothing else is there."""
    assert build(model, *SIZES).exit_code == 0
    before = Path("m.engine").read_bytes()
    process = start(model)
    process.kill()
    process.communicate()
    assert files() == ["m.engine", "m.engine.json"]
    manifest = read_manifest(Path("m.engine"))
    assert read_engine(Path("m.engine"), manifest) == before and manifest.key.runtime == "tensorrt"
