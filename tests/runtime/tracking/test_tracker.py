"""The tracker's promises, on scenes whose objects differ by colour and a backend that compares colours."""

from __future__ import annotations

import numpy as np
import pytest
from coloured_squares import GREEN, HEIGHT, RED, WIDTH, Square, iou, scene
from pixel_backend import PixelBackend, pixel_metadata
from user_errors import raises_user_error

from maskring.common.errors import MaskError, UserError
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker


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


def test_frames_and_masks_of_any_strides() -> None:
    frame, truth = scene(0, RED, GREEN)
    flipped = Tracker(PixelBackend())
    copied = Tracker(PixelBackend())
    view, mask = frame[:, ::-1, ::-1], truth[:, ::-1]
    flipped.step(view, mask)
    copied.step(np.ascontiguousarray(view), np.ascontiguousarray(mask))
    np.testing.assert_array_equal(flipped.step(view).labels, copied.step(np.ascontiguousarray(view)).labels)


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
