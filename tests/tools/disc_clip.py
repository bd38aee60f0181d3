"""A clip whose truth is known, and a tracker for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pixel_backend import PixelBackend

from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker

SIZE = 64
OBJECT, OTHER = 3, 7
QUICK = RefinementSettings(size=SIZE, margin=0, width=8, iterations=60, buffer=8, learning_rate=5e-3)

Frames = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def clip(length: int, *, objects: int = 1) -> Frames:
    """Frames [64, 64, 3] and their labels: a red disc moves over textured ground, a green one meets it."""
    ground = np.random.default_rng(0).integers(60, 110, (SIZE, SIZE, 3), dtype=np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    frames = []
    for index in range(length):
        image, labels = ground.copy(), np.zeros((SIZE, SIZE), np.uint8)
        discs = [((20 + index, 24), (220, 40, 40), OBJECT), ((44 - index, 46), (40, 220, 40), OTHER)]
        for (cx, cy), colour, object_id in discs[:objects]:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < 100
            image[inside], labels[inside] = colour, object_id
        frames.append((image, labels))
    return frames


def only(labels: NDArray[np.uint8], object_id: int) -> NDArray[np.uint8]:
    """Labels without the other objects."""
    return np.where(labels == object_id, labels, 0).astype(np.uint8)


def new_tracker() -> Tracker:
    """A tracker that compares colours."""
    return Tracker(PixelBackend(), policy=MemoryPolicy((0,), (1, 2)))


def overlap(labels: NDArray[np.uint8], truth: NDArray[np.uint8], object_id: int = OBJECT) -> float:
    """Intersection over union of an object's masks."""
    return intersection_over_union(labels == object_id, truth == object_id)
