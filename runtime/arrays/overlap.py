"""How far two masks agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def intersection_over_union(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two [H, W] masks, 0 to 1; 1 when both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
