"""Augmentation of the frames that adaptation learns from.

After Lucid Data Dreaming (Khoreva et al. 2017): objects move against the background, both are warped, and the
light changes. All randomness comes from one numpy generator, so a seed decides everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Strength:
    """How far a frame is changed: standard deviations of random changes, and probabilities.

    Attributes:
        turn: rotation in radians.
        zoom: logarithm of the scale.
        shift: translation as a share of half the frame.
        bend: displacement of a coarse grid, same unit.
        gain: logarithm of brightness and, by half, of each colour.
        second: probability that the objects are seen a second time elsewhere.
        blur: probability of motion blur.
    """

    turn: float
    zoom: float
    shift: float
    bend: float
    gain: float
    second: float
    blur: float


STRONG = Strength(turn=0.25, zoom=0.25, shift=0.25, bend=0.05, gain=0.15, second=0.5, blur=0.3)
"""For masks that the user drew: they stay true however far the frame is changed."""

WEAK = Strength(turn=0.1, zoom=0.1, shift=0.1, bend=0.02, gain=0.1, second=0.0, blur=0.0)
"""For propagated masks."""

BEND_GRID = 5


def augment(
    rng: np.random.Generator, image: Tensor, target: Tensor, weight: Tensor, strength: Strength
) -> tuple[Tensor, Tensor, Tensor]:
    """Change a frame and its labels alike.

    Args:
        rng: decides.
        image: [3, S, S] RGB in 0..1.
        target: [O, S, S] shares of the labels.
        weight: [S, S].
        strength: how far.

    Returns:
        The three, changed, of the same shapes.
    """
    stack = torch.cat([image, target, weight[None]])[None]
    stack = _sampled(stack, _grid(rng, stack.shape[2:], strength))
    if rng.random() < strength.second:
        stack = _paste_objects(rng, stack, len(target), strength)
    image, target, weight = stack[0, :3], stack[0, 3:-1], stack[0, -1]
    if rng.random() < strength.blur:
        image = _motion_blur(rng, image)
    return _relit(rng, image, strength), target, weight


def _grid(rng: np.random.Generator, size: torch.Size, strength: Strength) -> Tensor:
    """Sampling positions [1, S, S, 2] of a random smooth warp, mirrored half of the time."""
    angle, zoom = rng.normal(0, strength.turn), math.exp(rng.normal(0, strength.zoom))
    across, down = rng.normal(0, strength.shift, 2)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    affine = torch.tensor([[[mirror * cos, -sin, across], [mirror * sin, cos, down]]], dtype=torch.float32)
    bend = rng.normal(0, strength.bend, (1, 2, BEND_GRID, BEND_GRID)).astype(np.float32)
    smooth = F.interpolate(torch.from_numpy(bend), size=tuple(size), mode="bicubic", align_corners=True)
    grid = F.affine_grid(affine, [1, 1, *size], align_corners=False)
    return grid + smooth.permute(0, 2, 3, 1)


def _sampled(stack: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(stack, grid, padding_mode="reflection", align_corners=False)


def _paste_objects(rng: np.random.Generator, stack: Tensor, labels: int, strength: Strength) -> Tensor:
    """Paste the objects, warped once more, over the frame: an object is the same at any place."""
    again = _sampled(stack, _grid(rng, stack.shape[2:], strength))
    object_share = again[:, 4 : 3 + labels].sum(1, keepdim=True).clamp(0, 1)
    return stack + object_share * (again - stack)


def _motion_blur(rng: np.random.Generator, image: Tensor) -> Tensor:
    """A box along one axis, up to a tenth of the frame long."""
    length = 2 * int(rng.integers(1, max(image.shape[-1] // 20, 2))) + 1
    size = [1, length] if rng.random() < 0.75 else [length, 1]  # most things move sideways
    return F.avg_pool2d(image[None], size, 1, [size[0] // 2, size[1] // 2], count_include_pad=False)[0]


def _relit(rng: np.random.Generator, image: Tensor, strength: Strength) -> Tensor:
    gain = rng.normal(0, strength.gain) + rng.normal(0, strength.gain / 2, 3)
    offset = rng.normal(0, strength.gain / 4, 3)
    scale, shift = (torch.from_numpy(v.astype(np.float32)).view(3, 1, 1) for v in (np.exp(gain), offset))
    return (image * scale + shift).clamp(0, 1)
