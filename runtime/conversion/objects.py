"""The objects of a label map, one by one."""

from __future__ import annotations

import numpy as np

from ...common.types import Labels


def masks_of_objects(labels: Labels) -> list[tuple[int, Labels]]:
    """Each object in a label map [H, W], with its mask of 0 and 1, ascending by id."""
    return [(int(one), (labels == one).astype(np.uint8)) for one in np.unique(labels) if one]
