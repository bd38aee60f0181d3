"""Steering by a user at a scripted screen: when drawing starts, what tracking is given, what is shown."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from support import moving_square

from maskring.runtime.interaction.events import Event, Key, Pointer
from maskring.runtime.interaction.session import Interaction
from maskring.runtime.interaction.view import View
from maskring.runtime.pipeline.edits import Edits, Schedule
from maskring.runtime.pipeline.loop import track
from maskring.runtime.tracking.result import ObjectState, Result, Timings
from maskring.runtime.video.frame import Frame

FRAMES = 6
VIEW = View(*moving_square(0)[1].shape)


class ScriptedScreen:
    """Plays back what a user does, one batch of events per question; fails when the script ends too early."""

    def __init__(self, *batches: list[Event]) -> None:
        self.batches = deque(batches)
        self.shown: list[np.ndarray] = []
        self.closed = 0

    def show(self, picture: np.ndarray) -> None:
        self.shown.append(picture)

    def events(self, wait_ms: int) -> list[Event]:
        return self.batches.popleft()

    def close(self) -> None:
        self.closed += 1


class RecordingTracker:
    """Repeats its last mask, and remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.labels = np.zeros_like(moving_square(0)[1])
        self.ids: set[int] = set()

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Result:
        self.calls.append(None if mask is None else sorted(set(np.unique(mask).tolist()) - {0}))
        if mask is not None:
            self.labels = np.where(mask > 0, mask, self.labels)
            self.ids |= set(np.unique(mask).tolist()) - {0}
        states = tuple(ObjectState(number, 1, (0, 0, 1, 1), 1.0) for number in sorted(self.ids))
        probabilities = np.zeros((1, 1, 1), np.float32)
        return Result(self.labels.copy(), probabilities, states, Timings(0, 0, 0), len(self.calls) - 1)

    def prefetch(self, frame: np.ndarray) -> None: ...

    def remove(self, object_id: int) -> None:
        self.calls.append(f"remove {object_id}")
        self.ids.remove(object_id)


def frames() -> list[Frame]:
    return [Frame(moving_square(index)[0], index, index / 30, f"{index:05d}") for index in range(FRAMES)]


def polygon(left: int, top: int, right: int, bottom: int) -> list[Event]:
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [Pointer("press", *VIEW.to_screen(corner)) for corner in corners]


def run(edits: Edits, *batches: list[Event]) -> tuple[list[object], ScriptedScreen, int]:
    """What the tracker was told, the screen, and the frames tracked."""
    screen, tracker = ScriptedScreen(*batches), RecordingTracker()
    interaction = Interaction(screen, Schedule(edits))
    summary = track(frames(), tracker, [interaction], interaction)
    assert not screen.batches, "everything the user did was heard"
    return tracker.calls, screen, summary.frames


def test_without_a_mask_drawing_comes_first() -> None:
    drawn = [*polygon(12, 16, 27, 31), Key("enter")]
    calls, screen, tracked = run(Edits({}), [], drawn, *[[]] * FRAMES)
    assert calls == [[1], None, None, None, None, None] and tracked == FRAMES
    # The drawing, its last state, then one picture per frame with the object in it.
    assert len(screen.shown) == 2 + FRAMES
    x, y = VIEW.to_screen((20, 24))
    assert not np.array_equal(screen.shown[0][y, x], screen.shown[2][y, x])


def test_with_a_mask_there_is_nothing_to_draw() -> None:
    calls, _, tracked = run(Edits({0: moving_square(0)[1]}), *[[]] * FRAMES)
    assert calls == [[1], None, None, None, None, None] and tracked == FRAMES


def test_frames_are_skipped_until_something_is_drawn() -> None:
    drawn = [*polygon(12, 16, 27, 31), Key("enter")]
    calls, _, tracked = run(Edits({}), [Key("s")], [Key("s")], drawn, *[[]] * 4)
    assert calls == [[1], None, None, None] and tracked == 4


def test_quitting_while_drawing_tracks_nothing() -> None:
    assert run(Edits({}), [Key("q")])[0] == []


def test_another_object_and_a_correction() -> None:
    second = [*polygon(40, 4, 50, 10), Key("enter")]
    again = [*polygon(42, 6, 52, 12), Key("enter")]
    script = [[Key("a")], second, [], [Key("r")], again, [], [], []]
    calls, _, _ = run(Edits({0: moving_square(0)[1]}), *script)
    assert calls == [[1], [2], None, [2], None, None]


def test_an_object_is_dropped() -> None:
    script = [[Key("r")], [Key("1"), Key("x"), Key("enter")], *[[]] * 5]
    calls, _, _ = run(Edits({0: moving_square(0)[1]}), *script)
    assert calls == [[1], "remove 1", None, None, None, None, None]


def test_drawing_can_be_cancelled() -> None:
    script = [[Key("a")], [*polygon(40, 4, 50, 10), Key("escape")], *[[]] * 5]
    assert run(Edits({0: moving_square(0)[1]}), *script)[0] == [[1], None, None, None, None, None]


def test_what_is_drawn_lies_over_what_was_planned() -> None:
    planned = np.zeros_like(moving_square(0)[1])
    planned[:10] = 5
    drawn = [*polygon(0, 0, 63, 4), Key("enter")]
    script = [[Key("a")], drawn, *[[]] * 5]
    calls, screen, _ = run(Edits({0: moving_square(0)[1], 1: planned}), *script)
    assert calls[1] == [2, 5]


def test_planned_removals_stay() -> None:
    script = [[Key("a")], [Key("1"), Key("x"), Key("enter")], *[[]] * 5]
    calls, _, _ = run(Edits({0: moving_square(0)[1]}, {1: [1]}), *script)
    assert calls[1] == "remove 1" and calls[2:] == [None] * 5, "removed once"


def test_a_pause_lasts_until_the_same_key() -> None:
    script = [[Key("space")], [], [], [Key("z")], [Key("space")], *[[]] * 5]
    calls, screen, tracked = run(Edits({0: moving_square(0)[1]}), *script)
    assert tracked == FRAMES and len(screen.shown) == FRAMES + 1


@pytest.mark.parametrize("pause", [True, False])
def test_quitting_stops_before_the_next_frame(pause: bool) -> None:
    script = [[], [Key("space")], [Key("q")]] if pause else [[], [Key("q")]]
    assert run(Edits({0: moving_square(0)[1]}), *script)[2] == 2


def test_asking_to_draw_ends_a_pause() -> None:
    script = [[Key("space")], [Key("a")], [*polygon(40, 4, 50, 10), Key("enter")], *[[]] * 5]
    assert run(Edits({0: moving_square(0)[1]}), *script)[0] == [[1], [2], None, None, None, None]


def test_closing_closes_the_screen() -> None:
    screen = ScriptedScreen()
    Interaction(screen, Schedule(Edits({}))).close()
    assert screen.closed == 1
