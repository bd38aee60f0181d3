"""Renders clips with known masks for the demo, tests and benchmarks. They need no data file.

In the main clip three textured objects move over a textured ground. They turn, deform and change size. The
camera pans and zooms, and the light changes slowly. Object 1 passes behind a post, object 2 leaves the frame
and returns to where it was first seen, object 3 grows and crosses in front of the post and of object 1. In
the other clip a second object with the same look passes in front of the object.

Geometry is analytic. Positions are in *view units*: x and y from the centre of the frame, the frame's height
being 1. Time runs from 0 at the first frame to 1 at the last, so a short clip tells the same story faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Floats, Image, Labels

FRAME_RATE = 30.0
"""Frame rate at which the default length looks natural."""

TEXTURE_SIZE = 256
GROUND_MARGIN = 0.35
"""How far the ground extends beyond the first view on each side, in view units. The camera never leaves it."""

WIDE = 16 / 9
"""Aspect ratio the scene is composed for; in narrower frames objects are smaller, so they start apart."""

POST_WIDTH = 0.13
SENSOR_NOISE = 1.5
"""Standard deviation of the pixel noise, in grey levels of 255."""


def render_clip(
    height: int = 480, width: int = 854, frames: int = 90, seed: int = 0
) -> Iterator[tuple[Image, Labels]]:
    """Render the clip, one frame at a time; equal arguments give equal frames.

    Args:
        height, width: size of the frames in pixels.
        frames: length of the clip, which always shows the same story.
        seed: chooses textures, outlines and noise, but not the story.

    Yields:
        image [height, width, 3] RGB with antialiased outlines, and labels [height, width]: 0 or the id (1..3)
        of the object that covers the pixel's centre.
    """
    yield from _render(_layers, height, width, frames, seed)


def render_lookalike_clip(
    height: int = 480, width: int = 854, frames: int = 90, seed: int = 0
) -> Iterator[tuple[Image, Labels]]:
    """Render a clip of one object and a look-alike with the same colours and pattern that passes it.

    The look-alike comes in from the right, passes in front of the object's lower edge and leaves on the left;
    it is background (0). Arguments and frames as those of :func:`render_clip`; the object's id is 1.
    """
    yield from _render(_lookalikes, height, width, frames, seed)


def _render(
    scene: Callable[[np.random.Generator, float], list[_Layer]],
    height: int,
    width: int,
    frames: int,
    seed: int,
) -> Iterator[tuple[Image, Labels]]:
    rng = np.random.default_rng(seed)
    layers = scene(rng, width / height)  # first, so that outlines do not depend on the resolution
    ground = _Ground(_ground_texture(rng, height, width), height)
    for index in range(frames):
        time = index / max(frames - 1, 1)
        camera = _camera(time)
        canvas = ground.seen_by(camera, height, width)
        labels = np.zeros((height, width), np.uint8)
        for layer in layers:
            layer.draw(canvas, labels, camera, time)
        canvas *= _light(height, width, time)[..., None]
        canvas += SENSOR_NOISE * rng.standard_normal(canvas.shape, np.float32)
        yield np.clip(np.rint(canvas), 0, 255).astype(np.uint8), labels


@dataclass(frozen=True)
class _Camera:
    """Camera position: centre in view units of the first frame, and magnification."""

    x: float
    y: float
    zoom: float


def _camera(time: float) -> _Camera:
    """A slow pan to the right and back down with a gentle zoom. The first frame is at the origin."""
    return _Camera(
        0.16 * math.sin(0.8 * math.pi * time),
        0.05 * math.sin(2 * math.pi * time),
        1 + 0.12 * math.sin(math.pi * time) ** 2,
    )


def _light(height: int, width: int, time: float) -> Floats:
    """Gain per pixel: a wide soft shadow that moves over the scene, and a slow change of overall brightness."""
    y, x = _pixel_grid(height, width)
    wave = np.sin(1.7 * x + 1.1 * y + 2 * math.pi * 0.8 * time, dtype=np.float32)
    return np.asarray(0.98 + 0.06 * math.sin(2 * math.pi * time) + 0.12 * wave, np.float32)


@dataclass(frozen=True)
class _Ground:
    """The static background; ``texture`` has as many pixels per view unit as the frame."""

    texture: Floats
    pixels_per_unit: int

    def seen_by(self, camera: _Camera, height: int, width: int) -> Floats:
        """[height, width, 3], grey levels up to 255."""
        rows, columns = self.texture.shape[:2]
        step = 1 / camera.zoom
        left = (columns - 1) / 2 + camera.x * self.pixels_per_unit - step * (width - 1) / 2
        top = (rows - 1) / 2 + camera.y * self.pixels_per_unit - step * (height - 1) / 2
        placement = np.array([[step, 0, left], [0, step, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        view = cv2.warpAffine(
            self.texture, placement, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(view, np.float32)


class _Layer:
    """A layer that hides those behind it. It labels the pixels that it covers by more than one half."""

    label: int

    def window(self, camera: _Camera, time: float, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the frame outside which the layer covers nothing."""
        raise NotImplementedError

    def paint(self, x: Floats, y: Floats, camera: _Camera, time: float) -> tuple[Floats, Floats]:
        """At view positions: signed depth inside the outline in view units, and colours [..., 3]."""
        raise NotImplementedError

    def draw(self, canvas: Floats, labels: Labels, camera: _Camera, time: float) -> None:
        """Blend the layer over ``canvas`` [H, W, 3] and write its label where it covers a pixel's centre."""
        height, width = labels.shape
        rows, columns = self.window(camera, time, height, width)
        y, x = _pixel_grid(height, width, rows, columns)
        if not x.size or not y.size:
            return
        depth, colour = self.paint(x, y, camera, time)
        coverage = np.clip(0.5 + depth * height, 0, 1)[..., None]
        canvas[rows, columns] += coverage * (colour - canvas[rows, columns])
        labels[rows, columns][depth > 0] = self.label


@dataclass(frozen=True)
class _Post(_Layer):
    """A vertical bar at a fixed place, over the whole height. It counts as background."""

    x: float
    texture: Floats
    label: int = 0

    def window(self, camera: _Camera, time: float, height: int, width: int) -> tuple[slice, slice]:
        centre, half = self._place(camera)
        return slice(0, height), _pixel_span(centre, half, height, width)

    def paint(self, x: Floats, y: Floats, camera: _Camera, time: float) -> tuple[Floats, Floats]:
        centre, half = self._place(camera)
        across, along = np.broadcast_arrays((x - centre) / half, y / camera.zoom + camera.y)
        depth = np.asarray(half * (1 - np.abs(across)), np.float32)
        roundness = np.asarray(0.55 + 0.45 * np.sqrt(np.clip(1 - (across - 0.25) ** 2, 0, 1)), np.float32)
        return depth, _sample(self.texture, 0.5 + 0.2 * across, 0.5 + along) * roundness[..., None]

    def _place(self, camera: _Camera) -> tuple[float, float]:
        """Centre and half width as seen by the camera."""
        return (self.x - camera.x) * camera.zoom, POST_WIDTH / 2 * camera.zoom


@dataclass(frozen=True)
class _Body(_Layer):
    """A textured object with a star-shaped outline: radius(angle) = size * (1 + sum of a few waves).

    Attributes:
        label: object id.
        texture: [TEXTURE_SIZE, TEXTURE_SIZE, 3], fixed to the object.
        path: time -> centre (x, y) in view units of the frame, and size (mean radius).
        waves: (lobes, amplitude, phase, drift of the phase over the clip) of the outline.
        spin: radians turned over the clip.
    """

    label: int
    texture: Floats
    path: Callable[[float], tuple[float, float, float]]
    waves: tuple[tuple[int, float, float, float], ...]
    spin: float

    def window(self, camera: _Camera, time: float, height: int, width: int) -> tuple[slice, slice]:
        x, y, size = self.path(time)
        reach = size * (1 + sum(abs(amplitude) for _, amplitude, _, _ in self.waves))
        return _pixel_span(y, reach, height, height), _pixel_span(x, reach, height, width)

    def paint(self, x: Floats, y: Floats, camera: _Camera, time: float) -> tuple[Floats, Floats]:
        centre_x, centre_y, size = self.path(time)
        angle = self.spin * time
        right, down = (x - centre_x) / size, (y - centre_y) / size
        u = math.cos(angle) * right + math.sin(angle) * down
        v = math.cos(angle) * down - math.sin(angle) * right
        direction = np.arctan2(v, u)
        outline = np.ones_like(direction)
        for lobes, amplitude, phase, drift in self.waves:
            outline += amplitude * np.cos(lobes * direction + phase + drift * time)
        distance = np.hypot(u, v)
        # Lit from the upper left of the scene, like a flat pebble.
        relief = 0.9 - 0.22 * (right + down) / math.sqrt(2) - 0.15 * (distance / outline) ** 4
        colour = _sample(self.texture, 0.5 + 0.35 * u, 0.5 + 0.35 * v) * relief[..., None].astype(np.float32)
        return np.asarray(size * (outline - distance), np.float32), colour


def _layers(rng: np.random.Generator, aspect: float) -> list[_Layer]:
    """The scene from back to front; x positions are shares of the frame's half width, ``aspect`` / 2."""
    half, scale = aspect / 2, min(1.0, aspect / WIDE)

    def crosses_behind_the_post(time: float) -> tuple[float, float, float]:
        return half * (-0.62 + 1.05 * time), -0.12 + 0.05 * math.sin(2 * math.pi * time), 0.17 * scale

    def leaves_and_returns(time: float) -> tuple[float, float, float]:
        away = math.sin(math.pi * min(max((time - 0.1) / 0.75, 0), 1)) ** 2
        return half * 0.62 + away * (half * 0.38 + 0.2), 0.17 - 0.04 * away, 0.135 * scale

    def comes_closer(time: float) -> tuple[float, float, float]:
        x = half * (0.22 - 0.75 * time + 0.1 * math.sin(2 * math.pi * time))
        return x, 0.24 - 0.06 * math.sin(math.pi * time), (0.11 + 0.05 * time) * scale

    return [
        _Body(1, _stripes(rng), crosses_behind_the_post, _waves(rng, 3, 0.13), 1.1),
        _Post(-0.02 * aspect, _bark(rng)),
        _Body(2, _dots(rng), leaves_and_returns, _waves(rng, 2, 0.10), -0.7),
        _Body(3, _checks(rng), comes_closer, _waves(rng, 5, 0.09), 0.9),
    ]


def _lookalikes(rng: np.random.Generator, aspect: float) -> list[_Layer]:
    """The object and, in front of it, its look-alike; positions as in :func:`_layers`."""
    half, scale = aspect / 2, min(1.0, aspect / WIDE)

    def sways(time: float) -> tuple[float, float, float]:
        return half * (-0.15 + 0.3 * time), -0.06 + 0.05 * math.sin(2 * math.pi * time), 0.17 * scale

    def passes_by(time: float) -> tuple[float, float, float]:
        return half * (1.3 - 2.6 * time), 0.18 + 0.04 * math.sin(math.pi * time), 0.15 * scale

    return [
        _Body(1, _stripes(rng), sways, _waves(rng, 3, 0.13), 0.8),
        _Body(0, _stripes(rng), passes_by, _waves(rng, 3, 0.13), -0.6),
    ]


def _waves(
    rng: np.random.Generator, lobes: int, amplitude: float
) -> tuple[tuple[int, float, float, float], ...]:
    phase, small, drift = rng.uniform(0, 2 * math.pi, 3)
    return (lobes, amplitude, phase, 0.3), (lobes + 1, amplitude / 3, small, 1.5 + 0.2 * drift)


def _pixel_grid(
    height: int, width: int, rows: slice = slice(None), columns: slice = slice(None)
) -> tuple[Floats, Floats]:
    """View positions y [h, 1] and x [1, w] of the centres of pixels."""
    y = (np.arange(height, dtype=np.float32)[rows] - (height - 1) / 2) / height
    x = (np.arange(width, dtype=np.float32)[columns] - (width - 1) / 2) / height
    return y[:, None].astype(np.float32), x[None].astype(np.float32)


def _pixel_span(centre: float, reach: float, pixels_per_unit: int, length: int) -> slice:
    """Pixels of one axis within ``reach`` of ``centre`` (view units), with one to spare for blending."""
    middle = centre * pixels_per_unit + (length - 1) / 2
    first, last = (
        math.floor(middle - reach * pixels_per_unit - 1),
        math.ceil(middle + reach * pixels_per_unit + 1),
    )
    return slice(min(max(first, 0), length), min(max(last + 1, 0), length))


def _sample(texture: Floats, u: NDArray[np.floating], v: NDArray[np.floating]) -> Floats:
    """Texture colours at (u, v), 0..1 over the texture, mirrored beyond."""
    scale = TEXTURE_SIZE - 1
    x, y = (np.ascontiguousarray(axis * scale, np.float32) for axis in (u, v))
    return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, coarsest: float, octaves: int) -> Floats:
    """Fractal noise in 0..1; ``coarsest`` is the size of its largest features in pixels."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(coarsest / 2**octave, 1.0)
        grid = rng.standard_normal((math.ceil(height / cell) + 3, math.ceil(width / cell) + 3), np.float32)
        layer = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += layer[:height, :width] * 0.6**octave
    low, high = np.percentile(total, (1, 99))
    return np.asarray(np.clip((total - low) / (high - low), 0, 1), np.float32)


def _mix(share: Floats, first: tuple[int, int, int], second: tuple[int, int, int]) -> Floats:
    """Colours between two RGB colours, ``share`` [H, W] of the second."""
    start, end = np.array([first, second], np.float32)
    return np.asarray(start + share[..., None] * (end - start), np.float32)


def _square_noise(rng: np.random.Generator, coarsest: float, octaves: int) -> Floats:
    return _noise(rng, TEXTURE_SIZE, TEXTURE_SIZE, coarsest, octaves)


def _pattern_axes() -> tuple[Floats, Floats]:
    axis = np.arange(TEXTURE_SIZE, dtype=np.float32)
    return axis[:, None], axis[None]


def _stripes(rng: np.random.Generator) -> Floats:
    y, x = _pattern_axes()
    wobble = 14 * _square_noise(rng, 90, 3)
    share = 0.5 + 0.5 * np.tanh(4 * np.sin((x + 0.4 * y + wobble) / 6.5))
    return _mix(share, (196, 92, 40), (238, 190, 96)) * (0.8 + 0.4 * _square_noise(rng, 40, 4))[..., None]


def _dots(rng: np.random.Generator) -> Floats:
    share = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    for x, y, radius in rng.uniform((0, 0, 5), (TEXTURE_SIZE, TEXTURE_SIZE, 15), (45, 3)):
        cv2.circle(share, (round(x), round(y)), round(radius), 1.0, -1, cv2.LINE_AA)
    return _mix(share, (48, 96, 168), (214, 226, 232)) * (0.8 + 0.4 * _square_noise(rng, 50, 4))[..., None]


def _checks(rng: np.random.Generator) -> Floats:
    y, x = _pattern_axes()
    share = 0.5 + 0.5 * np.tanh(5 * np.sin(x / 9) * np.sin(y / 9))
    return _mix(share, (150, 40, 86), (226, 168, 190)) * (0.8 + 0.4 * _square_noise(rng, 60, 4))[..., None]


def _bark(rng: np.random.Generator) -> Floats:
    fibres = cv2.resize(_noise(rng, 64, TEXTURE_SIZE, 24, 4), (TEXTURE_SIZE, TEXTURE_SIZE))
    return _mix(np.asarray(fibres, np.float32), (74, 62, 52), (150, 132, 112))


def _ground_texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Grass, earth and scattered stones."""
    rows, columns = (round(length + 2 * GROUND_MARGIN * height) for length in (height, width))
    earth = _noise(rng, rows, columns, height / 3, 4)
    grain = _noise(rng, rows, columns, height / 14, 5)
    texture = _mix(earth, (92, 112, 66), (146, 128, 96)) * (0.65 + 0.6 * grain)[..., None]
    for _ in range(60):
        centre = (int(rng.integers(columns)), int(rng.integers(rows)))
        axes = tuple(int(axis) for axis in rng.integers(height // 60 + 1, height // 18 + 2, 2))
        grey = float(rng.uniform(70, 190))
        colour = (grey, 0.97 * grey, 0.9 * grey)
        cv2.ellipse(texture, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    speckle = _noise(rng, rows, columns, 3, 2)
    return np.asarray(texture * (0.9 + 0.2 * speckle)[..., None], np.float32)
