"""Masks that a user names: which object each shows, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.pipeline.given_masks import GivenMask, PlannedMasks, plan_masks
from maskring.runtime.video.masks import write_mask

LEFT, RIGHT, MIDDLE = np.zeros((3, 20, 30), np.uint8)
LEFT[2:12, 2:10] = RIGHT[5:15, 18:28] = MIDDLE[8:18, 12:16] = 1


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """White shapes ``left.png``, ``right.png`` and ``middle.png``, and ``both.png`` with the objects 1 and 2."""
    for name, mask in (("left", LEFT), ("right", RIGHT), ("middle", MIDDLE)):
        Image.fromarray(mask * 255).save(tmp_path / f"{name}.png")
        write_mask(tmp_path / f"{name}_1.png", mask)
    write_mask(tmp_path / "both.png", LEFT + 2 * RIGHT)
    return tmp_path


def planned(masks: Path, *given: tuple[int, str] | tuple[int, str, int], **more: object) -> PlannedMasks:
    listed = [GivenMask(frame, masks / f"{name}.png", *number) for frame, name, *number in given]
    return plan_masks(listed, **more)  # type: ignore[arg-type]


def test_white_shapes_are_numbered_in_the_order_given(masks: Path) -> None:
    plan = planned(masks, (0, "left"), (0, "right"))
    assert np.array_equal(plan.masks[0], LEFT + 2 * RIGHT)
    assert ["right.png is object 2" in note for note in plan.notes] == [False, True]


def test_palettes_of_one_object_with_the_same_number_are_several_objects(masks: Path) -> None:
    plan = planned(masks, (0, "left_1"), (0, "right_1"))
    assert np.array_equal(plan.masks[0], LEFT + 2 * RIGHT)


def test_a_white_shape_beside_numbered_objects_takes_a_free_number(masks: Path) -> None:
    plan = planned(masks, (0, "both"), (7, "middle"))
    assert np.array_equal(plan.masks[7], 3 * MIDDLE)


def test_a_white_shape_at_a_later_frame_is_a_new_object(masks: Path) -> None:
    plan = planned(masks, (0, "left"), (5, "right"))
    assert np.array_equal(plan.masks[0], LEFT) and np.array_equal(plan.masks[5], 2 * RIGHT)
    assert len(plan.notes) == 1 and "right.png is object 2" in plan.notes[0] and "5:ID" in plan.notes[0]


def test_numbers_of_ones_own(masks: Path) -> None:
    plan = planned(masks, (0, "left", 7), (0, "right"), (5, "middle", 7))
    assert np.array_equal(plan.masks[0], 7 * LEFT + RIGHT)
    assert np.array_equal(plan.masks[5], 7 * MIDDLE)
    assert any("middle.png redraws object 7 at frame 5" in note for note in plan.notes)


def test_two_masks_of_one_number_are_joined(masks: Path) -> None:
    plan = planned(masks, (0, "left", 4), (0, "right", 4))
    assert np.array_equal(plan.masks[0], 4 * (LEFT + RIGHT))


def test_a_numbered_object_at_a_later_frame_is_redrawn_and_said(masks: Path) -> None:
    plan = planned(masks, (0, "both"), (3, "left_1"))
    assert np.array_equal(plan.masks[3], LEFT)
    assert [note.split()[-6:] for note in plan.notes] == [["redraws", "object", "1", "at", "frame", "3"]]


def test_a_removed_object_is_not_redrawn(masks: Path) -> None:
    plan = planned(masks, (0, "both"), (3, "left_1"), removals={2: [1]})
    assert plan.notes == []


def test_boxes_take_their_numbers_first(masks: Path) -> None:
    plan = planned(masks, (0, "left"), (4, "right"), boxes=2)
    assert np.array_equal(plan.masks[4], 4 * RIGHT)


def test_of_several_masks_for_a_frame_later_ones_lie_on_top(masks: Path) -> None:
    write_mask(masks / "wide.png", np.full(LEFT.shape, 9, np.uint8) * (np.arange(30) < 20).astype(np.uint8))
    plan = planned(masks, (0, "wide"), (0, "both"))
    assert set(np.unique(plan.masks[0])) == {0, 1, 2, 9}
    assert (plan.masks[0][LEFT > 0] == 1).all()


@pytest.mark.parametrize(
    ("given", "mentions"),
    [
        (((0, "both", 3),), ("both.png", "3", "2 objects")),
        (((0, "both"), (0, "both")), ("both.png", "object 1", "numbers")),
        (((0, "left"), (0, "left")), ("left.png", "object 1", "on top")),
        (((0, "nowhere"),), ("nowhere.png",)),
        (((0, "empty"),), ("empty.png",)),
    ],
)
def test_what_cannot_be_decided_is_refused(
    masks: Path, given: tuple[tuple[int, str], ...], mentions: tuple[str, ...]
) -> None:
    write_mask(masks / "empty.png", np.zeros_like(LEFT))
    with raises_user_error(MaskError, mentions=mentions):
        planned(masks, *given)
