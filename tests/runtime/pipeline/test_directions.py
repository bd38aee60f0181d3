"""Runs in both directions from any frame: drawings hold, other objects stay."""

from __future__ import annotations

import numpy as np
import pytest
from disc_clip import OBJECT, OTHER, clip, new_tracker, only, overlap

from maskring.common.types import Labels
from maskring.runtime.pipeline.directions import Drawn, Run, merge_runs
from maskring.runtime.pipeline.loop import track
from maskring.runtime.tracking.result import Result
from maskring.runtime.video.frame import Frame

CLIP = clip(12, objects=2)
FRAMES = [Frame(image, index, index / 24, f"{index:05d}") for index, (image, _) in enumerate(CLIP)]


class Keep:
    """A sink that keeps labels by frame."""

    def __init__(self) -> None:
        self.labels: dict[int, Labels] = {}
        self.tracked: dict[int, list[int]] = {}

    def write(self, frame: Frame, result: Result) -> None:
        self.labels[frame.index] = result.labels
        self.tracked[frame.index] = [state.id for state in result.objects]

    def close(self) -> None: ...


def run(start: int, step: int, drawn: dict[int, Drawn], mask: Labels | None = None) -> tuple[Keep, Run]:
    frames = FRAMES[start::step]
    steering = Run(Drawn.of(CLIP[start][1] if mask is None else mask), drawn)
    kept = Keep()
    with new_tracker() as tracker:
        track(frames, tracker, [kept], steering)
    return kept, steering


@pytest.mark.parametrize(("start", "step", "end"), [(0, 1, 11), (11, -1, 0), (6, -1, 0), (6, 1, 11)])
def test_objects_are_followed_both_ways(start: int, step: int, end: int) -> None:
    kept, steering = run(start, step, {})
    assert list(kept.labels) == list(range(start, end + step, step))
    assert steering.followed == {OBJECT, OTHER}
    for object_id in (OBJECT, OTHER):
        assert overlap(kept.labels[end], CLIP[end][1], object_id) > 0.7


@pytest.mark.parametrize("step", [1, -1])
def test_several_drawings_hold(step: int) -> None:
    drawn = {index: Drawn.of(only(CLIP[0][1], OBJECT)) for index in (4, 7)}  # plainly elsewhere
    kept, _ = run(0 if step == 1 else 11, step, drawn)
    for index in drawn:
        np.testing.assert_array_equal(kept.labels[index] == OBJECT, drawn[index].mask == OBJECT)


def test_an_erased_object_is_followed_no_longer() -> None:
    erased = Drawn(np.zeros_like(CLIP[0][1]), frozenset({OTHER}))
    kept, steering = run(0, 1, {5: erased})
    assert kept.tracked[4] == [OBJECT, OTHER] and kept.tracked[5] == [OBJECT]
    assert OTHER not in np.unique(kept.labels[11]) and OTHER in steering.followed


def test_an_object_may_be_erased_and_drawn_again() -> None:
    erased = Drawn(np.zeros_like(CLIP[0][1]), frozenset({OTHER}))
    kept, _ = run(0, 1, {3: erased, 6: Drawn.of(only(CLIP[6][1], OTHER))})
    assert kept.tracked[5] == [OBJECT] and kept.tracked[6] == [OBJECT, OTHER]


def test_all_objects_may_be_erased() -> None:
    erased = Drawn(np.zeros_like(CLIP[0][1]), frozenset({OBJECT, OTHER}))
    kept, _ = run(0, 1, {3: erased})
    assert not kept.labels[3].any() and not kept.labels[11].any()


def test_merging_replaces_what_was_followed_and_keeps_the_rest() -> None:
    earlier = np.array([[1, 1, 2, 0, 3]], np.uint8)
    later = np.array([[0, 2, 0, 2, 2]], np.uint8)
    assert merge_runs(earlier, later, {2}).tolist() == [[1, 2, 0, 2, 2]]
    assert merge_runs(earlier, later, {1, 2, 3}).tolist() == later.tolist()
    assert merge_runs(None, later, {1}).tolist() == later.tolist()
