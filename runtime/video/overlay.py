"""Frames with their objects painted over them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Image
from .palette import PALETTE

LINES_PER_PIXEL = 960
"""Boundaries reach one pixel to either side of a change, plus one for every so many lines of the frame."""

FEW_LINES = 300
"""In frames with fewer lines, boundaries lie on one side of a change: objects are a few pixels wide there."""


def draw_overlay(
    image: Image,
    labels: NDArray[np.uint8],
    *,
    alpha: float = 0.5,
    contours: bool = True,
    palette: NDArray[np.uint8] | None = None,
) -> Image:
    """Paint objects in their colours over a frame, with bright boundaries.

    Args:
        image: [H, W, 3] uint8 RGB; it is not changed.
        labels: [H, W] uint8 object ids; 0, the background, stays unpainted.
        alpha: opacity of the objects, from 0 (only boundaries are visible) to 1.
        contours: draw boundaries.
        palette: [256, 3] uint8 RGB colour of each id; None for the colours of DAVIS.

    Returns:
        A new [H, W, 3] uint8 RGB image.

    Raises:
        ValueError: when the arrays have other types or sizes, or ``alpha`` is out of range.
    """
    if labels.ndim != 2 or not labels.size or image.shape != (*labels.shape, 3):
        raise ValueError(f"labels {list(labels.shape)} do not lie on an image {list(image.shape)}")
    if image.dtype != np.uint8 or labels.dtype != np.uint8 or not 0 <= alpha <= 1:
        raise ValueError(f"{labels.dtype} labels cannot be painted on a {image.dtype} image, alpha {alpha}")
    if palette is not None and (palette.shape != PALETTE.shape or palette.dtype != np.uint8):
        raise ValueError(f"a palette is uint8 [256, 3], not {palette.dtype} {list(palette.shape)}")
    labels = np.ascontiguousarray(labels)
    painted: Image = image.copy()
    tints = _TINTS if palette is None else _channels(palette)
    tint = cv2.addWeighted(image, 1 - alpha, _coloured(labels, tints), alpha, 0)
    cv2.copyTo(tint, (labels > 0).view(np.uint8), painted)
    if contours:
        _draw_boundaries(painted, labels, _LINES if palette is None else _channels(_bright(palette)))
    return painted


def _draw_boundaries(painted: Image, labels: NDArray[np.uint8], lines: tuple[NDArray[np.uint8], ...]) -> None:
    """Draw along every change of label, in the bright colour of the higher label beside it."""
    reach = 1 + labels.shape[0] // LINES_PER_PIXEL
    side = 2 if labels.shape[0] < FEW_LINES else 2 * reach + 1
    kernel = np.ones((side, side), np.uint8)
    highest = np.asarray(cv2.dilate(labels, kernel), np.uint8)
    changes = cv2.compare(highest, cv2.erode(labels, kernel), cv2.CMP_NE)
    cv2.copyTo(_coloured(highest, lines), changes, painted)


def _coloured(labels: NDArray[np.uint8], channels: tuple[NDArray[np.uint8], ...]) -> Image:
    """[H, W, 3] colours of labels [H, W], by a table of 256 values for each channel."""
    # Not cv2.applyColorMap: a Ctrl-C between its overloads makes OpenCV's bindings crash.
    return np.asarray(cv2.merge([cv2.LUT(labels, channel) for channel in channels]), np.uint8)


def _channels(palette: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    return tuple(np.ascontiguousarray(channel) for channel in palette.T)


def _bright(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The palette at full brightness and half way to white: readable on dark and on light frames."""
    colours = palette.astype(np.float32)
    full = colours * (255 / np.maximum(colours.max(axis=1, keepdims=True), 1))
    return np.asarray((full + 255) / 2, np.uint8)


_TINTS = _channels(PALETTE)
_LINES = _channels(_bright(PALETTE))
