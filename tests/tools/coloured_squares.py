"""A scene of coloured squares that move, for trackers that compare colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 49, 66  # no multiple of the stride
COLOURS = {1: (250, 40, 40), 2: (40, 250, 40), 3: (40, 40, 250), 7: (250, 250, 40), 200: (250, 40, 250)}


@dataclass(frozen=True)
class Square:
    """An object of one colour: its top left corner at frame 0 and its speed in pixels per frame."""

    id: int
    top: int
    left: int
    speed: int = 1
    side: int = 14


def scene(index: int, *squares: Square) -> tuple[np.ndarray, np.ndarray]:
    """Frame [H, W, 3] and true ids [H, W]."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    for square in squares:
        rows = slice(square.top, square.top + square.side)
        left = square.left + square.speed * index
        columns = slice(left, left + square.side)
        frame[rows, columns], truth[rows, columns] = COLOURS[square.id], square.id
    return frame, truth


def iou(labels: np.ndarray, truth: np.ndarray, object_id: int) -> float:
    """Overlap of an object with its true pixels, counted where features are centred."""
    ours, theirs = labels[::4, ::4] == object_id, truth[::4, ::4] == object_id
    return float((ours & theirs).sum() / max(1, (ours | theirs).sum()))


RED, GREEN, YELLOW = Square(1, 4, 4), Square(2, 30, 40, -1), Square(7, 24, 4)


def run(tracker: Tracker, frames: range, *squares: Square, masks: dict[int, np.ndarray]) -> Result:
    for index in frames:
        result = tracker.step(scene(index, *squares)[0], masks.get(index))
    return result
