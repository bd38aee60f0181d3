"""Augmentation that keeps correspondences: every frame of a window is changed in the same way."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..common.types import Image

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def augment(
    frames: list[Image], rng: np.random.Generator, *, crop: int, zoom: float, distortion: float
) -> npt.NDArray[np.uint8]:
    """Crop a random square from all frames of a window, mirror it half of the time, and distort its colours.

    Args:
        frames: F images [H, W, 3] uint8 RGB of one size.
        crop: side of the result, in pixels.
        zoom: smallest side of the square, as a fraction of the short side.
        distortion: largest relative change of brightness, contrast and saturation; the gain of each colour
            channel changes by up to a third of it.

    Returns:
        [F, 3, crop, crop] uint8 RGB.
    """
    height, width = frames[0].shape[:2]
    side = max(1, round(min(height, width) * rng.uniform(zoom, 1.0)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    mirrored = rng.random() < 0.5
    colours = colour_distortion(rng, distortion)
    views = []
    for frame in frames:
        method = cv2.INTER_AREA if side > crop else cv2.INTER_LINEAR
        view = cv2.resize(frame[top : top + side, left : left + side], (crop, crop), interpolation=method)
        view = view[:, ::-1] if mirrored else view
        views.append(distort(np.asarray(view, np.uint8), colours).transpose(2, 0, 1))
    return np.stack(views)


def colour_distortion(rng: np.random.Generator, strength: float) -> npt.NDArray[np.float32]:
    """A random affine map of RGB colours, [3, 4]."""
    brightness, contrast, saturation = rng.uniform(-strength, strength, 3)
    gains = 1 + rng.uniform(-strength, strength, 3) / 3
    matrix = (1 + saturation) * np.eye(3) - saturation * LUMINANCE[None, :]
    matrix = gains[:, None] * matrix * (1 + contrast)
    offset = 255 * brightness - 127.5 * contrast
    return np.concatenate([matrix, np.full((3, 1), offset)], axis=1).astype(np.float32)


def distort(image: Image, colours: npt.NDArray[np.float32]) -> Image:
    """Apply a colour map [3, 4] to an image [H, W, 3] uint8 RGB."""
    changed = cv2.transform(np.ascontiguousarray(image), colours)  # rounds and saturates
    return changed.astype(np.uint8, copy=False)
