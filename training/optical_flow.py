"""Optical flow over several frames (OpenCV's DIS), and where it is reliable."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ..common.types import Floats, Image

FLOW_SIDE = 240
"""Shorter side at which flow is computed, in pixels: takes a quarter of the time that 480 takes."""

MAX_ROUND_TRIP_ERROR = 1.0, 0.05
"""Limit of the distance between a pixel and where forward and backward flow lead it: so many pixels at
``FLOW_SIDE``, plus this fraction of the flow's length. Beyond it the pixel was occluded, left the frame or
was matched wrongly."""

MAX_GREY_CHANGE = 15.0
"""Limit of the mean change of grey levels around a pixel, from one frame to the next."""


def flow_to_last(frames: Sequence[Image]) -> tuple[Floats, Floats]:
    """Flow from the first of ``frames`` to the last, chained from frame to frame.

    Args:
        frames: two or more images [H, W, 3] uint8 RGB, in order of time.

    Returns:
        flow [H, W, 2], displacement in x and y in pixels; and reliable [H, W], 1 or 0.
    """
    height, width = frames[0].shape[:2]
    factor = min(1.0, FLOW_SIDE / min(height, width))
    size = max(16, round(width * factor)), max(16, round(height * factor))
    grey = [_grey(frame, size) for frame in frames]
    start = _pixel_grid(*size)
    positions, reliable = start, np.ones(start.shape[:2], np.float32)
    for earlier, later in pairwise(grey):
        flow, consistent = _flow(earlier, later)
        reliable = np.minimum(reliable, _sample(consistent, positions))
        positions = positions + _sample(flow, positions)
    displacement = np.asarray(cv2.resize(positions - start, (width, height)), np.float32)
    displacement = displacement * np.array([width / size[0], height / size[1]], np.float32)
    return displacement, np.asarray(cv2.resize(reliable, (width, height)) > 0.9, np.float32)


def _grey(frame: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _pixel_grid(width: int, height: int) -> Floats:
    """[H, W, 2]: x and y of every pixel."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (width, height))), axis=-1)


def _flow(earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Flow between neighbouring frames, and 1 where it is consistent with the backward flow and the colours."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    forward = np.asarray(dis.calc(earlier, later, None), np.float32)  # type: ignore[call-overload]
    backward = np.asarray(dis.calc(later, earlier, None), np.float32)  # type: ignore[call-overload]
    height, width = earlier.shape
    target = _pixel_grid(width, height) + forward
    error = np.linalg.norm(forward + _sample(backward, target), axis=-1)
    inside = ((target >= 0) & (target <= np.array([width, height]) - 1)).all(-1)
    change = np.abs(earlier.astype(np.float32) - _sample(later.astype(np.float32), target))
    similar = np.asarray(cv2.blur(change, (5, 5))) < MAX_GREY_CHANGE
    pixels, fraction = MAX_ROUND_TRIP_ERROR
    limit = pixels + fraction * np.linalg.norm(forward, axis=-1)
    return forward, ((error < limit) & inside & similar).astype(np.float32)


def _sample(field: Floats, positions: Floats) -> Floats:
    """Bilinear interpolation of ``field`` at ``positions`` [H, W, 2] (x, y)."""
    x, y = positions[..., 0], positions[..., 1]
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
