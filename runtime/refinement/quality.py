"""How far to trust a propagated mask, per pixel and per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...common.types import Floats

AREA_JUMP = 3.0
"""An object this many times larger or smaller than in recent frames is not trusted at all."""

RECENT = 5
"""Number of recent frames whose areas count."""

LEAST_QUALITY = 0.1
"""Frames of lower quality are left out."""


def confidence(probabilities: NDArray[np.floating]) -> Floats:
    """Confidence [h, w]: 0 where all labels are equally probable, 1 where one is certain.

    Args:
        probabilities: [O, h, w].
    """
    labels = probabilities.shape[0]
    if labels < 2:
        return np.ones(probabilities.shape[1:], np.float32)
    best = probabilities.max(axis=0).astype(np.float32)
    return np.asarray(np.clip((best * labels - 1) / (labels - 1), 0, 1), np.float32)


def area_quality(area: float, recent: Sequence[float]) -> float:
    """1 when an area equals the median of the ``recent`` ones, 0 when it differs by :data:`AREA_JUMP` or more."""
    usual = float(np.median(recent[-RECENT:])) if recent else area
    jump = abs(np.log((area + 1) / (usual + 1)))
    return float(max(0.0, 1 - jump / np.log(AREA_JUMP)))


def frame_quality(
    confidences: Sequence[float | None], areas: Sequence[int], history: Sequence[Sequence[float]]
) -> float:
    """Quality of a propagated frame: mean over its objects of confidence times quality of the area.

    Args:
        confidences: per object, mean probability of its label where it is; None when it is not visible.
        areas: per object, in pixels.
        history: per object, its areas in the frames before.
    """
    each = [
        (confidence if confidence is not None else 0.5) * area_quality(area, recent)
        for confidence, area, recent in zip(confidences, areas, history, strict=True)
    ]
    return float(np.mean(each)) if each else 0.0
