"""What is hidden from the network, what it has to bring back, and how the result is judged."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from .clips import ClipLibrary
from .losses import colour_classes, cross_entropy, drop_colour, grid_colours, huber
from .network.colour import normalise_lab, rgb_to_lab
from .network.encoder import STRIDE
from .recipe import Recipe

FITTED_WINDOWS = 64
FITTED_PIXELS = 1000  # of each window


class Pretext(Protocol):
    """A task; ``lab`` is [B, F, 3, H, W] normalised, ``channel`` [B] int64 is 1 (a) or 2 (b)."""

    def visible(self, lab: Tensor, channel: Tensor) -> Tensor:
        """What the encoder sees, [B, F, 3, H, W]."""

    def target(self, lab: Tensor, channel: Tensor) -> Tensor:
        """What is copied between frames and compared, [B, F, O, h, w]."""

    def loss(self, copied: Tensor, target: Tensor) -> Tensor:
        """A scalar from two [B, T, O, h, w]."""

    def painted(self, copied: Tensor, lab: Tensor, channel: Tensor) -> Tensor:
        """The frames [B, T, 3, h, w] with the copied colours in place of their own, for people."""


class HiddenChannel:
    """One colour channel is hidden and regressed (MAST; arXiv 2006.12480)."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def visible(self, lab: Tensor, channel: Tensor) -> Tensor:
        return drop_colour(lab, channel)

    def target(self, lab: Tensor, channel: Tensor) -> Tensor:
        return grid_colours(lab, channel)

    def loss(self, copied: Tensor, target: Tensor) -> Tensor:
        return huber(copied, target, self.delta)

    def painted(self, copied: Tensor, lab: Tensor, channel: Tensor) -> Tensor:
        small = lab[..., ::STRIDE, ::STRIDE].clone()
        index = channel.view(-1, 1, 1, 1, 1).expand_as(copied)
        return small.scatter_(2, index, copied)


class ColourClasses:
    """The frame is grey, the class of its colour is asked for (Tracking emerges by colorizing videos).

    Args:
        palette: [K, 2], normalised a and b of the classes.
    """

    def __init__(self, palette: Tensor) -> None:
        self.palette = palette

    def visible(self, lab: Tensor, channel: Tensor) -> Tensor:
        return lab  # an encoder with one input channel takes the lightness alone

    def target(self, lab: Tensor, channel: Tensor) -> Tensor:
        return colour_classes(lab, self.palette.to(lab))

    def loss(self, copied: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(copied, target)

    def painted(self, copied: Tensor, lab: Tensor, channel: Tensor) -> Tensor:
        small = lab[..., ::STRIDE, ::STRIDE].clone()
        small[:, :, 1:] = torch.einsum("btkhw,kc->btchw", copied, self.palette.to(copied))
        return small


def make_pretext(recipe: Recipe, palette: Tensor | None) -> Pretext:
    """The task of ``recipe``; colour classes need a ``palette`` (:func:`fit_palette`)."""
    if recipe.target == "channel":
        return HiddenChannel(recipe.delta)
    if palette is None:
        raise ValueError("colour classes need a palette")
    return ColourClasses(palette)


def fit_palette(recipe: Recipe, library: ClipLibrary) -> Tensor | None:
    """Colour classes by k-means over pixels of the footage: [K, 2] normalised a and b, None if not needed.

    Raises:
        SourceError: when the footage cannot be used.
    """
    if recipe.target != "clusters":
        return None
    rng = np.random.default_rng((recipe.seed, FITTED_WINDOWS))
    pixels = []
    for _ in range(FITTED_WINDOWS):
        frame = library.window(rng, 2, recipe.max_gap).frames[0].reshape(-1, 3)
        rgb = torch.from_numpy(rng.choice(frame, FITTED_PIXELS)).float().div(255).T.reshape(1, 3, -1, 1)
        pixels.append(normalise_lab(rgb_to_lab(rgb))[0, 1:, :, 0].T.numpy())
    cv2.setRNGSeed(recipe.seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    samples = np.ascontiguousarray(np.concatenate(pixels), dtype=np.float32)
    start = np.empty((0,), np.int32)
    _, _, centres = cv2.kmeans(samples, recipe.clusters, start, stop, 3, cv2.KMEANS_PP_CENTERS)
    return torch.from_numpy(np.asarray(centres, np.float32))
