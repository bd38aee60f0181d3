"""A video of the frame, its propagated mask, its refined mask, and the errors, side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ...common.types import Image, Labels
from ..tracking.result import Result
from ..video.frame import Frame
from ..video.masks import read_mask
from ..video.overlay import draw_overlay
from ..video.overlay_video import OverlayVideoSink

MISSED, ADDED = (60, 140, 255), (255, 70, 60)
"""Colours of pixels whose object was missed, and of pixels that were given to a wrong object."""

CAPTION_HEIGHT = 24


def draw_error(image: Image, labels: Labels, truth: Labels) -> Image:
    """A dimmed frame with its wrong pixels: blue where an object was missed, red where none belongs.

    Args:
        image: [H, W, 3] uint8 RGB.
        labels, truth: [H, W] object ids.
    """
    grey = np.repeat(image.mean(axis=2, keepdims=True) / 3, 3, axis=2).astype(np.uint8)
    grey[(labels != truth) & (truth > 0)] = MISSED
    grey[(labels != truth) & (labels > 0)] = ADDED
    return grey


def side_by_side(panels: dict[str, Image]) -> Image:
    """Pictures of equal size in a row, each under its caption."""
    return np.hstack([_captioned(caption, panel) for caption, panel in panels.items()])


def compare(image: Image, propagated: Labels, refined: Labels, truth: Labels | None = None) -> Image:
    """Input, propagation and refinement in a row, and the errors of refinement where the truth is known.

    Args:
        image: [H, W, 3] uint8 RGB.
        propagated, refined, truth: [H, W] object ids.
    """
    panels = {
        "input": image,
        "propagation": draw_overlay(image, propagated),
        "refined": draw_overlay(image, refined),
    }
    if truth is not None:
        panels["error: missed blue, added red"] = draw_error(image, refined, truth)
    return side_by_side(panels)


class ComparisonVideoSink(OverlayVideoSink):
    """An MP4 of input, propagation and refinement side by side.

    Args:
        path: where to; the suffix must be ``.mp4``.
        fps: frames per second.
        propagated: folder with the propagated mask of each frame, named like the frame.
        by_time: place pictures by the frames' timestamps.
    """

    def __init__(self, path: Path, fps: float, propagated: Path, *, by_time: bool = False) -> None:
        super().__init__(path, fps, by_time=by_time)
        self._propagated = propagated

    def _picture(self, frame: Frame, result: Result) -> Image:
        before = read_mask(self._propagated / f"{frame.name}.png", allow_empty=True)
        return compare(frame.image, before, result.labels)


def _captioned(caption: str, panel: Image) -> Image:
    height, width = panel.shape[:2]
    tile = np.full((height + CAPTION_HEIGHT, width, 3), 32, np.uint8)
    tile[CAPTION_HEIGHT:] = panel
    cv2.putText(tile, caption, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return tile
