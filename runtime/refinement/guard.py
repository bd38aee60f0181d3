"""The guard: joins propagation and U-Net, and keeps the propagated mask where the U-Net would spoil it.

No torch in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ...common.types import Floats, Labels
from ..arrays.overlap import intersection_over_union
from ..arrays.upsampling import to_pixels
from ..tracking.objects import remeasure
from ..tracking.result import Result
from .crop import Crop

FLOOR = 1e-3
"""Least probability of a label: no side can veto the other."""

EXPLOSION = 4.0
"""An object this many times larger than the user drew it and than propagation has it did not grow."""

GROWTH = 1.3
"""A mask this many times larger than drawn and than the propagated one, which is sure, holds a stranger."""

VANISHED = 0.02
"""An object smaller than this share of its propagated self, of which propagation is sure, did not vanish."""

SURE = 0.8
"""Confidence above which propagation is sure of an object."""

SELF_AGREEMENT = 0.4
"""Least intersection over union of what the U-Net says of a frame and of its mirror image."""

LEARNED = 0.6
"""Least intersection over union with a mask of the user; below it the U-Net has not learned the object."""

VANISHED_REASON = "the refined mask vanished"
EXPLODED_REASON = "the refined mask exploded"
OUTGROWN_REASON = "the refined mask outgrew the propagated one"
UNSURE_REASON = "the U-Net disagrees with itself"
NOT_LEARNED_REASON = "the U-Net has not learned the object"
NOT_ADAPTED_REASON = "no adapted U-Net yet"


@dataclass
class Guard:
    """Decides, object by object, between the joint mask and the propagated one.

    Attributes:
        trust: weight of the U-Net where both have a say, 0 to 1.
        stride: pixels per feature of the tracker's model.
        drawn_areas: pixels of each object in the masks that the user gave.
    """

    trust: float
    stride: int
    drawn_areas: dict[int, float] = field(default_factory=dict)

    def drawn(self, result: Result) -> None:
        """Take note of a frame whose mask the user gave."""
        for state in result.objects:
            self.drawn_areas[state.id] = max(self.drawn_areas.get(state.id, 0.0), float(state.area))

    def decide(self, result: Result, network: Floats, view: Crop, kept: Mapping[int, str]) -> Result:
        """The refined result of a frame; ``Result.fallback_reasons`` says which masks stay as propagated.

        Args:
            result: of propagation.
            network: [1 + n, S, S] probabilities of the U-Net, in the order of ``result.objects``.
            view: what the U-Net was shown.
            kept: objects that stay in any case, with the reason.
        """
        joint = fuse(result, network, view, self.trust, self.stride)
        x0, y0, x1, y1 = view.box
        seen = np.s_[y0:y1, x0:x1]  # beyond it there is nothing to look at
        ids = [state.id for state in result.objects]
        joint[seen] = without_strangers(result.labels[seen], joint[seen], ids)
        reasons = degenerate(result, joint[seen], self.drawn_areas) | dict(kept)
        reasons = {state.id: reasons[state.id] for state in result.objects if state.id in reasons}
        labels = keep_propagated(result.labels, joint, list(reasons))
        return replace(
            result, labels=labels, objects=remeasure(result.objects, labels), fallback_reasons=reasons
        )


def fuse(result: Result, network: Floats, view: Crop, trust: float, stride: int) -> Labels:
    """Labels [H, W] (object ids) that are most probable to both: a weighted geometric mean of probabilities.

    Args:
        result: of propagation.
        network: [1 + n, S, S] probabilities of the U-Net, in the order of ``result.objects``.
        view: what the U-Net was shown; it holds all that propagation labels.
        trust: weight of the U-Net, 0 to 1.
        stride: pixels per feature.
    """
    height, width = result.labels.shape
    x0, y0, x1, y1 = view.box
    labels = np.zeros((height, width), np.uint8)  # beyond the view both say background: all objects are in it
    winner, best = labels[y0:y1, x0:x1], np.full((y1 - y0, x1 - x0), -np.inf, np.float32)
    for channel, object_id in enumerate((0, *(state.id for state in result.objects))):
        score = _log(to_pixels(result.probabilities[channel], view.box, stride), 1 - trust)
        score += _log(view.pixels(network[channel]), trust)
        np.copyto(winner, object_id, where=score > best)
        np.maximum(best, score, out=best)
    return labels


def without_strangers(propagated: Labels, refined: Labels, objects: Sequence[int]) -> Labels:
    """The refined labels less the islands in which something else looks like an object.

    The U-Net knows what an object looks like, not where it is. An island that has no pixel in common with the
    propagated mask, while another one has, is taken back: its pixels keep their propagated labels. Where none
    has, propagation has lost the object, and what the U-Net found is all there is.

    Args:
        propagated, refined: [H, W] object ids.
        objects: ids to look at.
    """
    labels: Labels = refined.copy()
    for object_id in objects:
        count, islands = cv2.connectedComponents((refined == object_id).astype(np.uint8))
        known = np.zeros(count, bool)
        known[islands[propagated == object_id]] = True
        known[0] = True  # not an island
        if known[1:].any() and not known.all():
            np.copyto(labels, propagated, where=~known[islands])
    return labels


def degenerate(result: Result, refined: Labels, drawn_areas: Mapping[int, float]) -> dict[int, str]:
    """Objects whose refined mask cannot be right, with the reason.

    Args:
        result: of propagation.
        refined: object ids, at least where there are any.
        drawn_areas: pixels of each object in the masks that the user gave.
    """
    after = np.bincount(refined.ravel(), minlength=256)
    reasons = {}
    for state in result.objects:
        largest = max(float(state.area), drawn_areas.get(state.id, 0.0), 1.0)
        sure = state.confidence is not None and state.confidence >= SURE
        if after[state.id] > EXPLOSION * largest:
            reasons[state.id] = EXPLODED_REASON
        elif sure and state.area and after[state.id] > GROWTH * largest:
            reasons[state.id] = OUTGROWN_REASON
        elif sure and after[state.id] < VANISHED * state.area:
            reasons[state.id] = VANISHED_REASON
    return reasons


def unsure(ids: Sequence[int], direct: Floats, mirrored: Floats) -> dict[int, str]:
    """Objects of which the U-Net says something else when it sees the frame mirrored.

    Args:
        ids: objects in the order of the channels 1, 2, ...
        direct, mirrored: [1 + n, S, S] probabilities.
    """
    one, two = direct.argmax(0).astype(np.uint8), mirrored.argmax(0).astype(np.uint8)
    return {
        object_id: UNSURE_REASON
        for channel, object_id in enumerate(ids, start=1)
        if intersection_over_union(one == channel, two == channel) < SELF_AGREEMENT
    }


def keep_propagated(propagated: Labels, refined: Labels, objects: Sequence[int]) -> Labels:
    """The refined labels, in which ``objects`` cover exactly what propagation gave them."""
    if not objects:
        return refined
    labels = np.where(np.isin(refined, list(objects)), 0, refined)
    return np.where(np.isin(propagated, list(objects)), propagated, labels).astype(np.uint8)


def _log(probabilities: Floats, weight: float) -> Floats:
    """Weighted logarithms, in place of the probabilities."""
    np.maximum(probabilities, FLOOR, out=probabilities)
    np.log(probabilities, out=probabilities)
    probabilities *= np.float32(weight)
    return probabilities
