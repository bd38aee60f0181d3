"""The DAVIS measures: how well predicted masks agree with annotated ones.

Region similarity J and boundary accuracy F follow Perazzi et al., *A Benchmark Dataset and Evaluation
Methodology for Video Object Segmentation* (CVPR 2016), as the official toolkit
(davisvideochallenge/davis2017-evaluation) computes them; which frames count for an object follows PyPI's
``vos-benchmark``. ``docs/evaluation.md`` compares the three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Labels
from ..arrays.overlap import intersection_over_union

BOUNDARY_TOLERANCE = 0.008
"""Largest distance at which two boundaries match, as a fraction of the image diagonal (DAVIS)."""

RECALL_THRESHOLD = 0.5
DECAY_BINS = 4


@dataclass(frozen=True)
class Measure:
    """Statistics of one measure of one object over the frames of a sequence, in percent.

    Attributes:
        mean: mean over frames.
        recall: share of frames that score above one half.
        decay: mean over the first quarter of the frames minus mean over the last quarter.
    """

    mean: float
    recall: float
    decay: float

    @classmethod
    def of_frames(cls, values: list[float]) -> Measure:
        """Summarise per-frame values in 0..1, in temporal order; DAVIS's bins share their end frames.

        The official toolkit stores the ends of the bins in 8 bits. Here they are exact, also beyond 256 frames.
        """
        scores = np.asarray(values, np.float64)
        ends = np.round(np.linspace(1, len(scores), DECAY_BINS + 1) + 1e-10).astype(int) - 1
        first, last = scores[: ends[1] + 1], scores[ends[-2] :]
        return cls(
            mean=100 * float(scores.mean()),
            recall=100 * float((scores > RECALL_THRESHOLD).mean()),
            decay=100 * float(first.mean() - last.mean()),
        )

    @classmethod
    def of_objects(cls, measures: list[Measure]) -> Measure:
        """The mean of each statistic over objects. Each object counts once, whatever its length or size."""
        return cls(
            mean=float(np.mean([measure.mean for measure in measures])),
            recall=float(np.mean([measure.recall for measure in measures])),
            decay=float(np.mean([measure.decay for measure in measures])),
        )


@dataclass(frozen=True)
class Score:
    """J (region similarity) and F (boundary accuracy) of an object, or their means over objects."""

    j: Measure
    f: Measure

    @property
    def jf(self) -> float:
        """J&F, the mean of both means, in percent."""
        return (self.j.mean + self.f.mean) / 2

    @classmethod
    def of_objects(cls, scores: list[Score]) -> Score:
        """Means over objects."""
        return cls(
            Measure.of_objects([score.j for score in scores]),
            Measure.of_objects([score.f for score in scores]),
        )


class SequenceScorer:
    """Accumulates J and F per object, one frame at a time.

    An object's frames count from the first one in which it appears, annotated or predicted; objects that are
    only predicted do not count (``vos-benchmark``'s convention).
    """

    def __init__(self) -> None:
        self._annotated: set[int] = set()
        self._seen: set[int] = set()
        self._j: dict[int, list[float]] = {}
        self._f: dict[int, list[float]] = {}

    def add(self, prediction: Labels, truth: Labels) -> None:
        """Score one frame; both maps are [H, W] and of equal size."""
        annotated = _objects(truth)
        visible = annotated | _objects(prediction)
        self._annotated |= annotated
        self._seen |= visible
        for object_id in self._seen:
            j, f = _frame_scores(prediction, truth, object_id) if object_id in visible else (1.0, 1.0)
            self._j.setdefault(object_id, []).append(j)
            self._f.setdefault(object_id, []).append(f)

    def scores(self) -> dict[int, Score]:
        """Scores of all annotated objects seen so far, by object id."""
        return {
            object_id: Score(Measure.of_frames(self._j[object_id]), Measure.of_frames(self._f[object_id]))
            for object_id in sorted(self._annotated)
        }


def boundary_accuracy(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], tolerance: int) -> float:
    """F: harmonic mean of the precision and recall of the boundary of a [H, W] mask, in 0..1.

    Args:
        prediction, truth: masks of equal size.
        tolerance: radius in pixels of the disk within which boundaries match, see :func:`boundary_tolerance`.
    """
    predicted_edge, true_edge = boundary(prediction), boundary(truth)
    predicted_length, true_length = cv2.countNonZero(predicted_edge), cv2.countNonZero(true_edge)
    if predicted_length == 0 or true_length == 0:
        return float(predicted_length == true_length)
    disk = _disk(tolerance)
    matched = cv2.countNonZero(cv2.bitwise_and(predicted_edge, cv2.dilate(true_edge, disk)))
    reached = cv2.countNonZero(cv2.bitwise_and(true_edge, cv2.dilate(predicted_edge, disk)))
    precision, recall = matched / predicted_length, reached / true_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_tolerance(height: int, width: int) -> int:
    """Largest distance in pixels at which boundaries match in a ``height`` x ``width`` frame, rounded up."""
    return math.ceil(BOUNDARY_TOLERANCE * float(np.linalg.norm((height, width))))


def boundary(mask: NDArray[np.bool_]) -> Labels:
    """Boundary of a [H, W] mask: 1 where a pixel differs from its right, lower or lower right neighbour.

    It is one pixel wide and half a pixel towards the origin from the true boundary (``seg2bmap`` of the
    Berkeley benchmark, which DAVIS adopted). The frame's last row and column know one neighbour each, the
    last pixel none.
    """
    edge = np.zeros(mask.shape, np.bool_)
    right, below = mask[:, :-1] ^ mask[:, 1:], mask[:-1] ^ mask[1:]
    edge[:, :-1] = right
    edge[:-1] |= below
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge.view(np.uint8)


def _frame_scores(prediction: Labels, truth: Labels, object_id: int) -> tuple[float, float]:
    """J and F of an object that is in at least one of the maps. Only its surroundings are computed."""
    predicted, true = prediction == object_id, truth == object_id
    crop = _bounding_crop(predicted | true)
    tolerance = boundary_tolerance(*truth.shape)
    predicted, true = predicted[crop], true[crop]
    return intersection_over_union(predicted, true), boundary_accuracy(predicted, true, tolerance)


def _bounding_crop(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Bounding box of a mask with a margin of one pixel, so that it contains the whole boundary."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def _objects(labels: Labels) -> set[int]:
    """Ids of the objects in a label map."""
    return set(np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256])).tolist()) - {0}


def _disk(radius: int) -> Labels:
    """All pixels at most ``radius`` away from the centre of a (2 * radius + 1)^2 square."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
