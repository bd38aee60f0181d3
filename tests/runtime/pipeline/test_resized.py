"""A tracker that sees smaller frames: what it is given, what comes back, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.arrays.resizing import majority, scaled_to, smooth
from maskring.runtime.pipeline.resized import ResizedTracker
from maskring.runtime.tracking.result import ObjectState, Result, Timings

HEIGHT, WIDTH, SIZE = 96, 160, 48


@dataclass
class Recorder:
    """Takes every frame's mask for its labels, and keeps what it is given."""

    labels: np.ndarray = field(default_factory=lambda: np.zeros((SIZE, 80), np.uint8))
    stepped: list[np.ndarray] = field(default_factory=list)
    staged: list[np.ndarray] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Result:
        self.stepped.append(frame)
        self.labels = self.labels if mask is None else mask
        objects = (ObjectState(2, 1, (0, 0, 1, 1), 0.75), ObjectState(9, 0, None, None))
        return Result(self.labels, np.zeros((3, 12, 20)), objects, Timings(0.0, 0.0, 0.0), 0)

    def prefetch(self, frame: np.ndarray) -> None:
        self.staged.append(frame)

    def remove(self, object_id: int) -> None:
        self.removed.append(object_id)


def disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < radius**2
    return np.where(inside, 2, 0).astype(np.uint8)


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_the_tracker_sees_small_frames_and_the_caller_large_masks() -> None:
    recorder, mask = Recorder(), disc(HEIGHT, WIDTH, 30)
    tracker = ResizedTracker(recorder, SIZE)
    given = tracker.step(frame(0), mask)
    assert recorder.stepped[0].shape == (SIZE, 80, 3)
    assert np.array_equal(given.labels, mask)  # exactly what was drawn
    found = tracker.step(frame(1))
    assert found.labels.shape == (HEIGHT, WIDTH)
    assert (found.labels != mask).mean() < 0.01
    seen, hidden = found.objects
    rows, columns = np.nonzero(found.labels == 2)
    assert seen.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert seen.area == len(rows) and seen.confidence == 0.75
    assert (hidden.area, hidden.box) == (0, None)
    assert found.timings.total > 0


def test_a_staged_frame_is_the_one_that_is_stepped() -> None:
    recorder = Recorder()
    tracker = ResizedTracker(recorder, SIZE)
    frames = [frame(index) for index in range(4)]
    for index, image in enumerate(frames):
        if index < 3:
            tracker.prefetch(frames[index + 1])
        tracker.step(image, disc(HEIGHT, WIDTH, 30) if index == 0 else None)
    assert all(
        stepped is staged for stepped, staged in zip(recorder.stepped[1:], recorder.staged, strict=True)
    )
    assert np.array_equal(recorder.stepped[0], scaled_to(frames[0], SIZE))
    tracker.remove(2)
    assert recorder.removed == [2]


def test_an_object_that_vanishes_at_the_smaller_size_is_refused() -> None:
    mask = disc(HEIGHT, WIDTH, 30)
    mask[3, 3] = 7
    with raises_user_error(MaskError, mentions=("object 7", "48 pixels")):
        ResizedTracker(Recorder(), SIZE).step(frame(0), mask)


def test_a_mask_of_another_size_is_refused_in_sizes_that_the_user_knows() -> None:
    with raises_user_error(MaskError, mentions=("80x48", "160x96")):
        ResizedTracker(Recorder(), SIZE).step(frame(0), disc(SIZE, 80, 10))


def test_outlines_are_interpolated() -> None:
    """Four times as large, a disc is closer to the true one than its repeated pixels are."""
    small, large = disc(40, 60, 15), disc(160, 240, 60)
    repeated = small.repeat(4, axis=0).repeat(4, axis=1)
    assert (smooth(small, (160, 240)) != large).sum() < 0.8 * (repeated != large).sum()


def test_no_room_for_a_frame_is_told_as_such() -> None:
    with pytest.raises(MemoryError):
        scaled_to(np.zeros((2, 2, 3), np.uint8), 1 << 23)


def test_a_size_that_is_there_is_left_alone() -> None:
    labels, image = disc(SIZE, 80, 10), np.zeros((SIZE, 80, 3), np.uint8)
    assert smooth(labels, (SIZE, 80)) is labels and majority(labels, (SIZE, 80, 3)) is labels
    assert scaled_to(image, SIZE) is image and scaled_to(image, None) is image
