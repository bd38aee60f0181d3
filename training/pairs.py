"""Pairs of views of one frame whose correspondence is known exactly, from geometry and without a network.

The second view may show the frame as it is some frames later. Optical flow then says how it moved
(:mod:`.optical_flow`), so objects turn and bend as in reality, and pixels that flow loses are left out.

A view is composed of layers (:mod:`.pair_layers`), back to front: the frame itself, then pieces of other
frames. Each layer has one affine map per view, from pixels of the view to pixels of the layer's image; the
first view also bends its frame smoothly. A pixel of the first view is followed into the second through the
topmost layer there: by one map into the layer, by the inverse of the other out of it. It is visible where the
same layer is on top in the second view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..common.types import Floats, Image
from .augmentation import colour_distortion, distort
from .network.encoder import STRIDE
from .optical_flow import flow_to_last
from .pair_layers import FloatArray, Layer, background, piece

MAX_PIECES = 3
"""Pieces in a pair; at least one is there."""

BEND = 0.02
"""Standard deviation of the bending, in sides of the view."""

BLUR_PROBABILITY, GREY_PROBABILITY = 0.3, 0.1
"""How often a view is blurred, and how often it is grey."""

VISIBLE_SHARE = 0.75
"""Of the anchors; the others show something that the second view hides."""

MIN_VISIBLE = 0.05
"""Smallest share of the first view's features that the second view must show."""

MAX_ATTEMPTS = 40
"""Random placements after which a pair is given up."""


@dataclass(frozen=True)
class Pair:
    """Two views and their correspondence. Views have S pixels a side and s = ceil(S / 4) features.

    Attributes:
        views: [2, 3, S, S] uint8 RGB.
        anchors: [K] int64, features of the first view (row * s + column) whose matches are known.
        matches: [K, 2] float32, row and column in the second view, in features; nan where hidden there.
        anchor_layers: [K] uint8, the layer that each anchor shows.
        layers: [s, s] uint8, the layer that each feature of the second view shows.
    """

    views: NDArray[np.uint8]
    anchors: NDArray[np.int64]
    matches: FloatArray
    anchor_layers: NDArray[np.uint8]
    layers: NDArray[np.uint8]


def make_pair(
    frames: Sequence[Image],
    others: list[Image],
    rng: np.random.Generator,
    *,
    crop: int,
    zoom: float,
    distortion: float,
    count: int,
) -> Pair:
    """Two random views, of the first and of the last of ``frames``.

    Args:
        frames: one frame, or several in order of time, [H, W, 3] uint8 RGB each.
        others: one or more frames that pieces are cut from.
        rng: decides everything that is random.
        crop: side S of the views, in pixels.
        zoom: smallest side of what a view covers, as a fraction of the short side; the largest is all of it.
        distortion: strength of each view's own colour distortion, see :func:`.augmentation.augment`.
        count: K, the number of anchors.
    """
    flow = flow_to_last(frames) if len(frames) > 1 else None
    for attempt in range(MAX_ATTEMPTS):
        if attempt == MAX_ATTEMPTS // 2:  # an undetected cut, or motion that flow cannot follow
            frames, flow = frames[:1], None
        layers = [background(frames, flow, rng, crop, zoom)]
        for _ in range(int(rng.integers(1, MAX_PIECES + 1))):
            layers.append(piece(others[int(rng.integers(len(others)))], rng, crop))
        bend = _bend(rng, crop)
        correspondence = _correspondence(layers, bend, crop)
        if correspondence.visible.sum() >= MIN_VISIBLE * correspondence.visible.size:
            break
    else:
        raise RuntimeError("no two views overlap")  # their centres are close, so most placements overlap
    views = np.stack([_compose(layers, view, bend, rng, crop, distortion) for view in (0, 1)])
    anchors = _draw_anchors(correspondence, rng, count)
    matches = correspondence.matches.reshape(-1, 2)[anchors]
    matches[~correspondence.visible.reshape(-1)[anchors]] = np.nan
    anchor_layers = correspondence.layers[0].reshape(-1)[anchors]
    return Pair(views, anchors, matches, anchor_layers, correspondence.layers[1])


def _bend(rng: np.random.Generator, crop: int) -> FloatArray:
    """A smooth random displacement of the pixels of a view, [S, S, 2] in pixels."""
    coarse = rng.normal(0, BEND * crop, (5, 5, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (crop, crop), interpolation=cv2.INTER_CUBIC), np.float32)


def _grid(side: int, step: int = 1) -> FloatArray:
    """[side, side, 2]: x and y of every ``step``-th pixel."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return np.stack([x, y], axis=-1) * step


def _transform(points: FloatArray, affine: FloatArray) -> FloatArray:
    transformed: FloatArray = points @ affine[:, :2].T + affine[:, 2]
    return transformed


def _layer_points(layer: Layer, view: int, points: FloatArray, bend: FloatArray | None) -> FloatArray:
    """``points`` of a view in pixels of the layer's image; the first view bends its frame."""
    if bend is not None and view == 0 and layer.opacity[0] is None:
        points = points + bend
    return _transform(points, layer.maps[view])


def _sample(image: FloatArray | Image, points: FloatArray, border: int) -> Floats:
    """Bilinear interpolation of ``image`` at ``points`` [h, w, 2] (x, y)."""
    x, y = points[..., 0], points[..., 1]
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border), np.float32)


def _opacity(layer: Layer, view: int, points: FloatArray) -> FloatArray:
    mask = layer.opacity[view]
    if mask is None:
        return np.ones(points.shape[:2], np.float32)
    return _sample(mask, points, cv2.BORDER_CONSTANT)


def _compose(
    layers: list[Layer], view: int, bend: FloatArray, rng: np.random.Generator, crop: int, distortion: float
) -> NDArray[np.uint8]:
    """A view [3, S, S]: its layers, blurred at random and with distorted colours."""
    grid, canvas = _grid(crop), np.zeros((crop, crop, 3), np.float32)
    for layer in layers:
        points = _layer_points(layer, view, grid, bend)
        image, factor = _reduced(layer.images[view], layer.maps[view])
        colours = _sample(image, (points + 0.5) * factor - 0.5, cv2.BORDER_REFLECT_101)
        canvas += _opacity(layer, view, points)[..., None] * (colours - canvas)
    if rng.random() < BLUR_PROBABILITY:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 1.5)), np.float32)
    composed = distort(canvas.round().astype(np.uint8), colour_distortion(rng, distortion))
    if rng.random() < GREY_PROBABILITY:
        composed = np.repeat(cv2.cvtColor(composed, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.ascontiguousarray(composed.transpose(2, 0, 1))


def _reduced(image: Image, affine: FloatArray) -> tuple[Image, FloatArray]:
    """The image at the scale of the view where that is smaller, to avoid aliasing; and its scale in x and y."""
    scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    if scale <= 1.3:
        return image, np.ones(2, np.float32)
    height, width = image.shape[:2]
    size = max(1, round(width / scale)), max(1, round(height / scale))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, np.uint8), np.array([size[0] / width, size[1] / height], np.float32)


@dataclass(frozen=True)
class _Correspondence:
    """The correspondence of all features of the first view.

    Attributes:
        layers: per view, the topmost layer at each feature, [s, s].
        matches: [s, s, 2], row and column in the second view, in features.
        visible: [s, s], whether the second view shows the match.
        hidden: [s, s], whether it does not and shows another part of the same layer.
    """

    layers: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    matches: FloatArray
    visible: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def _top_layers(
    layers: list[Layer], view: int, points: FloatArray, bend: FloatArray | None
) -> NDArray[np.uint8]:
    """The topmost layer at each of ``points``."""
    top = np.zeros(points.shape[:2], np.uint8)
    for number, layer in enumerate(layers):
        top[_opacity(layer, view, _layer_points(layer, view, points, bend)) > 0.5] = number
    return top


def _correspondence(layers: list[Layer], bend: FloatArray, crop: int) -> _Correspondence:
    side = -(-crop // STRIDE)
    grid = _grid(side, STRIDE)
    coarse_bend = np.ascontiguousarray(bend[::STRIDE, ::STRIDE])
    first, second = _top_layers(layers, 0, grid, coarse_bend), _top_layers(layers, 1, grid, None)
    matches = np.zeros_like(grid)
    for number, layer in enumerate(layers):
        points = _layer_points(layer, 0, grid, coarse_bend)
        if layer.flow is not None:
            points = points + _sample(layer.flow, points, cv2.BORDER_REPLICATE)
        target = _transform(points, cv2.invertAffineTransform(layer.maps[1]))
        matches = np.where((first == number)[..., None], target, matches).astype(np.float32)
    inside = ((matches >= 0) & (matches <= STRIDE * (side - 1))).all(-1)
    visible = inside & (_top_layers(layers, 1, matches, None) == first)
    certain = _is_certain(layers[0], first, grid, coarse_bend)
    hidden = ~visible & certain & np.isin(first, np.unique(second))
    return _Correspondence(
        (first, second), matches[..., ::-1] / np.float32(STRIDE), visible & certain, hidden
    )


def _is_certain(
    frame: Layer, top: NDArray[np.uint8], grid: FloatArray, bend: FloatArray
) -> NDArray[np.bool_]:
    """Whether a feature shows a piece, or the frame within its borders and where its flow is reliable."""
    height, width = frame.images[0].shape[:2]
    points = _layer_points(frame, 0, grid, bend)
    certain = ((points >= 0) & (points <= np.array([width - 1, height - 1]))).all(-1)
    if frame.reliable is not None:
        certain &= _sample(frame.reliable, points, cv2.BORDER_CONSTANT) > 0.99
    return np.asarray(certain | (top > 0), np.bool_)


def _draw_anchors(correspondence: _Correspondence, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """[K] features: most of them visible in both views, some hidden in the second."""
    visible, hidden = np.flatnonzero(correspondence.visible), np.flatnonzero(correspondence.hidden)
    num_visible = round(VISIBLE_SHARE * count) if len(hidden) else count
    anchors = [rng.choice(visible, num_visible)]
    if count > num_visible:
        anchors.append(rng.choice(hidden, count - num_visible))
    return np.concatenate(anchors).astype(np.int64)
