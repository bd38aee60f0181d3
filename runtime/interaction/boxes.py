"""Objects given as boxes in the first frame; GrabCut turns them into masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil, floor

import numpy as np

from ...common.errors import MaskError
from ...common.types import Image, Labels
from ..arrays.label_maps import Box
from ..pipeline.edits import Decision, Steering, merge_masks
from ..tracking.objects import free_id
from ..video.frame import Frame
from .grabcut import MIN_BOX_SIDE, cut_from_box


class Boxed:
    """Steering that adds the objects of boxes to the first frame.

    Args:
        boxes: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, one per object. Each object takes the lowest
            free number.
        planned: decides everything else; its first mask lies on top of the boxes' objects.
    """

    def __init__(self, boxes: Sequence[Box], planned: Steering) -> None:
        self._boxes, self._planned = list(boxes), planned

    def decide(self, frame: Frame) -> Decision:
        """The planned decision; at the first frame, with the objects of the boxes.

        Raises:
            MaskError: when a box extends beyond the frame, or no object is found in it.
        """
        decision = self._planned.decide(frame)
        boxes, self._boxes = self._boxes, []
        return (
            replace(decision, mask=masks_from_boxes(frame.image, boxes, decision.mask)) if boxes else decision
        )


def masks_from_boxes(image: Image, boxes: Iterable[Sequence[float]], drawn: Labels | None = None) -> Labels:
    """Cut objects out of boxes.

    Args:
        image: [H, W, 3] uint8 RGB.
        boxes: as for :class:`Boxed`. Fractions, as detectors give them, are rounded so that the box grows.
        drawn: [H, W] uint8 object ids that lie on top, None for none.

    Returns:
        [H, W] uint8 object ids. Objects of later boxes lie over those of earlier ones.

    Raises:
        MaskError: when a box extends beyond the frame, no object is found in it, or there are too many.
    """
    height, width = image.shape[:2]
    labels: Labels = np.zeros((height, width), np.uint8)
    drawn = labels if drawn is None else drawn
    if drawn.shape != labels.shape:
        return drawn  # the tracker refuses it
    taken = {int(number) for number in np.unique(drawn)}
    for box in boxes:
        named = ",".join(map(str, box))
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise MaskError(
                f"the box {named} is empty or does not lie in the frame of {width}x{height} pixels",
                "give its left, top, right and bottom edge in pixels: X0,Y0,X1,Y1",
            )
        number = free_id(taken)
        if number is None:
            raise MaskError("there are more than 255 objects", "give fewer boxes")
        inside = cut_from_box(image, (floor(x0), floor(y0), ceil(x1), ceil(y1)))
        if inside is None:
            raise MaskError(
                f"no object can be cut out of the box {named}",
                f"make it at least {MIN_BOX_SIDE} pixels wide and high, leave background around it, or give a mask",
            )
        taken.add(number)
        labels[inside] = number
    return merge_masks(drawn, labels)
