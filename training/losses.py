"""Reconstruction of a frame's colours from other frames by feature similarity, and the losses on it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..plugins.windowed_affinity.torch_localisation import localise
from ..plugins.windowed_affinity.torch_op import windowed_affinity
from .network.encoder import STRIDE

MIN_PROBABILITY = 1e-6


def drop_colour(lab: Tensor, channel: Tensor) -> Tensor:
    """Hide the colour channel that is to be reconstructed, so that the encoder cannot match it directly.

    Args:
        lab: [B, F, 3, H, W] normalised Lab.
        channel: [B] int64, 1 (a) or 2 (b), the same for all frames of a window.

    Returns:
        [B, F, 3, H, W]: 0 in that channel; the other two times 1.5, which keeps the expected sum.

    Source: MAST (CVPR 2020), section 3.1; github.com/zlai0/MAST, ``dropout2d_lab``.
    """
    visible = 1 - functional.one_hot(channel, 3).to(lab.dtype)
    return lab * (1.5 * visible)[:, None, :, None, None]


def grid_colours(lab: Tensor, channel: Tensor) -> Tensor:
    """The hidden channel at the feature centres: [B, F, 3, H, W] and [B] -> [B, F, 1, h, w]."""
    batch, frames = lab.shape[:2]
    sampled = lab[..., ::STRIDE, ::STRIDE]
    index = channel.view(batch, 1, 1, 1, 1).expand(batch, frames, 1, *sampled.shape[3:])
    return sampled.gather(2, index)


def colour_classes(lab: Tensor, palette: Tensor) -> Tensor:
    """The class of the nearest of K colours at each feature centre.

    Args:
        lab: [B, F, 3, H, W] normalised Lab.
        palette: [K, 2], normalised a and b of the classes.

    Returns:
        [B, F, K, h, w], one-hot over K.

    Source: Tracking emerges by colorizing videos (ECCV 2018), section 3.2.
    """
    ab = lab[:, :, 1:, ::STRIDE, ::STRIDE]
    distance = (ab.unsqueeze(2) - palette.view(1, 1, -1, 2, 1, 1)).square().sum(3)
    return functional.one_hot(distance.argmin(2), len(palette)).movedim(-1, 2).to(lab.dtype)


def targets_and_references(frames: int, references: str) -> list[tuple[int, list[int]]]:
    """The frames of a window that are reconstructed, each with the frames it is reconstructed from.

    Args:
        frames: number of frames in the window, at least 2.
        references: ``others`` or ``previous`` (:class:`.recipe.Recipe`).
    """
    if references == "previous":
        return [(frames - 1, list(range(frames - 1)))]
    return [(target, [other for other in range(frames) if other != target]) for target in range(frames)]


def reconstruct(
    query: Tensor,
    key: Tensor,
    colours: Tensor,
    *,
    radius: int,
    scale: float,
    references: str = "others",
    coarse_step: int = 0,
) -> Tensor:
    """Copy colours from the other frames of a window, weighted by one joint softmax over all of them.

    Args:
        query: [B, F, C, h, w] features of all frames as targets.
        key: [B, F, C, h, w] features of all frames as references.
        colours: [B, F, O, h, w].
        radius: of the window, in features.
        scale: factor on inner products. With 1 instead of 1 / sqrt(C), training does not converge in newer
            torch.
        references: see :func:`targets_and_references`, which gives T targets.
        coarse_step: step of the search for window centres, 0 for none.

    Returns:
        [B, T, O, h, w].

    Source: arXiv 2006.12480, section 3 (joint softmax over references); MAST, section 3.3 (search).
    """
    pairs = targets_and_references(query.shape[1], references)
    targets = [target for target, _ in pairs]
    others = torch.tensor([list(sources) for _, sources in pairs], device=query.device)
    target_features = query[:, targets].flatten(0, 1)
    memory = key[:, others].flatten(0, 1)
    dilation = torch.ones(memory.shape[:2], dtype=torch.int32, device=query.device)
    offsets = None
    if coarse_step > 1:
        offsets = localise(target_features, memory, coarse_step * dilation, radius=radius, scale=scale)
    copied = windowed_affinity(
        target_features,
        memory,
        colours[:, others].flatten(0, 1),
        dilation,
        offsets,
        radius=radius,
        scale=scale,
    )
    return copied.view(len(query), len(targets), *copied.shape[1:])


def huber(predicted: Tensor, target: Tensor, delta: float) -> Tensor:
    """Mean Huber loss in units of ``delta``: 0.5 * (e / delta)^2 below it, |e| / delta - 0.5 above.

    ``predicted`` and ``target`` have one shape, and ``delta`` their unit. With delta 0.05 it equals MAST's smooth
    L1 on values times 20.
    """
    return functional.smooth_l1_loss(predicted, target, beta=delta) / delta


def cross_entropy(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of -log(probability of the true class); both arguments are [B, T, K, h, w]."""
    return -(predicted * target).sum(2).clamp(min=MIN_PROBABILITY).log().mean()
