"""What can go wrong with an engine and its GPU: one sentence, and a tracker that goes on or is closed."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import onnx
import pytest
from fake_device import FakeGpu
from user_errors import raises_user_error

from maskring.common.errors import MaskError, ModelError, SourceError, UnavailableError, UserError
from maskring.export.engine import EngineOptions
from maskring.plugins import library
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.model.engine_file import manifest_path, sha256
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 49, 66
OPTIONS = EngineOptions(height=(32, 49, 96), width=(32, 66, 128), objects=(1, 2, 4))
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[8:30, 8:30], MASK[20:44, 34:60] = 3, 9
ADDED = np.where(MASK == 9, 5, 0).astype(np.uint8)
RANDOM = np.random.default_rng(0)
FRAMES = [RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(14)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    gpu.driver_stack.append("torch's")
    fake_device.install(monkeypatch, gpu)
    return gpu


def assert_one_sentence(error: UserError | str) -> None:
    assert re.fullmatch(r"[^\n]+; [^\n]+\.", str(error))


def assert_nothing_is_left(gpu: FakeGpu) -> None:
    assert not +gpu.alive and not gpu.outlived
    assert gpu.driver_stack == ["torch's"]


# --- every call of a session, made to fail


def act(tracker: Tracker, index: int) -> np.ndarray:
    """One step of a stream in which labels grow, an object goes, and frames are named ahead."""
    if index == 9 and 3 in tracker._objects.ids:
        tracker.remove(3)
    if index + 1 < len(FRAMES):
        tracker.prefetch(FRAMES[index + 1])
    return tracker.step(FRAMES[index], {0: MASK, 6: ADDED}.get(index)).labels


@pytest.fixture(scope="module")
def expected(model: Path) -> list[np.ndarray]:
    with Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1)) as tracker:
        return [act(tracker, index) for index in range(len(FRAMES))]


def session(engine: Path, expected: list[np.ndarray]) -> tuple[list[str], bool]:
    """Track, giving a frame again when it failed; the errors, and whether the tracker survived them."""
    errors: list[str] = []  # not the exceptions: their frames hold objects of the fake, as C++ would not
    try:
        tracker = Tracker(TensorRTBackend(engine))
    except UserError as error:
        return [str(error)], False
    index = 0
    while index < len(FRAMES) and len(errors) < 3:
        try:
            np.testing.assert_array_equal(act(tracker, index), expected[index])
            index += 1
        except UserError as error:
            errors.append(str(error))
    tracker.close()
    tracker.close()
    return errors, index == len(FRAMES)


NEVER_REFUSED = {
    "Context.pop",
    "Context.detach",
    "Stream.__del__",
    "cuCtxPopCurrent_v2",
    "cuGraphExecDestroy",
    "cuMemHostUnregister",
}
"""Calls that give something back, and that the driver does not refuse; counted all the same."""


def calls_of_a_session(engine: Path, expected: list[np.ndarray]) -> Counter[str]:
    gpu = FakeGpu()
    with pytest.MonkeyPatch.context() as patch:
        fake_device.install(patch, gpu)
        assert session(engine, expected) == ([], True)
    return gpu.calls


def test_every_call_may_fail(engine: Path, expected: list[np.ndarray]) -> None:
    """The first, the second, one in the middle and the last of each kind, one at a time."""
    calls = calls_of_a_session(engine, expected)
    assert len(calls) > 25
    outcomes: dict[str, set[tuple[int, bool]]] = {}
    for name in sorted(set(calls) - NEVER_REFUSED):
        for after in sorted({0, 1, 2, calls[name] // 2, calls[name] - 1} & set(range(calls[name]))):
            gpu = FakeGpu()
            gpu.driver_stack.append("torch's")
            gpu.fail(name, after)
            with pytest.MonkeyPatch.context() as patch:
                fake_device.install(patch, gpu)
                errors, survived = session(engine, expected)
            for error in errors:
                assert_one_sentence(error)
            assert len(set(errors)) <= 1, "closed, and another reason each time"
            assert survived or errors
            outcomes.setdefault(name, set()).add((len(errors), survived))
            if name == "Context.push":
                # pycuda pushes it once more to give it back, and leaves it there.
                del gpu.driver_stack[1:]
            assert_nothing_is_left(gpu)
    assert outcomes["cuStreamBeginCapture_v2"] == {(0, True)}  # goes on without graphs
    assert (1, True) in outcomes["set_input_shape"]  # the frame is given again
    assert (3, False) in outcomes["Stream.synchronize"]  # closed, and says so each time
    assert all(survived is False for _, survived in outcomes["create_execution_context"])


def test_a_failed_execution_leaves_the_tracker_usable(
    gpu: FakeGpu, engine: Path, expected: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    gpu.fail("cuStreamBeginCapture_v2")  # so that executions can fail outside a capture
    act(tracker, 0)
    for index in range(1, len(FRAMES)):
        if index in (3, 8):
            gpu.fail("execute_async_v3")
            reason = f"enqueueV3: call {gpu.calls['execute_async_v3'] + 1} failed"
            with raises_user_error(ModelError, mentions=(reason, "give the frame")):
                act(tracker, index)
        np.testing.assert_array_equal(act(tracker, index), expected[index])


def test_memory_that_does_not_fit_leaves_what_was_there(
    gpu: FakeGpu, engine: Path, expected: list[np.ndarray]
) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    for index in range(6):
        act(tracker, index)
    for shortage in range(0, 60_000, 9_000):  # each allocation in turn is the one that fails
        gpu.memory = gpu.used + shortage
        before = dict(+gpu.alive), gpu.used
        with raises_user_error(UnavailableError, mentions=("GPU", "MB", "smaller frames")):
            act(tracker, 6)
        assert (dict(+gpu.alive), gpu.used) == before
    gpu.memory = 1 << 30
    for index in range(6, len(FRAMES)):
        np.testing.assert_array_equal(act(tracker, index), expected[index])


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_an_engine_that_refuses_new_memory_keeps_the_old(
    gpu: FakeGpu, model: Path, engine: Path, expected: list[np.ndarray], call: str
) -> None:
    """A mask adds an object, and the engine will not have it: the stream goes on without."""
    theirs = Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1))
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    for index in range(6):
        np.testing.assert_array_equal(act(tracker, index), act(theirs, index))
    before = gpu.alive["allocation"], gpu.alive["pinned"], gpu.used
    gpu.fail(call)
    with pytest.raises(ModelError):
        act(tracker, 6)
    assert (gpu.alive["allocation"], gpu.alive["pinned"], gpu.used) == before
    for index in range(6, len(FRAMES)):
        np.testing.assert_array_equal(tracker.step(FRAMES[index]).labels, theirs.step(FRAMES[index]).labels)
    assert backend.graphs_disabled == "", "graphs are captured again"


def test_an_engine_that_takes_neither_memory_is_closed(gpu: FakeGpu, engine: Path) -> None:
    """It would write to addresses of one memory in the shapes of the other."""
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail("execute_async_v3")
    tries = gpu.calls["set_input_shape"]
    gpu.when["set_input_shape"] = lambda: gpu.calls["set_input_shape"] > tries + 4
    with raises_user_error(UnavailableError, mentions=("frame", "open the model again")):
        tracker.step(FRAMES[1], ADDED)
    assert_nothing_is_left(gpu)


def test_a_gpu_that_fails_closes_the_tracker_and_frees_everything(gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail("Stream.synchronize")
    words = (
        "frame",
        "Stream.synchronize",
        "unspecified launch failure",
        "nvidia-smi",
        "open the model again",
    )
    with raises_user_error(UnavailableError, mentions=words):
        act(tracker, 1)
    assert_nothing_is_left(gpu)
    for again in (lambda: act(tracker, 1), lambda: tracker.remove(3)):
        with raises_user_error(UnavailableError, mentions=words):
            again()
    tracker.close()


def test_a_broken_gpu_is_not_asked_twice(gpu: FakeGpu, engine: Path) -> None:
    """An engine that reads where nothing is: the context is lost, and every call says so from then on."""
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    act(tracker, 0)
    assert backend._tensors is not None
    gpu.free(backend._tensors.keys.address)
    with raises_user_error(UnavailableError, mentions=("illegal memory access",)):
        act(tracker, 1)
    tracker.close()


@pytest.mark.parametrize("call", ["memcpy_htod_async", "memcpy_dtoh_async", "Stream.synchronize"])
def test_failures_between_frames(gpu: FakeGpu, engine: Path, call: str) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=("removed", call)):
        tracker.remove(3)
    assert_nothing_is_left(gpu)


@pytest.mark.parametrize("call", ["memcpy_htod_async", "Stream.synchronize"])
def test_failures_while_a_mask_is_stored(gpu: FakeGpu, engine: Path, call: str) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    labels = act(tracker, 0)
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=("mask", call)):
        tracker.revise(labels)
    assert_nothing_is_left(gpu)


def test_a_closed_backend(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    with pytest.raises(ValueError, match="no memory"):
        backend.step(FRAMES[0], np.zeros(8, np.int32), 0)
    backend.close()
    backend.close()
    for call in (
        lambda: backend.allocate(HEIGHT, WIDTH, 8, 2),
        lambda: backend.step(FRAMES[0], np.zeros(8, np.int32), 0),
        lambda: backend.merge_label(1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


# --- sizes that the engine was not built for


def test_frames_of_another_size(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    with raises_user_error(SourceError, mentions=("66x97", "32 to 128 x 32 to 96", "--height and --width")):
        backend.allocate(97, 66, 8, 2)
    backend.allocate(96, 66, 8, 2)


def test_more_objects_than_the_engine_takes(gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    crowd = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) % 5 + 20
    with raises_user_error(MaskError, mentions=(7, ".engine", 4, "--objects 1:4:7")):
        tracker.step(FRAMES[1], crowd.astype(np.uint8))
    act(tracker, 1)


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
        act(tracker, 0)


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


def test_no_pycuda(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, engine: Path) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with raises_user_error(UnavailableError, mentions=("pycuda", "pip install pycuda")):
        TensorRTBackend(engine)


@pytest.mark.parametrize("call", ["init", "Device", "Device.retain_primary_context", "Stream"])
def test_no_gpu(gpu: FakeGpu, engine: Path, call: str) -> None:
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=(call, "install NVIDIA")):
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
        act(tracker, 0)


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
