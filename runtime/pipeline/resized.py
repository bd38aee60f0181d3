"""Tracking at another size than the stream's: frames and masks are scaled, labels scaled back."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ...common.errors import MaskError, UserError
from ...common.types import Image, Labels
from ..arrays import label_maps
from ..arrays.resizing import majority, scaled_to, smooth
from ..tracking.checks import check_frame, check_mask
from ..tracking.objects import remeasure
from ..tracking.result import Result
from .loop import FrameTracker

LARGEST = 1 << 15
"""Pixels of the shorter side; memory would be sized by a mistake."""


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
        self._prefetched: list[tuple[Image, Image]] = []  # frames to come, and what became of them

    def step(self, frame: Image, mask: Labels | None = None) -> Result:
        """Label the next frame, see :meth:`maskring.runtime.tracking.tracker.Tracker.step`.

        Raises:
            UserError: as there; MaskError also when nothing is left of an object at the smaller size.
        """
        started = time.perf_counter()
        check_frame(frame)
        small = next((scaled for given, scaled in self._prefetched if given is frame), None)
        self._prefetched = [pair for pair in self._prefetched if pair[0] is not frame]
        small = self.reduced(frame) if small is None else small
        result = self._tracker.step(small, None if mask is None else self._reduced_mask(mask, frame, small))
        result = upscale_result(result, frame.shape[:2], mask)
        return result.delayed(time.perf_counter() - started - result.timings.total)

    def prefetch(self, frame: Image) -> None:
        """Say which frame follows the next one, see :meth:`maskring.runtime.tracking.tracker.Tracker.prefetch`.

        Raises:
            SourceError: when it is no frame.
        """
        check_frame(frame)
        small = self.reduced(frame)
        self._prefetched = [*self._prefetched[-1:], (frame, small)]
        self._tracker.prefetch(small)

    def remove(self, object_id: int) -> None:
        """Stop following an object, see :meth:`maskring.runtime.tracking.tracker.Tracker.remove`."""
        self._tracker.remove(object_id)

    def reduced(self, frame: Image) -> Image:
        """The frame as the tracker sees it."""
        return scaled_to(frame, self._size)

    def _reduced_mask(self, mask: Labels, frame: Image, small: Image) -> Labels:
        check_mask(mask, frame.shape[:2])
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
