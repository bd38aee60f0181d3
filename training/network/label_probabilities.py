"""The last operations of a tracking step on label probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ...plugins.windowed_affinity.torch_op import windowed_affinity
from ...runtime.arrays.votes import LEAST_VOTE

SMOOTHING_SCALE = 0.05
"""Logit scale of the smoothing read, as a fraction of the memory read's."""


def smooth_probabilities(
    probabilities: Tensor,
    query: Tensor,
    key: Tensor,
    radius: int,
    logit_scale: float,
    *,
    with_top_k: bool = False,
) -> Tensor:
    """Smooth label probabilities over similar neighbours in the same frame.

    The memory read labels each feature independently, which leaves speckle. This second read takes the frame
    itself as memory: one slot with the frame's key, and the probabilities as values.

    Args:
        probabilities: [B, O, h, w].
        query, key: features of the frame, [B, C, h, w].
        radius: of the window, in features.
        logit_scale: of the memory read. The smoothing read multiplies it by
            :data:`SMOOTHING_SCALE`, because neighbours in one frame are much alike.
        with_top_k: set ``top_k`` to the size of the whole window instead of 0. Both give the same result; a
            file whose memory read has a ``top_k`` then needs one function body instead of two.

    Returns:
        [B, O, h, w].
    """
    one_slot = torch.ones(len(query), 1, dtype=torch.int32, device=query.device)
    return windowed_affinity(
        query,
        key[:, None],
        probabilities[:, None],
        one_slot,
        radius=radius,
        scale=SMOOTHING_SCALE * logit_scale,
        top_k=(2 * radius + 1) ** 2 if with_top_k else 0,
    )


def one_hot_argmax(probabilities: Tensor) -> Tensor:
    """[B, O, h, w] -> same shape, 1 at the label with the largest value; at background where all are 0."""
    winner = probabilities.argmax(1, keepdim=True)
    channel = torch.arange(probabilities.shape[1], device=winner.device).view(1, -1, 1, 1)
    return (winner == channel).to(probabilities.dtype)


def votes(probabilities: Tensor, exponent: int) -> Tensor:
    """What memory keeps of label probabilities: a one-hot of the best label, weighted by how sure it is.

    A wrong label is seldom a sure one. With weights, it is outvoted by labels of other frames and of neighbours.

    Args:
        probabilities: [B, O, h, w], O >= 2.
        exponent: of the confidence, which is the best label's lead over the second; 0 gives every label weight 1.

    Returns:
        [B, O, h, w]; the best label has a weight from ``LEAST_VOTE`` to 1, the others 0.
    """
    best = one_hot_argmax(probabilities)
    if exponent == 0:
        return best
    lead = probabilities.amax(1, keepdim=True) - (probabilities - 2 * best).amax(1, keepdim=True)
    return best * (lead**exponent).clamp(min=LEAST_VOTE)


def shares(weighted: Tensor) -> Tensor:
    """A read of :func:`votes`, [B, O, h, w] -> probabilities: each label's share of the votes, 0 if there are none."""
    return weighted / weighted.sum(1, keepdim=True).clamp(min=LEAST_VOTE / 2)
