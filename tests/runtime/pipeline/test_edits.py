"""Edits: what is due at which frame, also where a live source drops frames."""

from __future__ import annotations

import numpy as np
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.pipeline.edits import Edits, Schedule, merge_masks
from maskring.runtime.video.frame import Frame


def frame(index: int) -> Frame:
    return Frame(np.zeros((4, 4, 3), np.uint8), index, index / 25, str(index))


def mask(object_id: int, *columns: int) -> np.ndarray:
    labels = np.zeros((4, 4), np.uint8)
    labels[:, list(columns)] = object_id
    return labels


def test_edits_of_dropped_frames_take_effect_at_the_next_one() -> None:
    schedule = Schedule(Edits({0: mask(1, 0), 3: mask(2, 1)}, {3: [1], 4: [7, 8]}))
    first, second, third, last = (schedule.decide(frame(index)) for index in (0, 1, 5, 6))
    assert first.mask is not None and first.mask.max() == 1 and first.removals == []
    assert second.mask is None and second.removals == []
    assert third.mask is not None and third.mask.max() == 2 and third.removals == [1, 7, 8]
    assert last.mask is None and last.removals == []


def test_of_several_masks_the_later_ones_lie_on_top() -> None:
    schedule = Schedule(Edits({1: mask(1, 0, 1), 2: mask(2, 1, 2)}))
    decision = schedule.decide(frame(2))
    assert decision.mask is not None
    np.testing.assert_array_equal(decision.mask, np.broadcast_to([1, 2, 2, 0], (4, 4)))


def test_masks_of_two_sizes_do_not_merge() -> None:
    with raises_user_error(MaskError, mentions=([4, 4], [2, 4])):
        merge_masks(mask(1, 0), mask(2, 0)[:2])
