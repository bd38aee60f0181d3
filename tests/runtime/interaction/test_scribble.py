"""Objects from strokes."""

from __future__ import annotations

import numpy as np
import pytest
from disc_clip import OBJECT, SIZE, clip
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.common.types import Image
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.interaction.scribble import FrameFeatures, Scribble, outline_from_scribble

IMAGE, TRUTH = clip(1)[0]
DISC = TRUTH == OBJECT


def features(image: Image) -> FrameFeatures:
    """Colours, as an encoder without training."""
    return FrameFeatures(image[::4, ::4].transpose(2, 0, 1).astype(np.float32), 4)


@pytest.mark.parametrize(
    "outside", [[], [[(2, 2), (60, 2), (60, 60), (2, 60)]]], ids=["frame's edge", "stroke"]
)
def test_a_stroke_fills_its_object(outside: list[list[tuple[int, int]]]) -> None:
    found = outline_from_scribble(IMAGE, features(IMAGE), Scribble([[(16, 24), (24, 24)]], outside))
    assert found.shape == (SIZE, SIZE)
    assert intersection_over_union(found, DISC) > 0.75


def test_a_stroke_outside_takes_its_part_away() -> None:
    both, _ = clip(1, objects=2)[0]
    inside = [[(20, 24)], [(44, 46)]]
    whole = outline_from_scribble(both, features(both), Scribble(inside))
    part = outline_from_scribble(both, features(both), Scribble(inside[:1], inside[1:]))
    assert whole[46, 44] and whole[24, 20]
    assert part[24, 20] and not part[46, 44]


def test_without_a_stroke_inside() -> None:
    with raises_user_error(MaskError):
        outline_from_scribble(IMAGE, features(IMAGE), Scribble([], [[(3, 3)]]))
