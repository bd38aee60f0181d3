"""What a frame costs on a GPU: nothing is allocated, nothing waited for, and nothing stays behind."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from pathlib import Path

import fake_device
import psutil
import pytest
from fake_device import FakeGpu
from tensorrt_scene import SIZES, SLOTS, clip, per_frame, two_objects

from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.backends.trt.launcher import GRAPHS_PER_SLOT
from maskring.runtime.tracking.tracker import Tracker


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


def test_graphs_stay_bounded_when_frames_come_from_everywhere(idle_gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    mask = two_objects(*SIZES[1])
    for index in range(300):
        address = idle_gpu.allocate(64 * 64 * 3)
        assert address is not None
        tracker.step(fake_device.on_gpu(idle_gpu, address, (64, 64, 3)), mask if index == 0 else None)
    assert idle_gpu.alive["graph"] <= GRAPHS_PER_SLOT * SLOTS
    assert idle_gpu.executions == 301
