"""Frames and label maps at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from ...common.types import Floats, Image, Labels
from .upsampling import argmax_planes

SMOOTHING = 0.7
"""Standard deviation of the blur before outlines are enlarged, in pixels of the smaller size. Large enough to
hide steps, small enough to keep parts that are two pixels wide."""


def scaled_to(frame: Image, size: int | None) -> Image:
    """Scale a frame to ``size`` pixels on its shorter side; None returns it unchanged.

    Raises:
        MemoryError: when the scaled frame does not fit into memory.
    """
    height, width = frame.shape[:2]
    if size is None or size == min(height, width):
        return frame
    scale = size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    try:
        return np.asarray(cv2.resize(frame, shape, interpolation=method), np.uint8)
    except cv2.error as error:  # of a valid frame and size, memory is the only cause
        raise MemoryError(str(error)) from error


def majority(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Shrink labels to ``shape`` (H, W): each pixel takes the label that covers most of it.

    Nearest-neighbour sampling would move a mask by half a pixel when every second pixel is taken.
    """
    return _largest_share(
        labels, shape, lambda mask, size: cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    )


def smooth(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Enlarge labels to ``shape`` (H, W) with smooth outlines; single pixels vanish."""

    def enlarge(mask: Floats, size: tuple[int, int]) -> Any:
        return cv2.resize(cv2.GaussianBlur(mask, (0, 0), SMOOTHING), size, interpolation=cv2.INTER_CUBIC)

    return _largest_share(labels, shape, enlarge)


def _largest_share(
    labels: Labels, shape: tuple[int, ...], resize: Callable[[Floats, tuple[int, int]], Any]
) -> Labels:
    """Resize the mask of each label; the largest share of a pixel wins, the smallest label of equals."""
    if labels.shape == shape[:2]:
        return labels
    ids, size = np.unique(labels), (shape[1], shape[0])
    masks = ((labels == label).astype(np.float32) for label in ids)
    shares = (np.asarray(resize(mask, size), np.float32) for mask in masks)
    return np.asarray(ids[argmax_planes(shares)], np.uint8)
