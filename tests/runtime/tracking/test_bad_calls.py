"""Calls that the tracker refuses, and steps that fail, leave it as it was."""

from __future__ import annotations

import numpy as np
import pytest
from coloured_squares import HEIGHT, RED, WIDTH, YELLOW, iou, run, scene
from pixel_backend import PixelBackend, pixel_metadata
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError
from maskring.runtime.tracking.tracker import Tracker


def frame_of(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


BAD_CALLS = {
    "no mask": (frame_of(HEIGHT, WIDTH, 3), None, MaskError, ("first frame", "mask")),
    "empty mask": (frame_of(HEIGHT, WIDTH, 3), frame_of(HEIGHT, WIDTH), MaskError, ("mask", "empty")),
    "mask of another size": (
        frame_of(HEIGHT, WIDTH, 3),
        np.ones((WIDTH, HEIGHT), np.uint8),
        MaskError,
        ("49x66", "66x49"),
    ),
    "bool mask": (
        frame_of(HEIGHT, WIDTH, 3),
        np.ones((HEIGHT, WIDTH), bool),
        MaskError,
        ("mask", "bool", [49, 66]),
    ),
    "colour mask": (
        frame_of(HEIGHT, WIDTH, 3),
        np.ones((HEIGHT, WIDTH, 3), np.uint8),
        MaskError,
        ("mask", [49, 66, 3]),
    ),
    "float frame": (frame_of(HEIGHT, WIDTH, 3, dtype=float), None, SourceError, ("frame", "float64")),
    "grey frame": (frame_of(HEIGHT, WIDTH), None, SourceError, ("frame", "uint8", [49, 66])),
    "frame with alpha": (frame_of(HEIGHT, WIDTH, 4), None, SourceError, ("frame", [49, 66, 4])),
    "frame without pixels": (frame_of(0, WIDTH, 3), None, SourceError, ("frame", [0, 66, 3])),
}


@pytest.mark.parametrize(
    ("case", "started"),
    [
        (case, started)
        for case in BAD_CALLS
        for started in (False, True)
        if (case, started) != ("no mask", True)
    ],
)
def test_bad_calls_leave_the_tracker_as_it_was(case: str, started: bool) -> None:
    frame, mask, kind, words = BAD_CALLS[case]
    backend = PixelBackend()
    tracker = Tracker(backend)
    good = scene(0, RED)
    if started:
        tracker.step(*good)
    with raises_user_error(kind, mentions=words):
        tracker.step(frame, mask)
    assert len(backend.allocations) == int(started)
    after = tracker.step(*good)
    assert after.frame_index == int(started)
    np.testing.assert_array_equal(after.labels, good[1])


def test_resolution_change_mid_stream() -> None:
    tracker = Tracker(PixelBackend())
    frame, truth = scene(0, RED)
    tracker.step(frame, truth)
    with raises_user_error(SourceError, mentions=("66x49", "66x48", "frame 1")):
        tracker.step(frame[:48], truth[:48])
    assert iou(tracker.step(frame).labels, truth, 1) > 0.9


def test_frame_size_of_the_model() -> None:
    tracker = Tracker(PixelBackend(pixel_metadata(height=48, width=64)))
    with raises_user_error(SourceError, mentions=("66x49", "64x48", "--height 49 --width 66")):
        tracker.step(*scene(0, RED))
    frame, truth = scene(0, RED)
    tracker.step(frame[:48, :64], truth[:48, :64])


@pytest.mark.parametrize("masked", [False, True])
def test_failed_step_leaves_no_trace(masked: bool) -> None:
    """The frame may be given again, and what follows is what would have followed anyway."""
    trackers = []
    for fails in (False, True):
        backend = PixelBackend()
        tracker = Tracker(backend)
        run(tracker, range(9), RED, YELLOW, masks={0: scene(0, RED)[1]})
        frame, truth = scene(9, RED, YELLOW)
        mask = truth if masked else None
        if fails:
            backend.fail_next = RuntimeError("device lost")
            with pytest.raises(RuntimeError, match="device lost"):
                tracker.step(frame, mask)
        tracker.step(frame, mask)
        trackers.append(tracker)
    for index in range(10, 20):
        frame, _ = scene(index, RED, YELLOW)
        expected, result = (tracker.step(frame) for tracker in trackers)
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)
        assert result.frame_index == expected.frame_index
        assert [state.id for state in result.objects] == ([1, 7] if masked else [1])
