"""The guard combines propagation and U-Net. It keeps the propagated mask where the U-Net would spoil it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ...common.types import Floats, Image, Labels
from ..arrays.guided_filter import guided_labels
from ..arrays.overlap import intersection_over_union
from ..arrays.upsampling import argmax_planes, to_pixels
from ..backends.onnxrt.colour import normalised_lab
from ..model.metadata import ModelMetadata
from ..tracking.objects import remeasure
from ..tracking.result import Result
from .crop import Crop

FLOOR = 1e-3
"""Smallest probability of a label, so that neither side can veto the other."""

EXPLOSION = 4.0
"""An object this many times larger than drawn and than propagated has exploded."""

GROWTH = 1.3
"""A mask this many times larger than drawn and than a confident propagated mask holds something else."""

VANISHED = 0.02
"""A refined mask below this share of a confident propagated mask has wrongly vanished."""

SURE = 0.8
"""Confidence from which propagation counts as sure of an object."""

SELF_AGREEMENT = 0.4
"""Least intersection over union of the U-Net's masks of a frame and of its mirror image."""

AGREEMENT = 0.7
"""Intersection over union of the U-Net's mask and the propagated one below which propagation has lost the object."""

LEARNED = 0.6
"""Least intersection over union with a mask that the user drew; below it the object is not learned."""

VANISHED_REASON = "the refined mask vanished"
EXPLODED_REASON = "the refined mask exploded"
OUTGROWN_REASON = "the refined mask outgrew the propagated one"
UNSURE_REASON = "the U-Net disagrees with itself"
NOT_LEARNED_REASON = "the U-Net has not learned the object"
NOT_ADAPTED_REASON = "no adapted U-Net yet"


@dataclass
class Guard:
    """Decides for each object between the combined mask and the propagated one.

    Attributes:
        trust: weight of the U-Net in the combined mask, 0 to 1.
        model: describes the tracker's model.
        drawn_areas: largest area of each object in the masks that the user drew, in pixels.
    """

    trust: float
    model: ModelMetadata
    drawn_areas: dict[int, float] = field(default_factory=dict)

    def drawn(self, result: Result) -> None:
        """Remember the areas of a frame whose mask the user drew."""
        for state in result.objects:
            self.drawn_areas[state.id] = max(self.drawn_areas.get(state.id, 0.0), float(state.area))

    def decide(
        self,
        frame: Image,
        result: Result,
        network: Floats,
        crop: Crop,
        fallback_reasons: Mapping[int, str],
    ) -> Result:
        """The refined result of a frame; ``Result.fallback_reasons`` says which masks stay as propagated.

        Args:
            frame: [H, W, 3] uint8 RGB.
            result: of propagation.
            network: [1 + n, S, S] probabilities of the U-Net, in the order of ``result.objects``.
            crop: the part of the frame that the U-Net was shown.
            fallback_reasons: objects that keep their propagated mask in any case -> why.
        """
        if self.model.guided_filter_radius and result.objects:
            combined = fuse_along_edges(frame, result, network, crop, self.trust, self.model)
        else:
            combined = fuse(result, network, crop, self.trust, self.model.stride)
        x0, y0, x1, y1 = crop.box
        inside = np.s_[y0:y1, x0:x1]  # there are no objects outside
        ids = [state.id for state in result.objects]
        combined[inside] = without_strangers(result.labels[inside], combined[inside], ids)
        reasons = degenerate(result, combined[inside], self.drawn_areas) | dict(fallback_reasons)
        reasons = {state.id: reasons[state.id] for state in result.objects if state.id in reasons}
        labels = keep_propagated(result.labels, combined, list(reasons))
        return replace(
            result, labels=labels, objects=remeasure(result.objects, labels), fallback_reasons=reasons
        )


def fuse(result: Result, network: Floats, crop: Crop, trust: float, stride: int) -> Labels:
    """Labels [H, W] (object ids) with the largest weighted geometric mean of both probabilities.

    Args:
        result: of propagation.
        network: [1 + n, S, S] probabilities of the U-Net, in the order of ``result.objects``.
        crop: the part of the frame that the U-Net was shown; it contains all propagated objects.
        trust: weight of the U-Net, 0 to 1.
        stride: pixels per feature.
    """
    height, width = result.labels.shape
    x0, y0, x1, y1 = crop.box
    labels = np.zeros((height, width), np.uint8)  # outside the crop everything is background
    winner, best = labels[y0:y1, x0:x1], np.full((y1 - y0, x1 - x0), -np.inf, np.float32)
    for channel, object_id in enumerate((0, *(state.id for state in result.objects))):
        score = _log(to_pixels(result.probabilities[channel], crop.box, stride), 1 - trust)
        score += _log(crop.pixels(network[channel]), trust)
        np.copyto(winner, object_id, where=score > best)
        np.maximum(best, score, out=best)
    return labels


def fuse_along_edges(
    frame: Image, result: Result, network: Floats, crop: Crop, trust: float, model: ModelMetadata
) -> Labels:
    """As :func:`fuse`, at features; the model's guided filter then finds the edges in the frame's colours.

    Args:
        frame: [H, W, 3] uint8 RGB.
        result, network, crop, trust: see :func:`fuse`; at least one object.
        model: describes the tracker's model, which has a guided filter.
    """
    shape = result.probabilities.shape[1:]
    scores = np.stack(
        [
            _log(np.array(propagated, np.float32), 1 - trust)
            + _log(crop.features(seen, shape, model.stride), trust)
            for propagated, seen in zip(result.probabilities, network, strict=True)
        ]
    )
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    lab = np.empty((3, *result.labels.shape), np.float32)
    normalised_lab(frame, model, out=lab)
    channels = np.empty_like(result.labels)
    best = argmax_planes(scores)
    guided_labels(scores, best, lab, model.guided_filter_radius, model.stride, out=channels)
    x0, y0, x1, y1 = crop.box
    labels = np.zeros_like(channels)  # outside the crop everything is background
    ids = np.array([0, *(state.id for state in result.objects)], np.uint8)
    labels[y0:y1, x0:x1] = ids[channels[y0:y1, x0:x1]]
    return labels


def without_strangers(propagated: Labels, refined: Labels, objects: Sequence[int]) -> Labels:
    """The refined labels without the islands where something else merely looks like an object.

    The U-Net knows what an object looks like, not where it is. If some islands of an object overlap its
    propagated mask, the others are taken back: their pixels keep their propagated labels. If none does,
    propagation has lost the object, and the U-Net's mask stays as it is.

    Args:
        propagated, refined: [H, W] object ids.
        objects: ids to look at.
    """
    labels: Labels = refined.copy()
    for object_id in objects:
        count, islands = cv2.connectedComponents((refined == object_id).astype(np.uint8))
        overlaps = np.zeros(count, bool)
        overlaps[islands[propagated == object_id]] = True
        overlaps[0] = True  # the background, which is no island
        if overlaps[1:].any() and not overlaps.all():
            np.copyto(labels, propagated, where=~overlaps[islands])
    return labels


def degenerate(result: Result, refined: Labels, drawn_areas: Mapping[int, float]) -> dict[int, str]:
    """Objects whose refined mask cannot be right, with the reason.

    Args:
        result: of propagation.
        refined: object ids of a part of the frame that contains all objects.
        drawn_areas: largest area of each object in the masks that the user drew, in pixels.
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


def corrected_memory(
    propagated: Result, refined: Result, network: Floats, crop: Crop, stride: int
) -> Labels | None:
    """What memory should hold instead of the propagated labels, None where propagation still has all objects.

    Refined masks in memory help where propagation has lost an object, and harm elsewhere: the U-Net misses thin
    parts, and memory would forget them. The other objects keep the labels of features, see :meth:`Tracker.step`.

    Args:
        propagated, refined: results of the same frame.
        network: [1 + n, S, S] probabilities of the U-Net, in the order of the objects.
        crop: the part of the frame that the U-Net was shown.
        stride: pixels per feature.

    Returns:
        [H, W] object ids for :meth:`Tracker.revise`, which reads them at the features.
    """
    found, followed = network.argmax(0), crop.labels(propagated.labels)
    ids = [state.id for state in propagated.objects]
    still = [
        known
        for channel, known in enumerate(ids, start=1)
        if known in (refined.fallback_reasons or {})
        or intersection_over_union(found == channel, followed == known) >= AGREEMENT
    ]
    if len(still) == len(ids):
        return None
    features = np.array([0, *ids], np.uint8)[argmax_planes(propagated.probabilities)]
    corrected = keep_propagated(features, refined.labels[::stride, ::stride], still)
    height, width = refined.labels.shape
    return corrected.repeat(stride, 0).repeat(stride, 1)[:height, :width]


def unsure(ids: Sequence[int], direct: Floats, mirrored: Floats) -> dict[int, str]:
    """Objects whose mask changes when the U-Net sees the frame mirrored.

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
    """The refined labels, in which ``objects`` have exactly their propagated masks."""
    if not objects:
        return refined
    labels = np.where(np.isin(refined, list(objects)), 0, refined)
    return np.where(np.isin(propagated, list(objects)), propagated, labels).astype(np.uint8)


def _log(probabilities: Floats, weight: float) -> Floats:
    """Weighted logarithms; they overwrite the probabilities."""
    np.maximum(probabilities, FLOOR, out=probabilities)
    np.log(probabilities, out=probabilities)
    probabilities *= np.float32(weight)
    return probabilities
