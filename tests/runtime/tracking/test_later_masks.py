"""What masks, removals and revisions in mid-stream do to objects and to memory."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from coloured_squares import GREEN, HEIGHT, RED, WIDTH, YELLOW, Square, iou, run, scene
from pixel_backend import PixelBackend
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.backends import DeviceFrame
from maskring.runtime.tracking.history import History
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker


def test_object_added_later() -> None:
    frame, truth = scene(8, RED, YELLOW)
    mask = np.where(truth == 7, truth, 0).astype(np.uint8)
    backend = PixelBackend()
    tracker = Tracker(backend)
    run(tracker, range(8), RED, YELLOW, masks={0: scene(0, RED)[1]})
    added = tracker.step(frame, mask)
    np.testing.assert_array_equal(added.labels == 7, truth == 7)
    assert iou(added.labels, truth, 1) > 0.9  # pixels of which the mask says nothing keep their labels
    assert [allocation[3] for allocation in backend.allocations] == [2, 3]
    for index in range(9, 20):
        frame, truth = scene(index, RED, YELLOW)
        result = tracker.step(frame)
        assert min(iou(result.labels, truth, object_id) for object_id in (1, 7)) > 0.9


def test_memory_is_searched_for_an_object_added_later() -> None:
    """Every frame in memory learns where the new object was, and goes on to vote for both."""
    backend = PixelBackend()
    tracker = Tracker(backend)
    run(tracker, range(8), RED, YELLOW, masks={0: scene(0, RED)[1]})
    slots = {8 - age: slot for age, slot in tracker._ring.slots().items()}
    frame, truth = scene(8, RED, YELLOW)
    tracker.step(frame, np.where(truth == 7, truth, 0).astype(np.uint8))
    assert sorted(slots) == [0, 3, 4, 5, 6, 7]
    for index, slot in slots.items():
        expected = scene(index, RED, YELLOW)[1][::4, ::4]
        found = backend.values[0, slot].argmax(0)
        np.testing.assert_array_equal(found == 1, expected == 1)
        assert ((found == 2) & (expected == 7)).sum() / ((found == 2) | (expected == 7)).sum() > 0.7
    tracker.step(scene(9, RED, YELLOW)[0])
    assert {slot for slot, step in enumerate(backend.dilations[-1]) if step} > {slots[0]}


def test_a_mask_that_redraws_an_object_restarts_memory() -> None:
    backend = PixelBackend()
    tracker = Tracker(backend)
    run(tracker, range(8), RED, YELLOW, masks={0: scene(0, RED)[1]})
    tracker.step(*scene(8, RED, YELLOW))
    tracker.step(scene(9, RED, YELLOW)[0])
    assert np.count_nonzero(backend.dilations[-1]) == 1


@pytest.mark.parametrize("failing_search", [1, 3])
def test_a_failed_search_leaves_memory_as_it_was(failing_search: int) -> None:
    """A later object may get the label channel of the one that failed, so nothing of it may stay."""
    results = []
    for fails in (False, True):
        backend = PixelBackend()
        tracker = Tracker(backend)
        run(tracker, range(8), RED, YELLOW, masks={0: scene(0, RED)[1]})
        frame, truth = scene(8, RED, YELLOW)
        if fails:
            backend.fail_step = len(backend.dilations) + 1 + failing_search
            with pytest.raises(RuntimeError):
                tracker.step(frame, np.where(truth == 7, truth, 0).astype(np.uint8))
        tracker.step(frame)
        results.append((backend.values.copy(), run(tracker, range(9, 12), RED, YELLOW, masks={})))
    (values, result), (values_after, result_after) = results
    np.testing.assert_array_equal(values_after[:, :, :2], values)
    assert not values_after[:, :, 2:].any()
    np.testing.assert_array_equal(result_after.labels, result.labels)


def test_frames_on_a_gpu_are_not_kept() -> None:
    class Pixels:
        __cuda_array_interface__: ClassVar = {
            "shape": (8, 8, 3),
            "typestr": "|u1",
            "data": (4096, False),
            "version": 3,
            "strides": None,
        }

    history = History()
    history.store(2, np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.uint8))
    assert history.holds([2])
    history.store(2, DeviceFrame(Pixels()), np.zeros((2, 2), np.uint8))
    assert not history.holds([2])


def test_frames_older_than_a_mask_do_not_vote_against_it() -> None:
    """The new object stood in plain sight, unlabelled, in every frame so far."""
    tracker = Tracker(PixelBackend())
    still = Square(7, 24, 4, speed=0)
    run(tracker, range(8), RED, still, masks={0: scene(0, RED)[1]})
    tracker.step(*scene(8, still))
    for index in range(9, 15):
        frame, truth = scene(index, still)
        assert iou(tracker.step(frame).labels, truth, 7) > 0.9


def test_mask_corrects_an_object() -> None:
    """The redrawn object keeps none of its old pixels; the other one loses only what is drawn over."""
    tracker = Tracker(PixelBackend())
    frame, truth = scene(0, RED, GREEN)
    tracker.step(frame, truth)
    correction = np.zeros_like(truth)
    correction[30:36, 40:47] = 1  # a corner of GREEN's square
    corrected = tracker.step(frame, correction).labels
    np.testing.assert_array_equal(corrected == 1, correction == 1)
    propagated = Tracker(PixelBackend())
    propagated.step(frame, truth)
    green = propagated.step(frame).labels == 2
    np.testing.assert_array_equal(corrected == 2, green & (correction == 0))


def test_removed_object_becomes_background_and_its_channel_is_used_again() -> None:
    backend = PixelBackend()
    tracker = Tracker(backend)
    frame, truth = scene(0, RED, GREEN)
    tracker.step(frame, truth)
    tracker.step(frame)
    tracker.remove(1)
    result = tracker.step(frame)
    assert [state.id for state in result.objects] == [2]
    assert set(np.unique(result.labels)) == {0, 2}
    assert result.probabilities.shape[0] == 2
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    frame, truth = scene(0, RED, GREEN, YELLOW)
    result = tracker.step(frame, np.where(truth == 7, truth, 0).astype(np.uint8))
    assert backend.values.shape[2] == 3  # background, 7 in the place of 1, 2
    result = tracker.step(frame)
    assert [state.id for state in result.objects] == [2, 7]
    assert min(iou(result.labels, truth, object_id) for object_id in (2, 7)) > 0.9
    assert iou(result.labels, truth, 1) == 0


def test_stream_goes_on_when_the_last_object_was_removed() -> None:
    tracker = Tracker(PixelBackend())
    frame, truth = scene(0, RED)
    tracker.step(frame, truth)
    tracker.remove(1)
    empty = tracker.step(frame)
    assert empty.objects == () and not empty.labels.any() and empty.probabilities.shape[0] == 1
    np.testing.assert_array_equal(tracker.step(frame, truth).labels, truth)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_a_revision_is_what_the_next_frame_follows(frames: int) -> None:
    """Memory reads the latest frame alone, which is in the two slots by turns."""
    tracker = Tracker(PixelBackend(), policy=MemoryPolicy((), (1,)))
    red, green = Square(1, 4, 4, speed=0), Square(2, 30, 40, speed=0)
    frame, truth = scene(0, red, green)
    for index in range(frames):
        tracker.step(frame, truth if index == 0 else None)
    hidden = np.where(truth == 1, 0, truth).astype(np.uint8)
    tracker.revise(hidden)
    after = tracker.step(frame)
    assert after.probabilities[1].max() == 0
    assert iou(after.labels, truth, 2) > 0.9


@pytest.mark.parametrize(
    ("labels", "named"),
    [(np.zeros((HEIGHT, WIDTH), bool), "bool"), (np.zeros((WIDTH, HEIGHT), np.uint8), f"{HEIGHT}x{WIDTH}")],
)
def test_a_revision_that_does_not_fit(labels: np.ndarray, named: str) -> None:
    tracker = Tracker(PixelBackend())
    with raises_user_error(MaskError, mentions=("no frame", "step()")):
        tracker.revise(np.zeros((HEIGHT, WIDTH), np.uint8))
    tracker.step(*scene(0, RED))
    with raises_user_error(MaskError, mentions=("latest frame", named, "height and width")):
        tracker.revise(labels)


def test_remove_of_an_unknown_object() -> None:
    tracker = Tracker(PixelBackend())
    with raises_user_error(MaskError, mentions=("object 3", "none")):
        tracker.remove(3)
    tracker.step(*scene(0, RED, GREEN))
    with raises_user_error(MaskError, mentions=("object 3", "1, 2")):
        tracker.remove(3)
