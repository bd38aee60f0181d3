"""A source whose objects get their masks somewhere in the middle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from disc_clip import OBJECT, OTHER, clip, new_tracker, only, overlap
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.common.types import Labels
from maskring.runtime.pipeline import both_ways
from maskring.runtime.pipeline.both_ways import backwards, follow_both_ways
from maskring.runtime.pipeline.edits import Edits, Schedule
from maskring.runtime.pipeline.loop import track
from maskring.runtime.pipeline.progress import no_progress
from maskring.runtime.tracking.result import Result
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source

CLIP = clip(12, objects=2)


class Keep:
    """A sink that keeps results in order."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.results: list[Result] = []

    def write(self, frame: Frame, result: Result) -> None:
        self.frames.append(frame.index)
        self.results.append(result)

    def close(self) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for index, (image, _) in enumerate(CLIP):
        cv2.imwrite(str(tmp_path / "frames" / f"{index:05d}.png"), image[..., ::-1])
    return tmp_path / "frames"


def follow(folder: Path, masks: dict[int, Labels], first: int = 0) -> Keep:
    kept = Keep()
    with open_source(folder, first=first) as stream, new_tracker() as one, new_tracker() as other:
        summary = follow_both_ways(
            stream,
            lambda **part: open_source(folder, **part),
            (one, other),
            [kept],
            Schedule(Edits(masks)),
            None,
            None,
            no_progress,
        )
    assert summary.frames == len(kept.frames) == len(CLIP) - first
    assert kept.frames == list(range(first, len(CLIP)))
    return kept


def test_one_mask_in_the_middle_reaches_both_ends(folder: Path) -> None:
    kept = follow(folder, {6: CLIP[6][1]})
    np.testing.assert_array_equal(kept.results[6].labels, CLIP[6][1])
    for index in (0, 11):
        for object_id in (OBJECT, OTHER):
            assert overlap(kept.results[index].labels, CLIP[index][1], object_id) > 0.7


def test_each_object_is_followed_from_its_first_mask(folder: Path) -> None:
    kept = follow(folder, {3: only(CLIP[3][1], OBJECT), 8: only(CLIP[8][1], OTHER)})
    for index in (0, 11):
        for object_id in (OBJECT, OTHER):
            assert overlap(kept.results[index].labels, CLIP[index][1], object_id) > 0.7
    np.testing.assert_array_equal(kept.results[3].labels == OBJECT, only(CLIP[3][1], OBJECT) > 0)
    assert [[state.id for state in result.objects] for result in kept.results] == [[OBJECT, OTHER]] * 12
    assert all(state.area == (kept.results[1].labels == state.id).sum() for state in kept.results[1].objects)


def test_what_was_followed_forwards_stays(folder: Path) -> None:
    masks = {0: only(CLIP[0][1], OBJECT), 8: only(CLIP[8][1], OTHER)}
    plain = Keep()
    with open_source(folder) as stream, new_tracker() as tracker:
        track(stream, tracker, [plain], Schedule(Edits(masks)))
    both = follow(folder, masks)
    for before, after in zip(plain.results, both.results, strict=True):
        changed = before.labels != after.labels
        assert (after.labels[changed] == OTHER).all()


def test_a_mask_on_the_first_frame_changes_nothing(folder: Path) -> None:
    plain = Keep()
    with open_source(folder) as stream, new_tracker() as tracker:
        track(stream, tracker, [plain], Schedule(Edits({0: CLIP[0][1]})))
    for before, after in zip(plain.results, follow(folder, {0: CLIP[0][1]}).results, strict=True):
        np.testing.assert_array_equal(before.labels, after.labels)


def test_a_part_of_the_source(folder: Path) -> None:
    kept = follow(folder, {6: CLIP[6][1]}, first=2)
    assert overlap(kept.results[0].labels, CLIP[2][1]) > 0.7


def test_without_any_mask(folder: Path) -> None:
    with raises_user_error(MaskError, ("--add",)):
        follow(folder, {})


@pytest.mark.parametrize("frames_in_memory", [1, 5, 100])
def test_frames_backwards_are_the_same_frames(
    folder: Path, frames_in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(both_ways, "BACKWARD_BYTES", frames_in_memory * CLIP[0][0].nbytes)
    got = list(backwards(lambda **part: open_source(folder, **part), 2, 11, CLIP[0][0].shape[:2]))
    assert [frame.index for frame in got] == list(range(11, 1, -1))
    for frame in got:
        np.testing.assert_array_equal(frame.image, CLIP[frame.index][0])
