"""The part of a frame that the U-Net is shown: the surroundings of the objects, scaled to a square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Floats, Image, Labels
from ..arrays.label_maps import Box
from ..tracking.result import ObjectState

MIN_FRACTION = 0.25
"""Smallest crop, as a fraction of the frame's width and height, however small the objects are."""


@dataclass(frozen=True)
class Crop:
    """A part of a frame, scaled to a square without keeping the aspect ratio, as in arXiv 2006.12480.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the frame, x1 and y1 exclusive.
        size: side of the square in pixels, S.
    """

    box: Box
    size: int

    @classmethod
    def around(cls, objects: Sequence[ObjectState], shape: tuple[int, int], size: int, margin: float) -> Crop:
        """The box around all visible objects, ``margin`` times as wide and high.

        Args:
            objects: tracked objects; without a visible one the crop is the whole frame.
            shape: (H, W) of the frame.
            size: side of the square in pixels.
            margin: 1 for the box itself, 0 for the whole frame.
        """
        boxes = [state.box for state in objects if state.box is not None]
        height, width = shape
        if not boxes or not margin:
            return cls((0, 0, width, height), size)
        left, top, right, bottom = zip(*boxes, strict=True)
        x0, x1 = _widened(min(left), max(right), width, margin)
        y0, y1 = _widened(min(top), max(bottom), height, margin)
        return cls((x0, y0, x1, y1), size)

    def image(self, frame: Image) -> Image:
        """The crop [S, S, 3] of a frame [H, W, 3]."""
        return np.asarray(self._scaled(frame, cv2.INTER_AREA), np.uint8)

    def labels(self, labels: Labels) -> Labels:
        """The crop [S, S] of labels [H, W]."""
        return np.asarray(self._scaled(labels, cv2.INTER_NEAREST_EXACT), np.uint8)

    def values(self, part: Floats) -> Floats:
        """Scale a map of the cropped pixels, [y1 - y0, x1 - x0], to [S, S]."""
        return np.asarray(
            cv2.resize(part, (self.size, self.size), interpolation=cv2.INTER_LINEAR), np.float32
        )

    def pixels(self, seen: Floats) -> Floats:
        """Scale a map [S, S] back to the cropped pixels, [y1 - y0, x1 - x0]."""
        x0, y0, x1, y1 = self.box
        return np.asarray(cv2.resize(seen, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR), np.float32)

    def features(self, seen: Floats, shape: tuple[int, ...], stride: int) -> Floats:
        """A map [S, S] at the features of the whole frame, ``shape`` = (h, w); beyond the crop its border is repeated.

        Args:
            stride: pixels per feature.
        """
        x0, y0, x1, y1 = self.box
        across, down = self.size / (x1 - x0), self.size / (y1 - y0)
        placement = np.array(
            [
                [stride * across, 0, (0.5 - x0) * across - 0.5],
                [0, stride * down, (0.5 - y0) * down - 0.5],
            ]
        )
        smooth = cv2.blur(seen, (3, 3))  # features are about as far apart
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        sampled = cv2.warpAffine(smooth, placement, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled, np.float32)

    def _scaled(self, pixels: NDArray[np.generic], method: int) -> NDArray[np.generic]:
        x0, y0, x1, y1 = self.box
        part = np.ascontiguousarray(pixels[y0:y1, x0:x1])
        return cv2.resize(part, (self.size, self.size), interpolation=method)


def _widened(start: int, stop: int, length: int, margin: float) -> tuple[int, int]:
    """Lengthen an interval ``margin`` times around its middle, and move it into [0, length]."""
    widened = min(length, max(round((stop - start) * margin), round(MIN_FRACTION * length), 1))
    first = min(max(0, round((start + stop - widened) / 2)), length - widened)
    return first, first + widened
