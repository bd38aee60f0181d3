"""Label maps in pixels: relabelling, sampling on the grid of features, boxes and areas.

No Python loop runs over pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import MAX_LABELS, FloatMaps, Floats, Labels

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels. x1 and y1 are exclusive."""

_LABELS_PER_PASS = 8
"""Bits of a uint8: :func:`boxes` searches for so many labels at once."""


def relabel(labels: Labels, new_labels: NDArray[np.uint8]) -> Labels:
    """Replace each label l by ``new_labels[l]``; returns a new map.

    Args:
        labels: [H, W].
        new_labels: [256].
    """
    return np.asarray(cv2.LUT(np.ascontiguousarray(labels), new_labels), np.uint8)


def overwrite(labels: Labels, drawn: Labels, redrawn: list[int]) -> Labels:
    """Merge a label map drawn by the user into a propagated one.

    Args:
        labels: [H, W] propagated labels.
        drawn: [H, W] labels drawn by the user, 0 where nothing was drawn.
        redrawn: the labels in ``drawn``. Their propagated pixels become background first.
    """
    unchanged = np.arange(MAX_LABELS, dtype=np.uint8)
    unchanged[redrawn] = 0
    return np.where(drawn > 0, drawn, relabel(labels, unchanged))


def sample(labels: Labels, num_labels: int, stride: int) -> Floats:
    """One-hot label maps [O, h, w] of the pixels (stride * i, stride * j), the centres of the features."""
    is_label = labels[::stride, ::stride] == np.arange(num_labels).reshape(-1, 1, 1)
    return np.asarray(is_label, np.float32)


def boxes(labels: Labels, num_labels: int) -> dict[int, Box]:
    """Bounding box of each label from 1 to ``num_labels`` - 1 that occurs in ``labels`` [H, W].

    Eight labels are found per pass: each becomes one bit, and rows and columns are combined with OR.
    """
    box_of_label = {}
    for first in range(1, num_labels, _LABELS_PER_PASS):
        group = np.arange(first, min(first + _LABELS_PER_PASS, num_labels))
        one_bit_each = num_labels <= _LABELS_PER_PASS  # background included
        bits = np.zeros(MAX_LABELS, np.uint8)
        bits[group] = 1 << (group if one_bit_each else group - first)
        # A shift is faster than the table, and does the same where every label has its own bit.
        marked = np.left_shift(np.uint8(1), labels) if one_bit_each else relabel(labels, bits)
        rows = np.bitwise_or.reduce(marked, axis=1)
        columns = np.bitwise_or.reduce(marked, axis=0)
        for label in group:
            y, x = np.flatnonzero(rows & bits[label]), np.flatnonzero(columns & bits[label])
            if y.size:
                box_of_label[int(label)] = (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
    return box_of_label


def areas(labels: Labels, boxes: dict[int, Box]) -> dict[int, int]:
    """Pixels of each label in ``boxes``, counted inside its box."""
    return {
        label: int(np.count_nonzero(labels[y0:y1, x0:x1] == label))
        for label, (x0, y0, x1, y1) in boxes.items()
    }


def mean_confidences(labels: Labels, probabilities: FloatMaps, stride: int) -> dict[int, float]:
    """Mean probability of each object label over the features that it covers.

    Labels that cover no feature are left out, and so is background.

    Args:
        labels: [H, W].
        probabilities: [O, h, w].
        stride: pixels per feature.
    """
    winners = labels[::stride, ::stride].ravel()
    places = np.flatnonzero(winners)  # most of a frame is background
    winners = winners[places]
    certainty = probabilities.reshape(len(probabilities), -1)[winners, places]
    covered = np.bincount(winners)
    total = np.bincount(winners, weights=certainty)
    return {int(label): float(total[label] / covered[label]) for label in np.flatnonzero(covered)}
