"""Engines, sizes and machines that the TensorRT backend refuses, each in one sentence."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import onnx
import pytest
from fake_device import FakeGpu, named
from tensorrt_scene import SIZES, act, assert_nothing_is_left, clip
from user_errors import raises_user_error

from maskring.common.errors import MaskError, ModelError, SourceError, UnavailableError
from maskring.plugins import library
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.model.engine_file import manifest_path, sha256
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = SIZES[0]
FRAMES = clip(HEIGHT, WIDTH, 2)


# --- sizes that the engine was not built for


def test_frames_of_another_size(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    with raises_user_error(SourceError, mentions=("66x97", "32 to 128 x 32 to 96", "--height and --width")):
        backend.allocate(97, 66, 8, 2)
    backend.allocate(96, 66, 8, 2)


def test_more_objects_than_the_engine_takes(gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0, FRAMES[0])
    crowd = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) % 5 + 20
    with raises_user_error(MaskError, mentions=(7, ".engine", 6, "--objects 1:6:7")):
        tracker.step(FRAMES[1], crowd.astype(np.uint8))
    act(tracker, 1, FRAMES[1])


# --- engines for something else


def changed(engine: Path, folder: Path, **key: Any) -> Path:
    """A copy of the engine whose manifest says that it was built for something else."""
    copy = folder / "other.engine"
    copy.write_bytes(engine.read_bytes())
    manifest = json.loads(manifest_path(engine).read_text())
    manifest["key"] |= key
    manifest_path(copy).write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"tensorrt_version": "10.9.0"}, ("tensorrt 10.9.0", "11.1.0", "maskring build")),
        ({"tensorrt_version": "11.1.1"}, ("tensorrt 11.1.1", "11.1.0")),
        ({"tensorrt_version": "11.2.0", "version_compatible": True}, ("tensorrt 11.2.0",)),
        ({"compute_capability": ["sm89"]}, ("sm89", "sm86")),
    ],
)
def test_what_differs_is_named(
    gpu: FakeGpu, engine: Path, tmp_path: Path, key: Any, words: tuple[str, ...]
) -> None:
    with raises_user_error(ModelError, mentions=words):
        TensorRTBackend(changed(engine, tmp_path, **key))
    assert gpu.calls["deserialize_cuda_engine"] == 0
    assert_nothing_is_left(gpu)


@pytest.mark.parametrize("shapes", [{}, {"frame": [[1, 8, 8, 3]] * 3}, {"memory_keys": [[1, 8]] * 3}])
def test_a_manifest_of_another_network(gpu: FakeGpu, engine: Path, tmp_path: Path, shapes: Any) -> None:
    whole = json.loads(manifest_path(engine).read_text())["key"]["shapes"]
    shapes = whole | shapes if "memory_keys" in shapes else shapes
    with raises_user_error(ModelError, mentions=("other.engine.json", "maskring build")):
        TensorRTBackend(changed(engine, tmp_path, shapes=shapes))
    assert_nothing_is_left(gpu)


@pytest.mark.parametrize(
    "key",
    [
        {"tensorrt_version": "11.0.5", "version_compatible": True},
        {"compute_capability": ["sm80"], "hardware_compatibility": "ampere-plus"},
    ],
)
def test_what_is_compatible_runs(gpu: FakeGpu, engine: Path, tmp_path: Path, key: Any) -> None:
    backend = TensorRTBackend(changed(engine, tmp_path, **key))
    assert backend._engine is not None  # code that comes with an engine is executed where the engine needs it
    assert backend._engine._runtime.engine_host_code_allowed == ("version_compatible" in key)
    with Tracker(backend) as tracker:
        act(tracker, 0, FRAMES[0])


@pytest.mark.parametrize("version", ["10.2.0", "12.0.1"])
def test_tensorrt_too_old_or_too_new(monkeypatch: pytest.MonkeyPatch, engine: Path, version: str) -> None:
    fake_device.install(monkeypatch, FakeGpu(), version=version)
    with raises_user_error(UnavailableError, mentions=(f"TensorRT {version}", "10.3 to 11", "maskring[gpu")):
        TensorRTBackend(engine)


def test_files_that_are_missing_or_damaged(gpu: FakeGpu, engine: Path, tmp_path: Path) -> None:
    copy = changed(engine, tmp_path)
    copy.write_bytes(copy.read_bytes()[:-1])
    with raises_user_error(ModelError, mentions=(copy, "maskring build")):
        TensorRTBackend(copy)
    manifest_path(copy).write_text("{")
    with raises_user_error(ModelError, mentions=(manifest_path(copy), "maskring build")):
        TensorRTBackend(copy)
    manifest_path(copy).unlink()
    with raises_user_error(ModelError, mentions=(manifest_path(copy), "copy it")):
        TensorRTBackend(copy)
    copy.unlink()
    with raises_user_error(ModelError, mentions=(copy,)):
        TensorRTBackend(copy)
    assert_nothing_is_left(gpu)


def resealed(engine: Path, content: bytes) -> Path:
    """Other content under a manifest that describes it: what only TensorRT can find out."""
    engine.write_bytes(content)
    manifest = json.loads(manifest_path(engine).read_text())
    manifest_path(engine).write_text(json.dumps(manifest | {"engine_sha256": sha256(engine)}))
    return engine


def test_tensorrt_refuses_the_engine_in_its_own_words(gpu: FakeGpu, engine: Path, tmp_path: Path) -> None:
    strange = resealed(changed(engine, tmp_path), b"no engine at all")
    with raises_user_error(
        ModelError, mentions=("TensorRT 11.1.0", strange, "Error Code 1: magic tag", "maskring build")
    ) as caught:
        TensorRTBackend(strange)
    assert_nothing_is_left(gpu)  # while somebody still looks at the exception
    assert caught.value.remedy


def test_an_engine_of_another_network(gpu: FakeGpu, engine: Path, tmp_path: Path) -> None:
    network = onnx.load_model_from_string(engine.read_bytes())
    network.graph.output[0].name = "masks"
    for node in network.graph.node:
        node.output[:] = ["masks" if name == "labels" else name for name in node.output]
    strange = resealed(changed(engine, tmp_path), network.SerializeToString())
    with raises_user_error(ModelError, mentions=(strange, "labels, masks", "maskring build")):
        TensorRTBackend(strange)
    assert_nothing_is_left(gpu)


# --- what is not installed


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch, engine: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with raises_user_error(UnavailableError, mentions=("tensorrt", "pip install 'maskring[gpu")):
        TensorRTBackend(engine)


def test_nothing_that_calls_the_driver(monkeypatch: pytest.MonkeyPatch, engine: Path) -> None:
    fake_device.install(monkeypatch, FakeGpu(), package=None)
    with raises_user_error(UnavailableError, mentions=("pycuda", "pip install cuda-bindings")):
        TensorRTBackend(engine)


@pytest.mark.parametrize("call", ["cuInit", "cuStreamCreate"])
def test_a_package_that_finds_no_driver_or_an_older_one(
    monkeypatch: pytest.MonkeyPatch, engine: Path, call: str
) -> None:
    """cuda-bindings loads it at the first call, and looks each function up when it is called."""

    def missing(flags: int) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    fake_device.install(monkeypatch, FakeGpu(), package="cuda-bindings")
    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], call, missing)
    with raises_user_error(UnavailableError, mentions=("libcuda.so.1", "install NVIDIA")):
        TensorRTBackend(engine)


@pytest.mark.parametrize("call", ["init", "Device", "Device.retain_primary_context", "Stream"])
def test_no_gpu(gpu: FakeGpu, engine: Path, call: str) -> None:
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=(named(call), "install NVIDIA")):
        TensorRTBackend(engine)
    assert_nothing_is_left(gpu)


# --- the plugin


def with_plugin(
    engine: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, digest: str | None = None
) -> Path:
    """The engine as one that needs the plugin library, and a library that is not one."""
    plugin = folder / "libplugin.so"
    plugin.write_bytes(b"not a library")
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))
    return changed(engine, folder, plugin_sha256=digest or sha256(plugin))


def test_the_plugin_is_there(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, engine: Path, tmp_path: Path
) -> None:
    trt = sys.modules["tensorrt"]
    registry = trt.get_plugin_registry()
    name, version, namespace = library.PLUGIN
    creator = {"name": name, "plugin_version": version, "plugin_namespace": namespace}
    registry.all_creators.append(dataclasses.make_dataclass("Creator", creator)(**creator))
    with Tracker(TensorRTBackend(with_plugin(engine, tmp_path, monkeypatch))) as tracker:
        act(tracker, 0, FRAMES[0])


def test_the_plugin_cannot_be_loaded(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, engine: Path, tmp_path: Path
) -> None:
    with raises_user_error(UnavailableError, mentions=("libplugin.so", "build the library")):
        TensorRTBackend(with_plugin(engine, tmp_path, monkeypatch))
    assert_nothing_is_left(gpu)


def test_the_plugin_is_another_one(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, engine: Path, tmp_path: Path
) -> None:
    with raises_user_error(ModelError, mentions=("plugin", "aaaaaaaaaaaa", "maskring build")):
        TensorRTBackend(with_plugin(engine, tmp_path, monkeypatch, "a" * 64))
    assert_nothing_is_left(gpu)


def test_the_plugin_is_missing(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, engine: Path, tmp_path: Path
) -> None:
    path = with_plugin(engine, tmp_path, monkeypatch)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    with raises_user_error(UnavailableError, [library.LIBRARY_VARIABLE, "none.so", "docs/plugin.md"]):
        TensorRTBackend(path)
    assert_nothing_is_left(gpu)
