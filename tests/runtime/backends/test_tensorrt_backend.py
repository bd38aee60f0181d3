"""The TensorRT backend on a fake GPU: the same labels as onnxruntime, bit by bit, and nothing per frame."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import onnx
import psutil
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model

from maskring.common.errors import UnavailableError
from maskring.export.engine import EngineOptions
from maskring.runtime.backends import PrefetchingBackend, open_backend
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.backends.trt.kernel_cache import kernels_path
from maskring.runtime.backends.trt.launcher import GRAPHS_PER_SLOT
from maskring.runtime.model.engine_file import manifest_path, sha256
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

# At the first size, slots of the memory do not begin where TensorRT can write, at the second they do.
SIZES = [(49, 66), (64, 64)]
OPTIONS = EngineOptions(height=(32, 49, 96), width=(32, 66, 128), objects=(1, 2, 6))
FRAMES = 24
SLOTS = MemoryPolicy().num_slots


def clip(height: int, width: int, count: int = FRAMES) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def two_objects(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[8:30, 8:30], mask[20:44, 34:60] = 3, 9
    return mask


@pytest.fixture(params=["late", "hasty"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU that works as late, or as early, as a real one may."""
    gpu = FakeGpu(hasty=request.param == "hasty")
    gpu.driver_stack.append("torch's")
    fake_device.install(monkeypatch, gpu)
    return gpu


@pytest.fixture
def idle_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU whose engines execute nothing."""
    gpu = FakeGpu(no_op=True)
    fake_device.install(monkeypatch, gpu)
    return gpu


@pytest.fixture(scope="module")
def rtx_engine(model: Path) -> Path:
    """The function body is built into it: it reads all slots in each step."""
    options = dataclasses.replace(OPTIONS, runtime="tensorrt-rtx")
    return write_engine(model, model.with_name("rtx.engine"), options, tensorrt_version="1.7.1")


def reference(model: Path) -> Tracker:
    return Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1))


def assert_equal(result: Result, expected: Result) -> None:
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    assert result.objects == expected.objects


def act(tracker: Tracker, index: int, frame: np.ndarray) -> Result:
    """An object is removed, another one added, both are drawn anew; labels outgrow the memory."""
    mask = two_objects(*frame.shape[:2])
    third = np.where(mask == 9, 77, 0).astype(np.uint8)[::-1].copy()
    fourth = np.where(mask == 3, 5, 0).astype(np.uint8)
    if index == 5:
        tracker.remove(3)
    return tracker.step(frame, {0: mask, 7: third, 9: mask // 3, 12: fourth}.get(index))


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


def per_frame(gpu: FakeGpu, tracker: Tracker, frames: list[np.ndarray], ahead: bool) -> Counter[str]:
    """Calls of ten frames, once memory is full and every graph is there."""
    mask = two_objects(*frames[0].shape[:2])
    before: Counter[str] = Counter()
    for index in range(4 * SLOTS + 10):
        if index == 4 * SLOTS:
            before = Counter(gpu.calls)
        if ahead:
            tracker.prefetch(frames[(index + 1) % len(frames)])
        tracker.step(frames[index % len(frames)], mask if index == 0 else None)
    return gpu.calls - before


def test_nothing_is_allocated_or_waited_for_per_frame(idle_gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    expected = {"memcpy_htod_async": 10, "cuGraphLaunch": 10, "Stream.synchronize": 10}
    expected |= {"Context.push": 10, "Context.pop": 10}
    assert per_frame(idle_gpu, tracker, clip(*SIZES[0]), False) == expected
    assert idle_gpu.pageable == 0


def test_nothing_more_is_waited_for_when_frames_go_up_early(idle_gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    expected = {"memcpy_htod_async": 10, "cuGraphLaunch": 10, "Stream.synchronize": 10}
    expected |= {"Context.push": 10, "Context.pop": 10, "Stream.wait_for_event": 10, "Event.record": 10}
    assert per_frame(idle_gpu, tracker, clip(*SIZES[0]), True) == expected
    assert idle_gpu.pageable == 0


def test_slots_are_copied_only_where_tensorrt_cannot_write(
    idle_gpu: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, copies in zip(SIZES, (True, False), strict=True):
        before = idle_gpu.calls["memcpy_dtod_async"]
        with Tracker(TensorRTBackend(engine)) as tracker:
            for index, frame in enumerate(clip(*size)):
                tracker.step(frame, two_objects(*size) if index == 0 else None)
        assert (idle_gpu.calls["memcpy_dtod_async"] > before) == copies


# --- long streams


def long_stream(gpu: FakeGpu, engine: Path, steps: int) -> tuple[list[Counter[str]], list[int]]:
    """What is alive, and the blocks that Python holds, at three places of a stream."""
    alive, blocks = [], []
    frames, mask = clip(*SIZES[1], count=7), two_objects(*SIZES[1])
    with Tracker(TensorRTBackend(engine)) as tracker:
        for index in range(steps):
            tracker.step(frames[index % 7], mask if index % 1000 == 0 else None)
            if index in (steps // 3, 2 * steps // 3, steps - 1):
                gc.collect()
                alive.append(+gpu.alive)
                blocks.append(sys.getallocatedblocks())
    assert not +gpu.alive and gpu.used == 0
    return alive, blocks


def test_a_thousand_frames_leave_nothing_behind(idle_gpu: FakeGpu, engine: Path) -> None:
    (first, *others), blocks = long_stream(idle_gpu, engine, 1000)
    assert others == [first, first] and first["graph"] == SLOTS
    assert blocks[2] - blocks[1] < 100


@pytest.mark.slow
def test_three_hundred_thousand_frames_leave_nothing_behind(idle_gpu: FakeGpu, engine: Path) -> None:
    process = psutil.Process()
    long_stream(idle_gpu, engine, 1000)
    resident, files = process.memory_info().rss, process.num_fds()
    (first, *others), blocks = long_stream(idle_gpu, engine, 300_000)
    assert others == [first, first]
    assert blocks[2] - blocks[0] < 100
    assert process.memory_info().rss - resident < 10 << 20
    assert process.num_fds() == files


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
    assert backend.graphs_disabled == f"{call} failed: invalid argument"
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


def test_tensorrt_rtx_says_whether_it_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, model: Path, rtx_engine: Path
) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    theirs = reference(model)
    expected = [act(theirs, index, frame) for index, frame in enumerate(clip(*SIZES[0]))]
    for refuses in (False, True):
        backend = TensorRTBackend(rtx_engine)
        with Tracker(backend) as ours:
            if refuses:
                gpu.fail("is_stream_capturable")
            for index, frame in enumerate(clip(*SIZES[0])):
                assert_equal(act(ours, index, frame), expected[index])
        assert ("cannot be captured" in backend.graphs_disabled) == refuses


@pytest.mark.parametrize("size", SIZES)
def test_outputs_of_an_engine_that_reads_all_memory_lie_beside_it(
    monkeypatch: pytest.MonkeyPatch, model: Path, rtx_engine: Path, size: tuple[int, int]
) -> None:
    """What an engine does in its outputs on the way must not reach the memory that it reads meanwhile."""
    gpu = FakeGpu(scribbles=True)
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    ours, theirs = Tracker(TensorRTBackend(rtx_engine)), reference(model)
    for index, frame in enumerate(clip(*size)):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))


def test_engines_of_tensorrt_rtx_cost_nothing_more_per_frame(
    monkeypatch: pytest.MonkeyPatch, rtx_engine: Path
) -> None:
    """The copies into the memory are part of the graphs."""
    gpu = FakeGpu(no_op=True)
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    tracker = Tracker(TensorRTBackend(rtx_engine))
    expected = {"memcpy_htod_async": 10, "cuGraphLaunch": 10, "Stream.synchronize": 10}
    expected |= {"Context.push": 10, "Context.pop": 10}
    assert per_frame(gpu, tracker, clip(*SIZES[1]), False) == expected
    assert gpu.pageable == 0 and gpu.slow_graphs == 0


def compiled(engine: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> int:
    """Kernels that a run has to compile."""
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    if refuses:
        gpu.fail("deserialize")
    with Tracker(TensorRTBackend(engine)) as tracker:
        for index, frame in enumerate(clip(*SIZES[0])):
            act(tracker, index, frame)
    assert not +gpu.alive
    return gpu.compiled


@pytest.fixture
def fresh_engine(rtx_engine: Path, tmp_path: Path) -> Path:
    """An engine of TensorRT-RTX that has not run."""
    shutil.copy(manifest_path(rtx_engine), tmp_path)
    return Path(shutil.copy(rtx_engine, tmp_path))


def test_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch, fresh_engine: Path) -> None:
    first = compiled(fresh_engine, monkeypatch)
    assert first > 0 and compiled(fresh_engine, monkeypatch) == 0
    assert compiled(fresh_engine, monkeypatch, refuses=True) == first, "compiled by another GPU"
    assert compiled(fresh_engine, monkeypatch) == 0


def test_kernels_that_are_damaged_or_of_another_engine_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, fresh_engine: Path
) -> None:
    first = compiled(fresh_engine, monkeypatch)
    kept = kernels_path(fresh_engine)
    content = kept.read_bytes()
    for damaged in (content[:-1], content[:-1] + b" ", b"", bytes(len(content))):
        kept.write_bytes(damaged)
        assert compiled(fresh_engine, monkeypatch) == first
        assert kept.read_bytes() == content
    manifest = json.loads(manifest_path(fresh_engine).read_text())
    model = onnx.load_model_from_string(fresh_engine.read_bytes())
    model.doc_string = "another engine of the same name"
    fresh_engine.write_bytes(model.SerializeToString())
    manifest["engine_sha256"] = sha256(fresh_engine)
    manifest_path(fresh_engine).write_text(json.dumps(manifest))
    assert compiled(fresh_engine, monkeypatch) == first


def test_a_folder_that_takes_no_kernels_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch, fresh_engine: Path
) -> None:
    kernels_path(fresh_engine).mkdir()
    first = compiled(fresh_engine, monkeypatch)
    assert first > 0 and compiled(fresh_engine, monkeypatch) == first


@pytest.mark.parametrize(
    "call", ["create_runtime_config", "create_runtime_cache", "create_execution_context"]
)
def test_tensorrt_rtx_may_refuse_to_prepare_an_engine(
    monkeypatch: pytest.MonkeyPatch, rtx_engine: Path, call: str
) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    gpu.fail(call)
    with pytest.raises(UnavailableError, match=r"TensorRT could not prepare .*rtx.engine for execution: .*;"):
        TensorRTBackend(rtx_engine)
    assert not +gpu.alive


def test_graphs_stay_bounded_when_frames_come_from_everywhere(idle_gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    mask = two_objects(*SIZES[1])
    for index in range(300):
        address = idle_gpu.allocate(64 * 64 * 3)
        assert address is not None
        tracker.step(fake_device.on_gpu(idle_gpu, address, (64, 64, 3)), mask if index == 0 else None)
    assert idle_gpu.alive["graph"] <= GRAPHS_PER_SLOT * SLOTS
    assert idle_gpu.executions == 301


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
