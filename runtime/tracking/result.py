"""The result of tracking one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...common.errors import UnavailableError
from ...common.types import FloatMaps, Labels
from ..arrays.label_maps import Box

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True)
class ObjectState:
    """One object in one frame.

    Attributes:
        id: 1 to 255, as in the user's mask.
        area: pixels.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None when the object is not visible.
        confidence: mean probability of its label over the features that it covers; None when it covers none.
    """

    id: int
    area: int
    box: Box | None
    confidence: float | None


@dataclass(frozen=True)
class Timings:
    """Seconds that one frame took.

    Attributes:
        step: executing the model.
        post: everything after it: masks, boxes, areas, copies.
        total: the whole call.
    """

    step: float
    post: float
    total: float


@dataclass(frozen=True, eq=False)
class Result:
    """The labels and objects of one frame. The arrays belong to the caller: nothing overwrites them.

    Attributes:
        labels: [H, W] object ids, 0 = background.
        probabilities: [1 + len(objects), h, w]: background, then the objects in the order of ``objects``.
            Feature (i, j) is centred on pixel (stride * i, stride * j).
        objects: all tracked objects, visible or not, by ascending id.
        timings: seconds spent.
        frame_index: number of frames processed before this one.
        fallback_reasons: with refinement, object id -> why its mask is the propagated one and not the refined
            one; objects with a refined mask are left out. None without refinement.
    """

    labels: Labels
    probabilities: FloatMaps
    objects: tuple[ObjectState, ...]
    timings: Timings
    frame_index: int
    fallback_reasons: Mapping[int, str] | None = None

    def to_supervision(self) -> Detections:
        """The visible objects for supervision (``pip install supervision``), by ascending id.

        ``mask`` is [N, H, W] bool, ``xyxy`` the boxes with exclusive right and bottom edges, ``tracker_id`` the
        ids. ``class_id`` is None, as maskring knows no classes, so annotators want ``ColorLookup.TRACK``.

        Raises:
            UnavailableError: when supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise UnavailableError(
                f"supervision cannot be imported ({error})", "run pip install supervision"
            ) from error
        boxes = {one.id: one.box for one in self.objects if one.box is not None}
        if not boxes:
            return Detections.empty()
        ids = np.array(list(boxes))
        confidence = {one.id: np.nan if one.confidence is None else one.confidence for one in self.objects}
        return Detections(
            xyxy=np.array(list(boxes.values()), np.float32),
            mask=self.labels == ids[:, None, None],
            confidence=np.array([confidence[number] for number in boxes], np.float32),
            tracker_id=ids,
        )

    def delayed(self, seconds: float) -> Result:
        """A copy with ``seconds`` of further processing added to the timings."""
        timings = replace(self.timings, post=self.timings.post + seconds, total=self.timings.total + seconds)
        return replace(self, timings=timings)
