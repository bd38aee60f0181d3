"""What memory keeps of label probabilities: the best label of each feature, weighted by how sure it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...common.types import FloatMaps, Labels

LEAST_VOTE = 0.001
"""Weight of a remembered label of which the step was not sure at all. Part of the format of exported files."""


def write_votes(probabilities: FloatMaps, best: Labels, exponent: int, out: Iterable[FloatMaps]) -> None:
    """Fill ``out`` as :func:`maskring.training.network.label_probabilities.votes` does in the step graph.

    Args:
        probabilities: [O, h, w], O >= 2.
        best: [h, w], from :func:`maskring.runtime.arrays.upsampling.argmax_planes`.
        exponent: of the confidence; 0 gives every label weight 1.
        out: [O, h, w].
    """
    weight = _weight(probabilities, exponent) if exponent else 1
    for label, plane in enumerate(out):
        np.multiply(best == label, weight, out=plane, casting="unsafe")


def _weight(probabilities: FloatMaps, exponent: int) -> FloatMaps:
    first, second, *others = probabilities
    highest, runner_up = np.maximum(first, second), np.minimum(first, second)
    for plane in others:
        np.maximum(runner_up, np.minimum(highest, plane), out=runner_up)
        np.maximum(highest, plane, out=highest)
    weight: FloatMaps = np.maximum((highest - runner_up) ** exponent, highest.dtype.type(LEAST_VOTE))
    return weight
