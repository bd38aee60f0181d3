"""Tracking at another size: frames and masks are scaled for the tracker, labels are scaled back."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ...common.errors import MaskError, UserError
from ...common.types import ArrayLike, Image, Labels
from ..arrays import label_maps
from ..arrays.resizing import majority, scaled_to, smooth
from ..tracking.checks import as_image, as_mask
from ..tracking.objects import remeasure
from ..tracking.result import Result
from .loop import FrameTracker

MAX_SIZE = 1 << 15
"""Pixels of the shorter side; a larger number is a mistake that would exhaust the memory."""


class ResizedTracker:
    """A tracker that sees scaled frames and returns labels at the size of the stream.

    A result's ``labels``, boxes and areas refer to the stream's frames; its ``probabilities`` stay on the grid
    of the scaled frame.

    Args:
        tracker: has seen no frame of the stream; the caller closes it.
        size: shorter side of the frames that the tracker sees, in pixels.

    Raises:
        UserError: when ``size`` is out of range.
    """

    def __init__(self, tracker: FrameTracker, size: int) -> None:
        if not 1 <= size <= MAX_SIZE:
            raise UserError(
                f"a frame size of {size} pixels is out of range", f"choose a size from 1 to {MAX_SIZE}"
            )
        self._tracker, self._size = tracker, size
        self._prefetched: list[tuple[ArrayLike, Image]] = []  # upcoming frames, each with its scaled copy

    def step(self, frame: ArrayLike, mask: ArrayLike | None = None) -> Result:
        """Label the next frame, see :meth:`maskring.runtime.tracking.tracker.Tracker.step`.

        Raises:
            UserError: as there; MaskError also when an object covers no pixel at the smaller size.
        """
        started = time.perf_counter()
        image = as_image(frame)
        small = next((scaled for given, scaled in self._prefetched if given is frame), None)
        self._prefetched = [pair for pair in self._prefetched if pair[0] is not frame]
        small = self.reduced(image) if small is None else small
        ids = None if mask is None else as_mask(mask, image.shape)
        result = self._tracker.step(small, None if ids is None else self._reduced_mask(ids, small))
        result = upscale_result(result, image.shape[:2], ids)
        return result.delayed(time.perf_counter() - started - result.timings.total)

    def prefetch(self, frame: ArrayLike) -> None:
        """Announce the frame after the next one, see :meth:`Tracker.prefetch`.

        Raises:
            SourceError: when it is not a frame.
        """
        small = self.reduced(as_image(frame))
        self._prefetched = [*self._prefetched[-1:], (frame, small)]
        self._tracker.prefetch(small)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object, see :meth:`Tracker.remove`."""
        self._tracker.remove(object_id)

    def reduced(self, frame: Image) -> Image:
        """The frame as the tracker sees it."""
        return scaled_to(frame, self._size)

    def _reduced_mask(self, mask: Labels, small: Image) -> Labels:
        reduced = majority(mask, small.shape)
        lost = sorted(set(np.unique(mask).tolist()) - set(np.unique(reduced).tolist()) - {0})
        if lost:
            raise MaskError(
                f"nothing is left of object {lost[0]} at {self._size} pixels", "track at a larger --size"
            )
        return reduced


def upscale_result(result: Result, shape: tuple[int, ...], mask: Labels | None = None) -> Result:
    """Scale the labels, boxes and areas of a result to another frame size.

    Args:
        result: the result of the scaled frame.
        shape: (H, W) of the frame.
        mask: [H, W] object ids that the frame was given; its pixels are taken over unscaled.
    """
    if result.labels.shape == shape[:2]:
        return result
    labels = upscale_labels(result.labels, shape, mask)
    return replace(result, labels=labels, objects=remeasure(result.objects, labels))


def upscale_labels(labels: Labels, shape: tuple[int, ...], mask: Labels | None = None) -> Labels:
    """Bring a tracker's labels to another size. ``track --size`` and ``evaluate --size`` both use this.

    Args:
        labels: [h, w] object ids of the scaled frame.
        shape: (H, W) to bring them to; labels that have it are returned as they are.
        mask: [H, W] object ids that the frame was given; its pixels are taken over unscaled.

    Returns:
        [H, W] object ids.
    """
    if labels.shape == shape[:2]:
        return labels
    labels = smooth(labels, shape)
    return labels if mask is None else label_maps.overwrite(labels, mask, np.unique(mask[mask > 0]).tolist())
