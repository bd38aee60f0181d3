"""The ring's schedule against a simulation that keeps every frame in a list."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from user_errors import raises_user_error

from maskring.common.errors import UserError
from maskring.runtime.tracking.memory import MemoryPolicy, MemoryRing

SIDE, RADIUS = 96, 8  # features: the frame's shorter side, a window's radius


@st.composite
def policies(draw: st.DrawFn) -> MemoryPolicy:
    long_term = draw(st.lists(st.integers(0, 40), max_size=4, unique=True))
    short_term = draw(st.lists(st.integers(1, 20), max_size=5, unique=True))
    if 0 not in long_term and 1 not in short_term:
        (long_term.append(0) if draw(st.booleans()) else short_term.append(1))
    after, largest = draw(st.integers(0, 20)), draw(st.integers(1, 5))
    reach = draw(st.sampled_from([0.0, 0.1, 0.5, 10.0]))
    return MemoryPolicy(tuple(long_term), tuple(short_term), after, largest, reach)


def wanted(policy: MemoryPolicy, history: list[int]) -> dict[int, int]:
    """Frame -> dilation, for the frame that comes after ``history`` (all frames since the last mask)."""
    reads = {}
    for position, frame in enumerate(history):
        age = len(history) - position
        if position in policy.long_term or age in policy.short_term:
            dilated = policy.dilate_after > 0 and age > policy.dilate_after
            step = min(policy.max_dilation, age // policy.dilate_after + 1) if dilated else 1
            while step > 1 and step * RADIUS > policy.reach * SIDE:
                step -= 1
            reads[frame] = step
    return reads


@settings(max_examples=150, deadline=None)
@given(policies(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_schedule_equals_the_naive_simulation(
    policy: MemoryPolicy, spare_slots: int, chance: random.Random
) -> None:
    ring = MemoryRing(policy, policy.num_slots + spare_slots)
    content: list[int | None] = [None] * ring.num_slots  # slot -> frame whose tensors stand there
    history: list[int] = []
    for frame in range(300):
        dilation, write_slot = ring.plan(SIDE / RADIUS)
        read = {content[slot]: int(step) for slot, step in enumerate(dilation) if step}
        assert read == wanted(policy, history)
        assert len(read) == (dilation > 0).sum()  # no frame is read twice
        assert dilation[write_slot] == 0
        content[write_slot] = frame
        if chance.random() < 0.03:
            continue  # the step failed after it had written: nothing may come of it
        if chance.random() < 0.02:
            ring.restart()
            history = []
        ring.commit()
        history.append(frame)


def test_default_policy_worked_by_hand() -> None:
    ring = MemoryRing(MemoryPolicy())
    slot_of: dict[int, int] = {}
    read_at: dict[int, list[int]] = {}
    for frame in range(13):
        dilation, slot_of[frame] = ring.plan(SIDE / RADIUS)
        newest = {slot: held for held, slot in slot_of.items() if held < frame}
        read_at[frame] = sorted(newest[slot] for slot in range(ring.num_slots) if dilation[slot])
        ring.commit()
    assert read_at[0] == []
    assert read_at[1] == [0]
    assert read_at[4] == [0, 1, 3]
    assert read_at[6] == [0, 1, 3, 5]
    assert read_at[10] == [0, 5, 7, 9]
    assert read_at[12] == [0, 5, 7, 9, 11]


def test_memory_is_no_larger_than_needed() -> None:
    assert MemoryPolicy().num_slots == 8  # frames 0 and 5, five recent ones, the one being written
    assert MemoryPolicy((0,), ()).num_slots == 2
    assert MemoryPolicy((), (1,)).num_slots == 2


def test_steady_state_repeats() -> None:
    """What a device captures once per written slot, it can replay: the reads follow from the write."""
    ring = MemoryRing(MemoryPolicy())
    reads_of_write: dict[int, set[bytes]] = {}
    for frame in range(200):
        dilation, slot = ring.plan(SIDE / RADIUS)
        if frame > 10:
            reads_of_write.setdefault(slot, set()).add(dilation.tobytes())
        ring.commit()
    assert len(reads_of_write) == 6
    assert all(len(reads) == 1 for reads in reads_of_write.values())


def test_reads_and_drops_without_a_ring() -> None:
    """What keeps its tensors elsewhere follows the same policy."""
    policy = MemoryPolicy()
    assert policy.reads(0, SIDE / RADIUS) == {}
    assert policy.reads(12, SIDE / RADIUS) == {0: 3, 5: 3, 7: 3, 9: 3, 11: 1}
    assert list(policy.reads(12, SIDE / RADIUS)) == [0, 5, 7, 9, 11]
    assert [policy.frame_dropped(clock) for clock in range(4, 12)] == [None, None, 1, 2, 3, 4, None, 6]
    assert MemoryPolicy((0,), ()).frame_dropped(3) == 3


def test_mast_dilation() -> None:
    policy = MemoryPolicy(dilate_after=15, reach=math.inf)
    assert [policy.dilation(age, 10) for age in (1, 15, 16, 29, 30, 45, 60, 500)] == [1, 1, 2, 2, 3, 4, 4, 4]
    assert MemoryPolicy(dilate_after=0).dilation(10_000, 10) == 1


def test_windows_of_older_frames_reach_farther_but_no_farther_than_the_frame_allows() -> None:
    """Radius 12 at a stride of 4, frames of 240, 480 and 1080 pixels."""
    policy = MemoryPolicy()
    for side, steps in ((60, [1, 1, 1]), (120, [1, 3, 3]), (270, [1, 4, 4])):
        assert [policy.dilation(age, side / 12) for age in (1, 5, 60)] == steps


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"long_term": (5,), "short_term": (3,)}, ["0 to long_term", "1 to short_term"]),
        ({"long_term": (), "short_term": ()}, ["nothing to read"]),
        ({"short_term": (0, 1)}, ["short_term is [0, 1]", "1 or more"]),
        ({"short_term": (1, 1)}, ["short_term is [1, 1]", "different"]),
        ({"long_term": (0, -1)}, ["long_term is [0, -1]", "0 or more"]),
        ({"dilate_after": -1}, ["dilate_after=-1"]),
        ({"max_dilation": 0}, ["max_dilation=0"]),
        ({"reach": math.nan}, ["reach=nan"]),
        ({"short_term": (1, 10**9)}, ["holds 1000000003 frames", "256"]),
    ],
)
def test_impossible_policies(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        MemoryPolicy(**arguments)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)


def test_model_with_too_few_slots() -> None:
    with raises_user_error(UserError, mentions=(8, 7)):
        MemoryRing(MemoryPolicy(), 7)


def test_retained_memory_loses_no_slot() -> None:
    """Masks at any time: the newest one takes the place of the last long-term frame, frame 0 stays."""
    ring = MemoryRing(MemoryPolicy())
    for clock in range(60):
        dilation, slot = ring.plan(10.0)
        assert dilation[slot] == 0
        if clock in (3, 20, 41):
            assert ring.can_retain
            ring.retain()
        ring.commit()
        slots = ring.slots()
        assert len({*slots.values()}) == len(slots) <= ring.policy.num_slots
        assert slots[1] == slot
    assert {60, 60 - 41} <= set(ring.slots())
    for _ in range(20):
        _, slot = ring.plan(10.0)
        assert slot not in ring.slots().values()
        ring.commit()


def test_a_restart_forgets_retained_frames() -> None:
    ring = MemoryRing(MemoryPolicy())
    for clock in range(30):
        ring.plan(10.0)
        if clock == 20:
            ring.retain()
        if clock == 25:
            ring.restart()
        ring.commit()
    assert set(ring.slots()) == {1, 2, 3, 4, 5}  # frames 25 (now 0) to 29
    assert ring.policy.long_term == MemoryPolicy().long_term


def test_a_policy_with_one_long_term_frame_cannot_retain() -> None:
    ring = MemoryRing(MemoryPolicy(long_term=(0,)))
    ring.plan(10.0)
    ring.commit()
    assert not ring.can_retain
