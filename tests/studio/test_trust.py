"""The frames that a user should look at first."""

from __future__ import annotations

import numpy as np

from maskring.studio.trust import FRAMES_SHOWN, doubtful_frames, overlap, softness


def rows(softness_of: dict[int, float], frames: int = 50) -> dict[int, dict[int, list[float | None]]]:
    return {frame: {1: [100, 0.9, 0.9, softness_of.get(frame, 0.2)]} for frame in range(frames)}


def reasons(*arguments: object, **settings: object) -> dict[int, str]:
    return {doubt.frame: doubt.reason for doubt in doubtful_frames(*arguments, **settings)}  # type: ignore[arg-type]


def test_where_an_object_is_lost_or_soft() -> None:
    measured = rows({35: 0.9})
    measured[20] = {1: [0, None, 0.0, None]}
    measured[21] = {1: [0, None, None, None]}
    assert reasons(measured, (), (1,), count=2) == {20: "lost", 35: "soft"}
    assert reasons(measured, {20}, (1,), count=50)[21] == "lost"
    assert 20 not in reasons(measured, {20}, (1,), count=2)
    assert not reasons(measured, (), ())


def test_far_from_checked_frames() -> None:
    (doubt,) = doubtful_frames(rows({}), {0, 49}, (1,), count=1)
    assert doubt.frame in (24, 25) and doubt.reason == "far"
    (doubt,) = doubtful_frames(rows({}), {0}, (1,), count=1)
    assert doubt.frame == 49


def test_neighbours_are_left_out() -> None:
    frames = sorted(reasons(rows({}, 400), {0}, (1,)))
    assert len(frames) == FRAMES_SHOWN and min(np.diff(frames)) >= 10


def test_projects_without_softness() -> None:
    measured = {frame: {1: [100, 0.9, 0.9]} for frame in range(20)}
    assert 19 in reasons(measured, {0}, (1,))


def test_measures() -> None:
    first, second = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    first[:2], second[1:3] = 1, 1
    assert overlap(first, second, 1) == round(4 / 12, 4)
    assert overlap(None, second, 1) is None and overlap(first, second, 2) is None
    probabilities = np.zeros((3, 2, 2), np.float32)
    probabilities[1, 0] = 1.0
    probabilities[2, 1, 0] = 0.5
    assert softness(probabilities, 0) == 0.0 and softness(probabilities, 1) is None
    probabilities[2, 1, 1] = 0.5
    assert softness(probabilities, 1) == 2.0
