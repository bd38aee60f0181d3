"""Pretext tasks: what the encoder sees, what is reconstructed, and the loss."""

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

FITTED_WINDOWS, FITTED_PIXELS = 64, 1000
"""Windows, and pixels of each, that the palette is fitted to."""


class Pretext(Protocol):
    """A pretext task. ``lab`` is [B, F, 3, H, W] normalised Lab; ``channel`` [B] int64 is 1 (a) or 2 (b)."""

    def visible(self, lab: Tensor, channel: Tensor) -> Tensor:
        """What the encoder sees, [B, F, 3, H, W]."""

    def target(self, lab: Tensor, channel: Tensor) -> Tensor:
        """The maps that are copied between frames and compared, [B, F, O, h, w]."""

    def loss(self, copied: Tensor, target: Tensor) -> Tensor:
        """The loss of two [B, T, O, h, w], a scalar."""

    def painted(self, copied: Tensor, lab: Tensor, channel: Tensor) -> Tensor:
        """The frames with the copied colours instead of their own, [B, T, 3, h, w] for contact sheets."""


class HiddenChannel:
    """Hide one colour channel and regress it (MAST; arXiv 2006.12480)."""

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
    """Show the lightness and classify the colour (Tracking emerges by colorizing videos).

    Args:
        palette: [K, 2], normalised a and b of the colour classes.
    """

    def __init__(self, palette: Tensor) -> None:
        self.palette = palette

    def visible(self, lab: Tensor, channel: Tensor) -> Tensor:
        return lab  # an encoder with one input channel reads the lightness only

    def target(self, lab: Tensor, channel: Tensor) -> Tensor:
        return colour_classes(lab, self.palette.to(lab))

    def loss(self, copied: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(copied, target)

    def painted(self, copied: Tensor, lab: Tensor, channel: Tensor) -> Tensor:
        small = lab[..., ::STRIDE, ::STRIDE].clone()
        small[:, :, 1:] = torch.einsum("btkhw,kc->btchw", copied, self.palette.to(copied))
        return small


def make_pretext(recipe: Recipe, palette: Tensor | None) -> Pretext:
    """The pretext task of ``recipe``; colour classes need a ``palette`` (:func:`fit_palette`)."""
    if recipe.target == "channel":
        return HiddenChannel(recipe.delta)
    if palette is None:
        raise ValueError("colour classes need a palette")
    return ColourClasses(palette)


def fit_palette(recipe: Recipe, library: ClipLibrary) -> Tensor | None:
    """Fit colour classes to the footage by k-means: [K, 2] normalised a and b, None if not needed.

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
