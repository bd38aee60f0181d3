"""Frames that build upon damage, told by the order in which frames are decoded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from maskring.runtime.video.decode_order import MAX_REORDER, DecodeOrder


def handed_out(
    packets: Sequence[int | None], keys: Sequence[int] = (0,), corrupt: Sequence[int] = ()
) -> list[tuple[int, bool]]:
    """What comes out when the decoder gives frame after frame in the order of timestamps."""
    order: DecodeOrder[int] = DecodeOrder()
    out = []
    for pts in packets:
        order.packet(pts, key=pts in keys)
    for pts in sorted(pts for pts in packets if pts is not None):
        out += order.frame(pts, pts, corrupt=pts in corrupt)
    return [*out, *order.flush()]


def test_frames_before_a_damaged_one_that_they_build_upon() -> None:
    shown = handed_out([0, 4, 2, 1, 3, 8, 6, 5, 7], corrupt=[4])
    assert shown == [(0, False), *((index, True) for index in range(1, 9))]


def test_a_damaged_frame_leaves_those_decoded_before_it_and_after_a_keyframe() -> None:
    shown = handed_out([0, 2, 1, 4, 3, 5, 7, 6], keys=(0, 5), corrupt=[3])
    assert [index for index, damaged in shown if damaged] == [3]
    shown = handed_out([0, 2, 1, 4, 3, 5, 7, 6], keys=(0, 5), corrupt=[4])
    assert [index for index, damaged in shown if damaged] == [3, 4]


def test_without_reordering_nothing_is_held_back() -> None:
    order: DecodeOrder[int] = DecodeOrder()
    for pts in range(5):
        order.packet(pts, key=pts == 0)
        assert list(order.frame(pts, pts, corrupt=False)) == [(pts, False)]


@pytest.mark.parametrize("ago", [0, 1])
def test_a_damaged_packet_counts_for_what_follows_it(ago: int) -> None:
    order: DecodeOrder[int] = DecodeOrder()
    for pts in (0, 3, 1):
        order.packet(pts, key=pts == 0)
    order.damage(packets_ago=ago)
    frames = [shown for pts in (0, 1, 3) for shown in order.frame(pts, pts, corrupt=False)]
    assert frames == [(0, False), (1, True), (3, ago == 1)]


def test_frames_without_timestamps_pass() -> None:
    order: DecodeOrder[int] = DecodeOrder()
    order.packet(None, key=True)
    assert list(order.frame(0, None, corrupt=False)) == [(0, False)]
    assert list(order.frame(1, None, corrupt=True)) == [(1, True)]


def test_a_frame_that_never_comes_does_not_hold_up_the_others() -> None:
    """As where the clock jumps back."""
    order: DecodeOrder[int] = DecodeOrder()
    order.packet(1000, key=True)
    out = []
    for pts in range(3 * MAX_REORDER):
        order.packet(pts, key=False)
        out += order.frame(pts, pts, corrupt=False)
    assert [pts for pts, _ in out] == list(range(3 * MAX_REORDER))
