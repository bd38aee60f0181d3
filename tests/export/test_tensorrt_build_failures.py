"""Builds that are refused or interrupted: one sentence, and no engine that is taken for whole."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import fake_builder
import onnx
import pytest
from engine_builds import CACHED, OPEN, build, files
from fake_builder import FakeBuilder, plugin_library
from support import HEIGHT
from user_errors import raises_user_error

from maskring.common.errors import ModelError, OutputError, UnavailableError
from maskring.export.engine import build_engine
from maskring.plugins import library
from maskring.runtime.model.engine_file import read_engine

pytestmark = pytest.mark.usefixtures("in_folder")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "parse",
            ("In node 7 with name: and operator: Conv: UNSUPPORTED_NODE: Attribute", "change"),
        ),
        ("build_serialized_network", ("Could not find any implementation", "change")),
        ("Builder", ("CUDA initialization failure with error: 35. Please check your setup", "change")),
    ],
)
def test_what_tensorrt_refuses_is_said_in_its_words(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], call: str, words: tuple[str, ...]
) -> None:
    nvidia.fail(call)
    with raises_user_error(ModelError, mentions=("tensorrt 11.1.0", *words)):
        build(pixel_models["float32"], CACHED)
    assert files() == []


def test_what_an_older_tensorrt_lacks(
    pixel_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library_10 = plugin_library(tmp_path / "own.so", 10)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(library_10))
    with (
        fake_builder.nvidia("10.3.0"),
        raises_user_error(UnavailableError, mentions=("10.3.0", "same-compute-capability", "ampere-plus")),
    ):
        build(pixel_models["float32"], hardware_compatibility="same-compute-capability")
    assert files() == ["own.so"]


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0"])
def test_versions_that_are_not_supported(version: str, pixel_models: dict[str, Path]) -> None:
    with (
        fake_builder.nvidia(version),
        raises_user_error(UnavailableError, mentions=(f"TensorRT {version}", "10.3 to 11", "maskring[gpu")),
    ):
        build(pixel_models["float32"])


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("tensorrt", ("tensorrt", "pip install 'maskring[gpu]'")),
        ("polygraphy", ("polygraphy", "pip install polygraphy")),
    ],
)
def test_packages_that_are_missing(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], module: str, words: tuple[str, ...]
) -> None:
    with pytest.MonkeyPatch.context() as patch, raises_user_error(UnavailableError, mentions=words):
        patch.setitem(sys.modules, module, None)
        build(pixel_models["float32"])
    assert files() == []


def test_no_gpu(nvidia: FakeBuilder, pixel_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_builder._Driver, "cuInit", lambda *_: 100)
    with raises_user_error(UnavailableError, ["GPU 0", "no CUDA-capable device is detected", "nvidia-smi"]):
        build(pixel_models["float32"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("absent", ("MASKRING_PLUGINS_LIBRARY", "other.so", "build the library")),
        ("text", ("other.so", "build the library on this machine")),
        ("major", ("TensorRT 10", "TensorRT 11", "headers")),
        ("refused", ("TensorRT 11.1.0", "read TensorRT's log")),
        ("silent", ("TensorRT 11.1.0", "read TensorRT's log")),
    ],
)
def test_plugin_libraries_that_do_not_serve(
    nvidia: FakeBuilder,
    pixel_models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
    words: tuple[str, ...],
) -> None:
    path = tmp_path / "other.so"
    if spoil == "text":
        path.write_text("no library")
    elif spoil == "major":
        plugin_library(path, 10)
    if spoil in ("absent", "text", "major"):
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    nvidia.registers = spoil != "silent"
    if spoil == "refused":
        nvidia.fail("load_library")
    with raises_user_error(UnavailableError, mentions=words):
        build(pixel_models["float32"])
    assert not Path("m.engine").exists()


def test_one_tensorrt_per_process(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(pixel_models["float32"])
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", sys.modules["tensorrt"])
    rtx = dataclasses.replace(OPEN, runtime="tensorrt-rtx", compute_capabilities=("sm86",))
    with raises_user_error(UnavailableError, ["TensorRT", "process"]):
        build(pixel_models["float32"], rtx)


def test_a_folder_in_the_way_is_noticed_before_the_build(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("m.engine", "m.engine.json", "timings"):
        Path(name).mkdir()
        with raises_user_error(OutputError, mentions=(name, "give a file")):
            build(pixel_models["float32"], CACHED)
        Path(name).rmdir()
    assert nvidia.calls["build_serialized_network"] == 0


def test_a_model_whose_fixed_sizes_the_graph_does_not_keep(
    nvidia: FakeBuilder, pixel_models: dict[str, Path]
) -> None:
    model = onnx.load(pixel_models["float32"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = HEIGHT + 1
    onnx.save(model, "odd.onnx")
    with raises_user_error(ModelError, mentions=("frame", "static dimension mismatch")):
        build(Path("odd.onnx"))
    assert files() == ["odd.onnx"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_after_its_step(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], number: signal.Signals
) -> None:
    """Though exceptions from callbacks never leave TensorRT."""
    before = signal.getsignal(number)
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        steps += 1
        os.kill(os.getpid(), number)

    nvidia.between_steps = interrupt
    with pytest.raises(KeyboardInterrupt):
        build(pixel_models["float32"], CACHED)
    assert steps == 1 and files() == []
    assert signal.getsignal(number) is before


def test_progress_may_interrupt(nvidia: FakeBuilder, pixel_models: dict[str, Path]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(pixel_models["float32"], Path("m.engine"), OPEN, interrupt)
    assert files() == []


@pytest.mark.parametrize("written", [0, 1])
def test_a_build_that_dies_while_it_writes_leaves_no_engine_that_is_taken_for_whole(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The process is gone after ``written`` of the two files have their names."""
    build(pixel_models["float32"])
    replace, replaced = Path.replace, 0

    class Dead(BaseException):
        pass

    def dying(path: Path, target: Path) -> Path:
        nonlocal replaced
        if replaced == written:
            raise Dead
        replaced += 1
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Dead):
        build(pixel_models["float16"])
    monkeypatch.setattr(Path, "replace", replace)
    again = build(pixel_models["float16"])
    assert not again.reused
    assert "precision was float32" in again.replaced if written == 0 else "m.engine" in again.replaced
    assert read_engine(Path("m.engine"), again.manifest)
