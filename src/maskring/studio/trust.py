"""Which frames deserve a look: where an object is lost, jumps, changes its size or is labelled without confidence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from ..common.types import Labels

FRAMES_SHOWN = 10

Measured = Mapping[int, Mapping[int, Sequence[float | None]]]
"""Frame -> object -> area in pixels, confidence (None for none), overlap with the frame tracked before it."""


@dataclass(frozen=True)
class Doubt:
    """A frame worth a look.

    Attributes:
        frame: its number.
        object: the object that is in doubt.
        reason: ``lost``, ``jump``, ``size`` or ``unsure``.
        score: from 0 to 1, larger for more doubt.
    """

    frame: int
    object: int
    reason: str
    score: float


def overlap(before: Labels | None, after: Labels, object_id: int) -> float | None:
    """Intersection over union of an object in two frames; None when neither shows it."""
    if before is None:
        return None
    one, other = before == object_id, after == object_id
    union = np.count_nonzero(one | other)
    return round(np.count_nonzero(one & other) / union, 4) if union else None


def doubtful_frames(
    measured: Measured, checked: Collection[int], objects: Collection[int], count: int = FRAMES_SHOWN
) -> list[Doubt]:
    """The frames most worth a look, in order of their numbers. Neighbours of a chosen frame are left out.

    Args:
        measured: what tracking measured.
        checked: frames that a user drew on or accepted.
        objects: the objects that exist.
        count: frames to choose.
    """
    doubts = [doubt for object_id in objects for doubt in _doubts(measured, object_id)]
    apart = max(2, len(measured) // (4 * count))
    chosen: list[Doubt] = []
    for doubt in sorted(doubts, key=lambda doubt: -doubt.score):
        near = any(abs(doubt.frame - other.frame) < apart for other in chosen)
        if doubt.frame not in checked and not near and len(chosen) < count:
            chosen.append(doubt)
    return sorted(chosen, key=lambda doubt: doubt.frame)


def _doubts(measured: Measured, object_id: int) -> list[Doubt]:
    """The doubt about one object on each frame that tracking gave a mask."""
    rows = [(frame, values[object_id]) for frame, values in sorted(measured.items()) if object_id in values]
    overlaps = [row[2] for _, row in rows if row[2] is not None]
    sure = [row[1] for _, row in rows if row[1] is not None]
    usual = median(overlaps) if overlaps else 1.0, median(sure) if sure else 1.0
    doubts, area_before = [], 0.0
    for frame, (area, confidence, overlapping) in rows:
        area = area or 0.0
        scores = {
            "lost": 1.0 if area_before and not area else 0.0,
            "jump": max(0.0, usual[0] - overlapping) if overlapping is not None else 0.0,
            "size": min(1.0, abs(math.log2(area / area_before))) if area and area_before else 0.0,
            "unsure": max(0.0, usual[1] - confidence) if confidence is not None else 0.0,
        }
        reason = max(scores, key=lambda name: scores[name])
        doubts.append(Doubt(frame, object_id, reason, round(scores[reason], 4)))
        area_before = area
    return doubts
