"""Frames, masks and engine options for the TensorRT backend on the fake GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from fake_device import FakeGpu

from maskring.export.engine import EngineOptions
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

# At the first size, slots of the memory do not begin where TensorRT can write, at the second they do.
SIZES = [(49, 66), (64, 64)]
OPTIONS = EngineOptions(height=(32, 49, 96), width=(32, 66, 128), objects=(1, 2, 6))
FRAMES = 24
SLOTS = MemoryPolicy().num_slots


def clip(height: int, width: int, count: int = FRAMES) -> list[np.ndarray]:
    """Frames of noise."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def two_objects(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[8:30, 8:30], mask[20:44, 34:60] = 3, 9
    return mask


def reference(model: Path) -> Tracker:
    """The tracker whose results those on the GPU must equal."""
    return Tracker(OnnxRuntimeBackend(model, kernel="function", threads=1))


def assert_equal(result: Result, expected: Result) -> None:
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    assert result.objects == expected.objects


def assert_nothing_is_left(gpu: FakeGpu) -> None:
    """Neither memory nor contexts; torch's context, which was current before, is current again."""
    assert not +gpu.alive and not gpu.outlived
    assert gpu.driver_stack == ["torch's"]


def act(tracker: Tracker, index: int, frame: np.ndarray) -> Result:
    """An object is removed, another one added, both are drawn anew; labels outgrow the memory."""
    mask = two_objects(*frame.shape[:2])
    third = np.where(mask == 9, 77, 0).astype(np.uint8)[::-1].copy()
    fourth = np.where(mask == 3, 5, 0).astype(np.uint8)
    if index == 5:
        tracker.remove(3)
    return tracker.step(frame, {0: mask, 7: third, 9: mask // 3, 12: fourth}.get(index))


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
