"""Layers that both views of a pair show: the frame itself, and pieces of other frames with soft edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.types import Image

FloatArray = NDArray[Any]
"""float32; numpy types the result of arithmetic on float32 too loosely for :data:`..common.types.Floats`."""

PIECE_SIDES = 0.25, 0.7
"""Smallest and largest side of a piece, in sides of the view."""

MAX_ROTATION, ASPECT_DEVIATION = 0.35, 0.15
"""Largest rotation in radians, and standard deviation of the logarithm of the aspect ratio."""

MAX_SHIFT = 0.3
"""Largest distance between the centres of both views along an axis, as a fraction of their side."""

FLIP_PROBABILITY, CUT_PROBABILITY = 0.2, 0.5
"""How often only one view is mirrored, and how often a view of a piece lacks a part of it."""


@dataclass(frozen=True)
class Layer:
    """Something that both views show.

    Attributes:
        images: per view, [H, W, 3] uint8 RGB; the same image, or an earlier and a later frame.
        opacity: per view, [H, W] from 0 to 1; None where the layer is opaque everywhere.
        maps: per view, the affine map [2, 3] from pixels of the view (x, y, 1) to pixels of the image.
        flow: from the first image to the second, [H, W, 2] in pixels; None when they are the same.
        reliable: where the flow is reliable, [H, W] 0 or 1; None without flow.
    """

    images: tuple[Image, Image]
    opacity: tuple[FloatArray | None, FloatArray | None]
    maps: tuple[FloatArray, FloatArray]
    flow: FloatArray | None = None
    reliable: FloatArray | None = None


def background(
    frames: Sequence[Image],
    flow: tuple[FloatArray, FloatArray] | None,
    rng: np.random.Generator,
    crop: int,
    zoom: float,
) -> Layer:
    """The first and the last frame, each seen through its own affine map around nearby centres.

    Args:
        frames: of one size.
        flow: from the first frame to the last, and where it is reliable, see :class:`Layer`.
        rng: draws the maps.
        crop: side of the views, in pixels.
        zoom: smallest share of a frame's shorter side that a view shows.
    """
    height, width = frames[0].shape[:2]
    short = min(height, width)
    side = short * rng.uniform(zoom, 1.0)
    ratio = np.exp(rng.uniform(np.log(0.6), np.log(1.6)))
    sides = (side, min(short, side * ratio))
    margin = side / 2
    centre = np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * side
    mirrored = [bool(rng.random() < 0.5)] * 2
    if rng.random() < FLIP_PROBABILITY:  # as of an object that turned round
        mirrored[1] = not mirrored[1]
    maps = tuple(
        _affine(rng, crop, sides[view], centre + view * shift, mirrored=mirrored[view]) for view in (0, 1)
    )
    return Layer((frames[0], frames[-1]), (None, None), (maps[0], maps[1]), *(flow or (None, None)))


def piece(image: Image, rng: np.random.Generator, crop: int) -> Layer:
    """A round part of another frame at a random position in each view, which has ``crop`` x ``crop`` pixels.

    Either view may lack a part of it.
    """
    height, width = image.shape[:2]
    side = min(height, width) * rng.uniform(0.3, 0.8)
    corner = (np.array([width, height]) - side) * rng.random(2)
    x, y, size = int(corner[0]), int(corner[1]), max(8, int(side))
    cut = np.ascontiguousarray(image[y : y + size, x : x + size])
    shape = _blob(rng, *cut.shape[:2])
    first_side = crop * rng.uniform(*PIECE_SIDES)
    position = crop * rng.uniform(0.1, 0.9, 2)
    shift = crop * rng.normal(0, 0.15, 2)
    growth = np.exp(rng.uniform(np.log(0.75), np.log(1.33)))
    maps = []
    for view in (0, 1):
        centre = position + view * shift
        # The piece fills a part of the view, so the whole view covers a larger square of the piece's image.
        linear = _affine(rng, crop, crop * size / (first_side * growth**view), np.zeros(2))[:, :2]
        offset = np.full(2, size / 2) - linear @ centre
        maps.append(np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32))
    opacity = tuple(
        shape * _half_plane(rng, *cut.shape[:2]) if rng.random() < CUT_PROBABILITY else shape for _ in (0, 1)
    )
    return Layer((cut, cut), (opacity[0], opacity[1]), (maps[0], maps[1]))


def _affine(
    rng: np.random.Generator, crop: int, side: float, centre: NDArray[np.float64], *, mirrored: bool = False
) -> FloatArray:
    """[2, 3], from pixels of a view to a randomly rotated and stretched square of ``side`` around ``centre``."""
    angle, aspect = rng.uniform(-MAX_ROTATION, MAX_ROTATION), np.exp(rng.normal(0, ASPECT_DEVIATION))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([np.sqrt(aspect) * (-1 if mirrored else 1), 1 / np.sqrt(aspect)])
    linear = side / crop * rotation @ stretch
    offset = centre - linear @ np.full(2, (crop - 1) / 2)
    return np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32)


def _polar(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Distance from the centre, 1 at the nearest border, and angle; [H, W] each."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = 2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1
    return np.hypot(x, y), np.arctan2(y, x)


def _blob(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Opacity [H, W] of a smooth round shape inside its rectangle."""
    distance, angle = _polar(height, width)
    radius = np.full_like(angle, 0.7)
    for wave in range(1, 6):
        radius += rng.normal(0, 0.18 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    softness = 1.5 * 2 / min(height, width)
    return np.clip((np.clip(radius, 0.2, 0.95) - distance) / softness + 0.5, 0, 1).astype(np.float32)


def _half_plane(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """1 on one side of a random straight line near the centre, 0 on the other; [H, W]."""
    distance, angle = _polar(height, width)
    along = distance * np.cos(angle - rng.uniform(0, 2 * np.pi))
    return np.clip((along + rng.uniform(0.0, 0.4)) * min(height, width) / 4 + 0.5, 0, 1).astype(np.float32)
