"""The TensorRT backend on a fake GPU: the same labels as onnxruntime, bit by bit, with and without CUDA graphs."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model
from tensorrt_scene import FRAMES, OPTIONS, SIZES, SLOTS, act, assert_equal, clip, reference, two_objects

from maskring.export.engine import EngineOptions
from maskring.runtime.backends import PrefetchingBackend, open_backend
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.tracking.tracker import Tracker


@pytest.fixture(params=["late", "hasty"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU that works as late, or as early, as a real one may."""
    gpu = FakeGpu(hasty=request.param == "hasty")
    gpu.driver_stack.append("torch's")
    fake_device.install(monkeypatch, gpu, package="pycuda" if gpu.hasty else "cuda-bindings")
    return gpu


@pytest.mark.parametrize("size", SIZES)
def test_same_bits_as_onnxruntime(gpu: FakeGpu, model: Path, engine: Path, size: tuple[int, int]) -> None:
    ours, theirs = Tracker(TensorRTBackend(engine)), reference(model)
    for index, frame in enumerate(clip(*size)):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))
    ours.close()
    assert gpu.calls["cuGraphLaunch"] > FRAMES - 5  # graphs were at work
    assert not +gpu.alive and gpu.used == 0
    assert gpu.driver_stack == ["torch's"]


def test_removing_where_the_gpu_reads_memory_that_is_not_page_locked(
    monkeypatch: pytest.MonkeyPatch, model: Path, engine: Path
) -> None:
    """As GPUs do that share the host's memory: the copy is made when the array may be gone."""
    fake_device.install(monkeypatch, FakeGpu(stages=False))
    ours, theirs = Tracker(TensorRTBackend(engine)), reference(model)
    for index, frame in enumerate(clip(*SIZES[0], count=9)):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))


@pytest.mark.parametrize("package", fake_device.PACKAGES)
def test_where_the_driver_locks_no_pages(
    package: str, monkeypatch: pytest.MonkeyPatch, model: Path, engine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bits, without graphs: one could hold what a page contained when it was captured."""
    gpu = FakeGpu(locks_pages=False)
    fake_device.install(monkeypatch, gpu, package=package)
    with Tracker(TensorRTBackend(engine)) as ours, reference(model) as theirs:
        for index, frame in enumerate(clip(*SIZES[0])):
            ours.prefetch(frame)
            assert_equal(act(ours, index, frame), act(theirs, index, frame))
    assert gpu.calls["cuMemHostRegister_v2"] == gpu.calls["cuGraphLaunch"] == 0
    assert not +gpu.alive and gpu.used == 0
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert str(engine) in warning and "page-lock" in warning


def test_half_precision(gpu: FakeGpu, tmp_path: Path) -> None:
    half = write_pixel_model(tmp_path / "half.onnx", dtype="float16")
    engine = write_engine(half, tmp_path / "half.engine", OPTIONS)
    ours, theirs = Tracker(open_backend(engine)), reference(half)
    for index, frame in enumerate(clip(*SIZES[0])):
        result, expected = act(ours, index, frame), act(theirs, index, frame)
        assert_equal(result, expected)
        assert result.probabilities.dtype == expected.probabilities.dtype


def test_sizes_between_the_smallest_and_the_largest(gpu: FakeGpu, model: Path, engine: Path) -> None:
    for size in ((32, 32), (50, 33), (96, 128)):
        mask = np.ones(size, np.uint8)
        mask[:10] = 2
        with Tracker(TensorRTBackend(engine)) as ours, reference(model) as theirs:
            for index, frame in enumerate(clip(*size, count=5)):
                first = mask if index == 0 else None
                assert_equal(ours.step(frame, first), theirs.step(frame, first))


def test_one_backend_goes_from_size_to_size(gpu: FakeGpu, model: Path, engine: Path) -> None:
    ours, theirs = TensorRTBackend(engine), OnnxRuntimeBackend(model, kernel="function", threads=1)
    for height, width in (SIZES[0], SIZES[1], SIZES[0]):
        for backend in (ours, theirs):
            backend.allocate(height, width, SLOTS, 3)
        for index, frame in enumerate(clip(height, width, 4)):
            dilation = np.zeros(SLOTS, np.int32)
            dilation[:index] = 1
            found = [backend.step(frame, dilation, index) for backend in (ours, theirs)]
            for result, expected in zip(*found, strict=True):
                np.testing.assert_array_equal(result, expected)
    ours.close()
    assert not +gpu.alive


def test_an_engine_for_more_objects_than_are_there(gpu: FakeGpu, model: Path, tmp_path: Path) -> None:
    options = EngineOptions(height=(49, 49, 49), width=(66, 66, 66), objects=(4, 5, 6))
    ours = Tracker(TensorRTBackend(write_engine(model, tmp_path / "many.engine", options)))
    theirs = reference(model)
    for index, frame in enumerate(clip(*SIZES[0])):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))


def test_a_step_writes_its_slot_and_no_other(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    backend.allocate(*SIZES[0], SLOTS, 3)
    tensors = backend._tensors
    assert tensors is not None
    before = {}
    for memory in (tensors.keys, tensors.values):
        content = gpu.memory_at(memory.address, memory.nbytes)
        content[:] = 1
        before[memory] = content.reshape(SLOTS, -1).copy()
    backend.step(clip(*SIZES[0], count=1)[0], np.zeros(SLOTS, np.int32), 3)
    for memory, content in before.items():
        now = gpu.memory_at(memory.address, memory.nbytes).reshape(SLOTS, -1)
        others = [slot for slot in range(SLOTS) if slot != 3]
        np.testing.assert_array_equal(now[others], content[others])
        assert (now[3] != content[3]).any()


def test_the_next_frame_goes_up_while_this_one_executes(gpu: FakeGpu, model: Path, engine: Path) -> None:
    """Named rightly, wrongly, or not at all: results are the same, and only the first kind is early."""
    ours, theirs = Tracker(TensorRTBackend(engine)), reference(model)
    assert isinstance(ours._backend, PrefetchingBackend)
    frames = clip(*SIZES[0])
    for index, frame in enumerate(frames):
        if index % 5 != 4 and index + 1 < len(frames):
            ours.prefetch(frames[index + 1] if index % 7 != 3 else frames[0])
        assert_equal(act(ours, index, frame), act(theirs, index, frame))
    named = [i + 1 for i in range(len(frames) - 1) if i % 5 != 4 and i % 7 != 3]
    lost = {9, 12} | {8, 10, 13}  # memory grew before the step, or was searched for a new object
    assert gpu.calls["Stream.wait_for_event"] == len(set(named) - lost)


# --- graphs


def test_a_graph_per_slot_which_goes_when_memory_does(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    frames, mask = clip(*SIZES[0]), two_objects(*SIZES[0])
    for index, frame in enumerate(frames):
        tracker.step(frame, mask if index == 0 else None)
    assert gpu.alive["graph"] == SLOTS and gpu.alive["graph template"] == 0
    tracker.step(frames[0], np.where(mask == 9, 5, mask).astype(np.uint8))
    assert gpu.alive["graph"] == 1 and gpu.alive["allocation"] == 9
    tracker.close()
    assert not +gpu.alive


CAPTURE = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]


@pytest.mark.parametrize("call", CAPTURE)
def test_without_graphs_it_says_so_once_and_goes_on(
    gpu: FakeGpu, model: Path, engine: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TensorRTBackend(engine)
    ours, theirs = Tracker(backend), reference(model)
    gpu.fail(call, after=3)
    with caplog.at_level(logging.WARNING, logger="maskring"):
        for index, frame in enumerate(clip(*SIZES[0])):
            assert_equal(act(ours, index, frame), act(theirs, index, frame))
    name = call.removesuffix("_v2").removesuffix("WithFlags")  # cuda-bindings writes none of these
    assert re.fullmatch(rf"{name}\w* failed: invalid argument", backend.graphs_disabled)
    (line,) = caplog.messages
    assert line == f"{engine} runs without CUDA graphs: {backend.graphs_disabled}"
    ours.close()
    assert not +gpu.alive


def test_tensorrt_may_refuse_to_be_captured(gpu: FakeGpu, model: Path, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    ours, theirs = Tracker(backend), reference(model)
    gpu.fail("execute_async_v3", after=2)  # the warm-up, the first capture, then this
    for index, frame in enumerate(clip(*SIZES[0])):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))
    assert "TensorRT could not execute" in backend.graphs_disabled


# --- who else is on the GPU


def test_any_thread_may_call(gpu: FakeGpu, model: Path, engine: Path) -> None:
    """pycuda's contexts belong to the thread that made them current; ours is current within calls alone."""
    ours, theirs = Tracker(TensorRTBackend(engine)), reference(model)
    failed: list[BaseException] = []

    def step(index: int, frame: np.ndarray) -> None:
        try:
            assert_equal(act(ours, index, frame), act(theirs, index, frame))
        except BaseException as error:
            failed.append(error)

    for index, frame in enumerate(clip(*SIZES[0], count=14)):
        thread = threading.Thread(target=step, args=(index, frame))
        thread.start()
        thread.join()
    closing = threading.Thread(target=ours.close)
    closing.start()
    closing.join()
    assert not failed and not +gpu.alive
    assert gpu.driver_stack == ["torch's"]


def test_two_trackers_share_the_gpu(gpu: FakeGpu, model: Path, engine: Path) -> None:
    one, other = (Tracker(TensorRTBackend(engine)) for _ in range(2))
    theirs = reference(model)
    for index, frame in enumerate(clip(*SIZES[0])):
        expected = act(theirs, index, frame)
        assert_equal(act(one, index, frame), expected)
        assert_equal(act(other, index, frame), expected)
    one.close()
    other.step(clip(*SIZES[0])[0])
    other.close()
    assert not +gpu.alive and gpu.driver_stack == ["torch's"]


def test_the_time_of_a_step_has_two_parts(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    result = tracker.step(clip(*SIZES[0])[0], two_objects(*SIZES[0]))
    assert backend.last_upload > 0 and backend.last_run > 0
    assert backend.last_upload + backend.last_run <= result.timings.step


def test_labels_and_probabilities_are_the_callers(gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    frames = clip(*SIZES[0])
    first = tracker.step(frames[0], two_objects(*SIZES[0]))
    kept: Any = first.labels.copy(), first.probabilities.copy()
    second = tracker.step(frames[1])
    labels = second.labels.copy()
    tracker.step(frames[2])
    tracker.close()
    np.testing.assert_array_equal(first.labels, kept[0])
    np.testing.assert_array_equal(first.probabilities, kept[1])
    np.testing.assert_array_equal(second.labels, labels)
