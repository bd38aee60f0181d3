"""Which frames deserve a look: where an object is lost, or labelled softly, and far from what a user has checked.

How good the list is was measured with ``bench/doubtful_frames.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..common.types import FloatMaps, Labels
from ..runtime.arrays.overlap import intersection_over_union

FRAMES_SHOWN = 10

SOFTNESS_SPREAD, DISTANCE_SPREAD = 0.17, 0.29
"""Standard deviations over five of the sequences that bench/doubtful_frames.py tracks, so that both count alike."""

LOST = 100.0
"""Score of a frame where an object disappears."""

Measured = Mapping[int, Mapping[int, Sequence[float | None]]]
"""Frame -> object -> area in pixels, confidence (None for none), overlap with the frame tracked before it, softness.

Projects of version 0.1.0 have no softness.
"""


@dataclass(frozen=True)
class Doubt:
    """A frame worth a look.

    Attributes:
        frame: its number.
        object: the object that is in doubt.
        reason: ``lost``, ``soft`` (its edge is, or there is much between it and the background) or ``far`` (from the
            frames that a user checked).
        score: larger for more doubt.
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
    return round(intersection_over_union(one, other), 4) if (one | other).any() else None


def softness(probabilities: FloatMaps, position: int) -> float | None:
    """How much of an object is neither it nor background: from 0 for a mask of zeros and ones up to 4.

    Args:
        probabilities: [1 + O, h, w] of a result.
        position: of the object among the result's objects.

    Returns:
        The sum of 4 p (1 - p) over that of p; None when the object is nowhere.
    """
    p = np.asarray(probabilities[1 + position], np.float32)
    total = float(p.sum())
    return round(float((4 * p * (1 - p)).sum()) / total, 4) if total > 0.5 else None


def doubtful_frames(
    measured: Measured, checked: Collection[int], objects: Collection[int], count: int = FRAMES_SHOWN
) -> list[Doubt]:
    """The frames most worth a look, in order of their numbers.

    Args:
        measured: what tracking measured.
        checked: frames that a user drew on or accepted.
        objects: the objects that exist.
        count: frames to choose.
    """
    return most_doubtful(doubts_about(measured, checked, objects), len(measured), count)


def doubts_about(measured: Measured, checked: Collection[int], objects: Collection[int]) -> list[Doubt]:
    """The doubt about each object on each frame that was not checked, see :func:`doubtful_frames`."""
    distances = _distances(sorted(measured), sorted(checked))
    every = [doubt for object_id in objects for doubt in _doubts(measured, object_id, distances)]
    return [doubt for doubt in every if doubt.frame not in checked]


def most_doubtful(doubts: Iterable[Doubt], frames: int, count: int = FRAMES_SHOWN) -> list[Doubt]:
    """The highest scores, in order of frames. Neighbours of a chosen frame are left out: they look alike.

    Args:
        doubts: of all frames.
        frames: how many there are.
        count: frames to choose.
    """
    apart = max(2, frames // (4 * count))
    chosen: list[Doubt] = []
    for doubt in sorted(doubts, key=lambda doubt: -doubt.score):
        if len(chosen) == count:
            break
        if doubt.score > 0 and not any(abs(doubt.frame - other.frame) < apart for other in chosen):
            chosen.append(doubt)
    return sorted(chosen, key=lambda doubt: doubt.frame)


def _doubts(measured: Measured, object_id: int, distances: Mapping[int, float]) -> list[Doubt]:
    """The doubt about one object on each frame that tracking gave a mask."""
    doubts, seen_before = [], False
    for frame in sorted(measured):
        row = measured[frame].get(object_id)
        if row is None:
            continue
        soft = row[3] if len(row) > 3 and row[3] is not None else 0.0
        scores = {"soft": soft / SOFTNESS_SPREAD, "far": distances[frame] / DISTANCE_SPREAD}
        reason = max(scores, key=lambda name: scores[name]) if row[0] else "lost"
        lost_here = seen_before and not row[0]
        doubts.append(Doubt(frame, object_id, reason, LOST if lost_here else round(sum(scores.values()), 4)))
        seen_before = bool(row[0])
    return doubts


def _distances(frames: Sequence[int], checked: Sequence[int]) -> dict[int, float]:
    """Frame -> how far the nearest checked one is, as a share of all frames; 0 where none is checked."""
    if not checked or not frames:
        return dict.fromkeys(frames, 0.0)
    every, known = np.array(frames), np.array(checked)
    after = np.searchsorted(known, every).clip(max=len(known) - 1)
    nearest = np.minimum(np.abs(known[after] - every), np.abs(known[(after - 1).clip(min=0)] - every))
    return dict(zip(frames, (nearest / max(1, frames[-1] - frames[0])).tolist(), strict=True))
