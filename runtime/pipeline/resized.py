"""Tracking at another size than the stream's: frames and masks are scaled, labels scaled back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError, UserError
from ..arrays import label_maps
from ..tracking.tracker import Result, require_mask_of, require_pixels
from ..video.masks import Labels
from ..video.overlay import Image
from .loop import FrameTracker

LARGEST = 1 << 15
"""Pixels of the shorter side; memory would be sized by a mistake."""

SMOOTHING = 0.7
"""Standard deviation, in pixels of the smaller size, by which outlines are smoothed before they are enlarged:
enough that steps go, little enough that parts two pixels wide stay."""


class ResizedTracker:
    """A tracker that sees frames at another size, and whose labels have the stream's.

    Of a result, ``labels``, boxes and areas are of the stream's size; ``probabilities`` stay on the grid of
    the scaled frame.

    Args:
        tracker: one that has seen no frame of the stream; the caller closes it.
        size: pixels of the shorter side that it sees.

    Raises:
        UserError: when ``size`` is none of a frame.
    """

    def __init__(self, tracker: FrameTracker, size: int) -> None:
        if not 1 <= size <= LARGEST:
            raise UserError(
                f"frames cannot be tracked at {size} pixels", f"choose a size from 1 to {LARGEST}"
            )
        self._tracker, self._size = tracker, size
        self._staged: list[tuple[Image, Image]] = []  # frames to come, and what became of them

    def step(self, frame: Image, mask: Labels | None = None) -> Result:
        """Label the next frame, see :meth:`maskring.runtime.tracking.tracker.Tracker.step`.

        Raises:
            UserError: as there; MaskError also when nothing is left of an object at the smaller size.
        """
        started = time.perf_counter()
        require_pixels(frame)
        small = next((scaled for staged, scaled in self._staged if staged is frame), None)
        self._staged = [pair for pair in self._staged if pair[0] is not frame]
        small = self.reduced(frame) if small is None else small
        result = self._tracker.step(small, None if mask is None else self._reduced_mask(mask, frame, small))
        result = upscale_result(result, frame.shape[:2], mask)
        return result.delayed(time.perf_counter() - started - result.timings.total)

    def stage(self, frame: Image) -> None:
        """Say which frame follows the next one, see :meth:`maskring.runtime.tracking.tracker.Tracker.stage`.

        Raises:
            SourceError: when it is no frame.
        """
        require_pixels(frame)
        small = self.reduced(frame)
        self._staged = [*self._staged[-1:], (frame, small)]
        self._tracker.stage(small)

    def remove(self, object_id: int) -> None:
        """Stop following an object, see :meth:`maskring.runtime.tracking.tracker.Tracker.remove`."""
        self._tracker.remove(object_id)

    def reduced(self, frame: Image) -> Image:
        """The frame as the tracker sees it."""
        return scaled_to(frame, self._size)

    def _reduced_mask(self, mask: Labels, frame: Image, small: Image) -> Labels:
        require_mask_of(mask, frame.shape[:2])
        reduced = majority(mask, small.shape)
        lost = sorted(set(np.unique(mask).tolist()) - set(np.unique(reduced).tolist()) - {0})
        if lost:
            raise MaskError(
                f"nothing is left of object {lost[0]} at {self._size} pixels", "track at a larger --size"
            )
        return reduced


def upscale_result(result: Result, shape: tuple[int, ...], mask: Labels | None = None) -> Result:
    """A result whose labels, boxes and areas are those of a frame of another size.

    Args:
        result: of the scaled frame.
        shape: (H, W) of the frame.
        mask: [H, W] that the frame was given: what it says needs no scaling.
    """
    if result.labels.shape == shape[:2]:
        return result
    labels = smooth(result.labels, shape)
    if mask is not None:
        labels = label_maps.overwrite(labels, mask, np.unique(mask[mask > 0]).tolist())
    boxes = label_maps.boxes(labels, 1 + max((state.id for state in result.objects), default=0))
    areas = label_maps.areas(labels, boxes)
    objects = tuple(
        replace(state, area=areas.get(state.id, 0), box=boxes.get(state.id)) for state in result.objects
    )
    return replace(result, labels=labels, objects=objects)


def scaled_to(frame: Image, size: int | None) -> Image:
    """The frame with ``size`` pixels on its shorter side; None leaves it as it is.

    Raises:
        MemoryError: when there is no room for so large a one.
    """
    height, width = frame.shape[:2]
    if size is None or size == min(height, width):
        return frame
    scale = size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    try:
        return np.asarray(cv2.resize(frame, shape, interpolation=method), np.uint8)
    except cv2.error as error:  # of a frame and a size that are sound there is no other
        raise MemoryError(str(error)) from error


def majority(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Labels at another size; the label that covers most of a pixel wins.

    Nearest neighbours would move a mask by half a pixel when every second pixel is taken.
    """
    return _resized(labels, shape, lambda mask, size: cv2.resize(mask, size, interpolation=cv2.INTER_AREA))


def smooth(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Labels at another size; outlines are smoothed, so that they show no steps, and single pixels vanish."""

    def scaled(mask: NDArray[np.float32], size: tuple[int, int]) -> Any:
        return cv2.resize(cv2.GaussianBlur(mask, (0, 0), SMOOTHING), size, interpolation=cv2.INTER_CUBIC)

    return _resized(labels, shape, scaled)


def nearest(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Labels at another size; the pixel of the nearest centre decides."""
    if labels.shape == shape[:2]:
        return labels
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _resized(
    labels: Labels, shape: tuple[int, ...], scaled: Callable[[NDArray[np.float32], tuple[int, int]], Any]
) -> Labels:
    """Labels at another size; the one of the largest share of a pixel wins, the smallest of equals."""
    if labels.shape == shape[:2]:
        return labels
    ids, size = np.unique(labels), (shape[1], shape[0])
    masks = ((labels == label).astype(np.float32) for label in ids)
    shares = (np.asarray(scaled(mask, size), np.float32) for mask in masks)
    return np.asarray(ids[label_maps.leaders(shares)], np.uint8)
