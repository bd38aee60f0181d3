"""The tracker's promises, on scenes whose objects differ by colour and a backend that compares colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from pixel_backend import PixelBackend, pixel_metadata
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError, UserError
from maskring.runtime.backends import DeviceFrame
from maskring.runtime.tracking.history import History
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 49, 66  # no multiple of the stride
COLOURS = {1: (250, 40, 40), 2: (40, 250, 40), 3: (40, 40, 250), 7: (250, 250, 40), 200: (250, 40, 250)}


@dataclass(frozen=True)
class Square:
    """An object of one colour: its top left corner at frame 0 and its speed in pixels per frame."""

    id: int
    top: int
    left: int
    speed: int = 1
    side: int = 14


def scene(index: int, *squares: Square) -> tuple[np.ndarray, np.ndarray]:
    """Frame [H, W, 3] and true ids [H, W]."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    for square in squares:
        rows = slice(square.top, square.top + square.side)
        left = square.left + square.speed * index
        columns = slice(left, left + square.side)
        frame[rows, columns], truth[rows, columns] = COLOURS[square.id], square.id
    return frame, truth


def iou(labels: np.ndarray, truth: np.ndarray, object_id: int) -> float:
    """Overlap of an object with its true pixels, counted where features are centred."""
    ours, theirs = labels[::4, ::4] == object_id, truth[::4, ::4] == object_id
    return float((ours & theirs).sum() / max(1, (ours | theirs).sum()))


RED, GREEN, YELLOW = Square(1, 4, 4), Square(2, 30, 40, -1), Square(7, 24, 4)


def test_follows_objects_with_any_ids() -> None:
    squares = (RED, GREEN, Square(200, 24, 8))
    with Tracker(PixelBackend()) as tracker:
        for index in range(20):
            frame, truth = scene(index, *squares)
            result = tracker.step(frame, truth if index == 0 else None)
            assert result.frame_index == index
            assert set(np.unique(result.labels)) == {0, 1, 2, 200}
            assert min(iou(result.labels, truth, square.id) for square in squares) > 0.9
            assert [state.id for state in result.objects] == [1, 2, 200]


def test_masked_frame_shows_the_mask_itself() -> None:
    frame, truth = scene(0, RED, GREEN)
    result = Tracker(PixelBackend()).step(frame, truth)
    np.testing.assert_array_equal(result.labels, truth)
    sampled = truth[::4, ::4]
    np.testing.assert_array_equal(result.probabilities, np.stack([sampled == 0, sampled == 1, sampled == 2]))
    assert [state.confidence for state in result.objects] == [1.0, 1.0]


def test_objects_report_area_box_and_confidence() -> None:
    frame, truth = scene(0, RED, GREEN)
    tracker = Tracker(PixelBackend())
    tracker.step(frame, truth)
    result = tracker.step(frame)
    assert [state.id for state in result.objects] == [1, 2]
    for state in result.objects:
        y, x = np.nonzero(result.labels == state.id)
        assert state.area == len(y) > 0
        assert state.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        covered = result.labels[::4, ::4] == state.id
        row = 1 + [other.id for other in result.objects].index(state.id)
        assert state.confidence == pytest.approx(result.probabilities[row][covered].mean(), rel=1e-5)


def test_hidden_object_has_no_box_and_comes_back() -> None:
    frame, truth = scene(0, RED)
    tracker = Tracker(PixelBackend())
    tracker.step(frame, truth)
    for _ in range(8):
        hidden = tracker.step(scene(0)[0])
    (state,) = hidden.objects
    assert (state.id, state.area, state.box, state.confidence) == (1, 0, None, None)
    assert iou(tracker.step(frame).labels, truth, 1) > 0.9  # frame 0 is still in memory


def test_many_objects_are_measured_apart() -> None:
    """More objects than bits in a byte, one of them away from every feature, one at the last pixel."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected = {}
    for number in range(1, 21):
        top, left = 2 + 9 * ((number - 1) // 5), 1 + 12 * ((number - 1) % 5)
        mask[top : top + 2 + number % 5, left : left + 1 + number % 9] = 10 * number
        expected[10 * number] = (left, top, left + 1 + number % 9, top + 2 + number % 5)
    mask[-1, -1] = 255
    expected[255] = (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT)
    result = Tracker(PixelBackend()).step(np.zeros((HEIGHT, WIDTH, 3), np.uint8), mask)
    assert {state.id: state.box for state in result.objects} == expected
    assert {state.id: state.area for state in result.objects} == {
        object_id: (x1 - x0) * (y1 - y0) for object_id, (x0, y0, x1, y1) in expected.items()
    }
    assert result.objects[-1].confidence is None


def run(tracker: Tracker, frames: range, *squares: Square, masks: dict[int, np.ndarray]) -> Result:
    for index in frames:
        result = tracker.step(scene(index, *squares)[0], masks.get(index))
    return result


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


def test_results_belong_to_the_caller() -> None:
    tracker = Tracker(PixelBackend())
    frame, truth = scene(0, RED)
    results = [tracker.step(frame, truth), tracker.step(frame)]
    kept = [(result.labels.copy(), result.probabilities.copy()) for result in results]
    for index in range(1, 12):
        tracker.step(scene(index, RED)[0])
    for result, (labels, probabilities) in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.probabilities, probabilities)
        result.labels[:] = 9  # the caller may write to them, too
    assert set(np.unique(tracker.step(frame).labels)) <= {0, 1}


def test_timings_add_up() -> None:
    timings = Tracker(PixelBackend()).step(*scene(0, RED)).timings
    assert timings.step > 0 and timings.post > 0
    assert timings.total == pytest.approx(timings.step + timings.post)


@pytest.mark.parametrize(
    "policy", [MemoryPolicy((0,), ()), MemoryPolicy((), (1,)), MemoryPolicy((0, 2), (1, 4))]
)
def test_other_policies(policy: MemoryPolicy) -> None:
    backend = PixelBackend()
    tracker = Tracker(backend, policy=policy)
    still = Square(1, 10, 10, speed=0)
    for index in range(12):
        frame, truth = scene(index, still)
        result = tracker.step(frame, truth if index == 0 else None)
        assert iou(result.labels, truth, 1) > 0.9
    assert backend.keys.shape[1] == policy.num_slots


def test_policy_and_slots_come_from_the_model() -> None:
    backend = PixelBackend(pixel_metadata(long_term=(0,), short_term=(1, 2), num_slots=9))
    Tracker(backend).step(*scene(0, RED))
    assert backend.keys.shape[1] == 9
    with raises_user_error(UserError, mentions=(8, 3)):
        Tracker(PixelBackend(pixel_metadata(num_slots=3)))


def test_fixed_label_count() -> None:
    backend = PixelBackend(pixel_metadata(num_labels=4))
    tracker = Tracker(backend)
    frame, truth = scene(0, RED, GREEN)
    tracker.step(frame, truth)
    assert tracker.step(frame).probabilities.shape[0] == 3
    assert backend.allocations == [(HEIGHT, WIDTH, 8, 4)]
    truth[40:, :8], truth[40:, 20:28] = 30, 31
    with raises_user_error(MaskError, mentions=(4, 3, "--objects 4")):
        tracker.step(frame, truth)
    tracker.remove(1)
    truth[truth == 1] = 0
    assert [state.id for state in tracker.step(frame, truth).objects] == [2, 30, 31]


def test_window_steps_follow_the_shorter_side() -> None:
    """30 x 50 features at radius 3: the shorter side is 10 radii, and 0.3 of that allows steps up to 3."""
    backend = PixelBackend()
    tracker = Tracker(backend)
    frame = np.zeros((120, 200, 3), np.uint8)
    for index in range(7):
        tracker.step(frame, np.ones((120, 200), np.uint8) if index == 0 else None)
    assert sorted(backend.dilations[2]) == [0, 0, 0, 0, 0, 0, 1, 3]  # frame 1, and frame 0 at age 2
    assert sorted(backend.dilations[6]) == [0, 0, 0, 0, 1, 3, 3, 3]  # frames 5, 3, 1 and 0


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


def test_frames_and_masks_of_any_strides() -> None:
    frame, truth = scene(0, RED, GREEN)
    flipped = Tracker(PixelBackend())
    copied = Tracker(PixelBackend())
    view, mask = frame[:, ::-1, ::-1], truth[:, ::-1]
    flipped.step(view, mask)
    copied.step(np.ascontiguousarray(view), np.ascontiguousarray(mask))
    np.testing.assert_array_equal(flipped.step(view).labels, copied.step(np.ascontiguousarray(view)).labels)


def test_remove_of_an_unknown_object() -> None:
    tracker = Tracker(PixelBackend())
    with raises_user_error(MaskError, mentions=("object 3", "none")):
        tracker.remove(3)
    tracker.step(*scene(0, RED, GREEN))
    with raises_user_error(MaskError, mentions=("object 3", "1, 2")):
        tracker.remove(3)


def test_close() -> None:
    backend = PixelBackend()
    with Tracker(backend) as tracker:
        tracker.step(*scene(0, RED))
    tracker.close()
    assert backend.closed == 1
    with pytest.raises(ValueError, match="closed"):
        tracker.step(scene(0, RED)[0])
    with pytest.raises(ValueError, match="closed"):
        tracker.remove(1)


def test_all_255_objects() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask.ravel()[: 255 * 8] = np.repeat(np.arange(1, 256), 8)
    result = Tracker(PixelBackend()).step(np.zeros((HEIGHT, WIDTH, 3), np.uint8), mask)
    assert [state.area for state in result.objects] == [8] * 255
    np.testing.assert_array_equal(result.labels, mask)
