"""The object that a few strokes mark, inside it and outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.types import Floats, Image
from .view import Point

STEP_COST = 0.002
"""Cost of a step between equal places, so that a stroke's reach ends somewhere on even ground."""

COLOUR_SCALE = 50.0
"""Difference of CIELAB (8 bits) that counts as much as features at 60 degrees."""

LINE_WIDTH = 2
"""Of strokes, in features."""

MAX_PASSES = 500

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


class FrameFeatures(NamedTuple):
    """What an encoder makes of a frame.

    Attributes:
        maps: [C, h, w]; feature (i, j) is centred on pixel (stride * i, stride * j).
        stride: pixels of the frame per feature.
    """

    maps: Floats
    stride: float


@dataclass(frozen=True)
class Scribble:
    """Strokes of one object.

    Attributes:
        inside, outside: lines through pixels (x, y); without any outside, the frame's edge counts as outside.
    """

    inside: Sequence[Sequence[Point]]
    outside: Sequence[Sequence[Point]] = ()


def outline_from_scribble(image: Image, features: FrameFeatures, scribble: Scribble) -> NDArray[np.bool_]:
    """Give each place to the nearer strokes, where nearness is that of a path over similar places.

    A step costs the squared difference between the encoder's features and the colours of two neighbouring places:
    a geodesic distance (Bai and Sapiro, ICCV 2007) over learned features.

    Args:
        image: [H, W, 3] uint8 RGB.
        features: of the image.
        scribble: its strokes.

    Returns:
        [H, W] bool, the object.

    Raises:
        MaskError: when there is no stroke inside, or nothing is left of it.
    """
    inside, outside = (_places(lines, features) for lines in (scribble.inside, scribble.outside))
    if not scribble.outside:
        outside[[0, -1]] = outside[:, [0, -1]] = True
    inside, outside = inside & ~outside, outside & ~inside
    if not inside.any() or not outside.any():
        raise MaskError("no stroke lies inside the object", "draw one inside it, and others outside")
    costs = _costs(_description(image, features.maps))
    near, far = _distances(inside, costs), _distances(outside, costs)
    share = far / (near + far + 1e-9)
    rows, columns = (np.arange(length, dtype=np.float32) / features.stride for length in image.shape[:2])
    across, down = np.meshgrid(columns, rows)
    full = cv2.remap(share, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(full > 0.5)


def _places(lines: Sequence[Sequence[Point]], features: FrameFeatures) -> NDArray[np.bool_]:
    """The features [h, w] that lines touch."""
    height, width = features.maps.shape[1:]
    touched = np.zeros((height, width), np.uint8)
    for line in lines:
        corners = np.rint(np.array(line, float) / features.stride).astype(np.int32)
        corners = np.minimum(corners, [width - 1, height - 1])
        cv2.polylines(touched, [corners], False, 1, LINE_WIDTH)
        touched[corners[:, 1], corners[:, 0]] = 1  # a line of one point draws nothing
    return touched > 0


def _description(image: Image, features: Floats) -> Floats:
    """[C + 3, h, w]: features of unit length, and colours."""
    lengths = np.sqrt((features.astype(np.float32) ** 2).sum(0, keepdims=True))
    small = cv2.resize(image, features.shape[:0:-1], interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).transpose(2, 0, 1).astype(np.float32) / COLOUR_SCALE
    return np.concatenate([features / (lengths + 1e-9), colours]).astype(np.float32)


def _costs(description: Floats) -> list[Floats]:
    """The cost of a step to each of :data:`_NEIGHBOURS`."""
    costs = []
    for dy, dx in _NEIGHBOURS:
        here, there = _shifted(description, dy, dx)
        costs.append(((there - here) ** 2).sum(0) + STEP_COST * float(np.hypot(dy, dx)))
    return costs


def _distances(seeds: NDArray[np.bool_], costs: list[Floats]) -> Floats:
    """[h, w] cost of the cheapest path from any seed: Bellman and Ford's relaxation, all places at once."""
    distances: Floats = np.where(seeds, 0, 1e9).astype(np.float32)
    for _ in range(MAX_PASSES):
        before = distances.copy()
        for (dy, dx), cost in zip(_NEIGHBOURS, costs, strict=True):
            here, there = _shifted(distances, dy, dx)  # views: what is written into them is in `distances`
            np.minimum(there, here + cost, out=there)
            np.minimum(here, there + cost, out=here)
        if np.array_equal(before, distances):
            break
    return distances


def _shifted(maps: Floats, dy: int, dx: int) -> tuple[Floats, Floats]:
    """Views of maps [..., h, w] whose places lie (dy, dx) apart."""
    height, width = maps.shape[-2:]
    left, right = max(0, -dx), width - max(0, dx)
    return maps[..., : height - dy, left:right], maps[..., dy:, left + dx : right + dx]
