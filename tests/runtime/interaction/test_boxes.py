"""Objects given as boxes: cut out of the first frame, numbered beside those of a mask, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from support import HEIGHT, WIDTH, moving_square
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.interaction.boxes import Boxed, masks_from_boxes
from maskring.runtime.pipeline.edits import Edits, Schedule
from maskring.runtime.video.frame import Frame

AROUND = (6, 10, 36, 40)
"""A box around the square of the first frame."""


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_object_in_a_box_is_found() -> None:
    image, truth = moving_square(0)
    assert iou(masks_from_boxes(image, [AROUND]) == 1, truth == 1) > 0.95


def test_boxes_take_the_numbers_that_the_mask_leaves_and_lie_below_it() -> None:
    image, truth = moving_square(0)
    drawn = np.zeros_like(truth)
    drawn[14:18, 10:40] = 1
    drawn[0:4, 0:4] = 3
    labels = masks_from_boxes(image, [AROUND], drawn)
    assert np.array_equal(labels[drawn > 0], drawn[drawn > 0])
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert iou(labels == 2, (truth == 1) & (drawn == 0)) > 0.95


def test_only_the_first_frame_is_given_the_boxes() -> None:
    image, _ = moving_square(0)
    later = np.full((HEIGHT, WIDTH), 5, np.uint8)
    steering = Boxed([AROUND], Schedule(Edits({7: later}, {9: [1]})))
    first = steering.decide(Frame(image, 4, 0.0, "4")).mask
    assert first is not None and set(np.unique(first)) == {0, 1}
    assert steering.decide(Frame(image, 5, 0.0, "5")).mask is None
    assert steering.decide(Frame(image, 7, 0.0, "7")).mask is later
    assert steering.decide(Frame(image, 9, 0.0, "9")).removals == [1]


@pytest.mark.parametrize("box", [(0, 0, WIDTH + 1, 8), (8, 8, 8, 20), (20, 8, 8, 20), (0, 0, 8, HEIGHT + 1)])
def test_a_box_beyond_the_frame_is_refused(box: tuple[int, int, int, int]) -> None:
    with raises_user_error(MaskError, mentions=(f"{WIDTH}x{HEIGHT}", ",".join(map(str, box)))):
        masks_from_boxes(moving_square(0)[0], [box])


@pytest.mark.parametrize("box", [(0, 0, WIDTH, HEIGHT), (10, 10, 13, 30)])
def test_a_box_without_background_or_of_few_pixels_is_refused(box: tuple[int, int, int, int]) -> None:
    named = ",".join(map(str, box))
    with raises_user_error(MaskError, mentions=(f"box {named}", "6 pixels")):
        masks_from_boxes(moving_square(0)[0], [box])


def test_more_objects_than_a_mask_holds_are_refused() -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn.ravel()[:255] = np.arange(1, 256)
    with raises_user_error(MaskError, mentions=(255,)):
        masks_from_boxes(moving_square(0)[0], [AROUND], drawn)


def test_boxes_of_a_detector_may_have_fractions() -> None:
    image = moving_square(0)[0]
    x0, y0, x1, y1 = AROUND
    whole = masks_from_boxes(image, [AROUND])
    boxes = np.array([[x0 + 0.4, y0 + 0.9, x1 - 0.2, y1 - 0.7]], np.float32)
    assert np.array_equal(masks_from_boxes(image, boxes), whole)
    with raises_user_error(MaskError, mentions=("nan",)):
        masks_from_boxes(image, [(float("nan"), 0, 5, 5)])
