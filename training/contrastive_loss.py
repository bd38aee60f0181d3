"""The contrastive loss over pairs of views: each anchor is told apart from all other features of the second view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .network.encoder import NORM_CHANNELS, Encoder
from .pairs import Pair

NEGATIVE_STEP = 4
"""Of the second views of other pairs, every so many rows and columns serve as negatives."""

MASKED_LOGIT = -1e9
"""Finite, so that an anchor without any positive has a gradient of 0 instead of nan."""


@dataclass(frozen=True)
class PairBatch:
    """P pairs, stacked (:class:`.pairs.Pair`).

    Attributes:
        views: [P, 2, 3, S, S] uint8 RGB.
        anchors: [P, K] int64.
        matches: [P, K, 2] float32, nan where hidden.
        anchor_layers: [P, K] uint8.
        layers: [P, s, s] uint8.
    """

    views: Tensor
    anchors: Tensor
    matches: Tensor
    anchor_layers: Tensor
    layers: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> PairBatch:
        """Stack one or more pairs of one size."""
        names = ("views", "anchors", "matches", "anchor_layers", "layers")
        return cls(*(torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs])) for name in names))

    def map(self, move: Callable[[Tensor], Tensor]) -> PairBatch:
        """This batch with ``move`` applied to each tensor."""
        parts = (self.views, self.anchors, self.matches, self.anchor_layers, self.layers)
        return PairBatch(*map(move, parts))


def last_channels(encoder: Encoder, features: Tensor, channels: int) -> Tensor:
    """The last ``channels`` of features [B, C, h, w], with the channels of the norm; all for 0."""
    if channels == 0:
        return features
    return features[:, -channels - (NORM_CHANNELS if encoder.patch is not None else 0) :]


def correspondence_loss(query: Tensor, key: Tensor, pairs: PairBatch, scale: float) -> Tensor:
    """InfoNCE over positions: cross-entropy of the match of each anchor in the second view.

    Candidates are all features of the second view and some of the other pairs' second views. Where both views
    show an anchor, the positives are the four features around its match, weighted bilinearly. Where the second
    view hides it, every feature of the same layer is a positive: a part that turns into view belongs to its
    object and not to what was behind it.

    Args:
        query: [P, C, s, s] features of the first views.
        key: [P, C, s, s] keys of the second views.
        pairs: P pairs with K anchors each.
        scale: factor on inner products before the softmax.

    Returns:
        A scalar, the mean over anchors in nats.

    Source: InfoNCE (arXiv 1807.03748).
    """
    side = key.shape[-1]
    anchors = query.flatten(2).gather(2, pairs.anchors[:, None].expand(-1, query.shape[1], -1))
    logits = scale * torch.einsum("pck,pcn->pkn", anchors, key.flatten(2))
    normaliser = torch.cat([logits, scale * _negatives(anchors, key)], dim=2).logsumexp(2)
    hidden = pairs.matches.isnan().any(2)
    at_match = _at_match(logits, pairs.matches.nan_to_num(), side)
    same_layer = pairs.layers.flatten(1)[:, None] == pairs.anchor_layers[:, :, None]
    in_layer = logits.masked_fill(~same_layer, MASKED_LOGIT).logsumexp(2)
    positive = torch.where(hidden, in_layer.where(hidden, normaliser), at_match)
    return (normaliser - positive).mean()


def _negatives(anchors: Tensor, key: Tensor) -> Tensor:
    """Inner products [P, K, M] with features of the other pairs."""
    count = len(key)
    sampled = key[..., NEGATIVE_STEP // 2 :: NEGATIVE_STEP, NEGATIVE_STEP // 2 :: NEGATIVE_STEP].flatten(2)
    others = [torch.cat([sampled[:index], sampled[index + 1 :]]) for index in range(count)]
    return torch.stack(
        [torch.einsum("ck,bcn->kbn", anchors[index], others[index]).flatten(1) for index in range(count)]
    )


def _at_match(logits: Tensor, matches: Tensor, side: int) -> Tensor:
    """Logits [P, K, s * s] at ``matches`` [P, K, 2], interpolated bilinearly: [P, K]."""
    corner = matches.floor().clamp(0, max(0, side - 2))
    rest = matches - corner
    interpolated = torch.zeros_like(logits[..., 0])
    for row in (0, 1):
        for column in (0, 1):
            index = (corner[..., 0] + row) * side + corner[..., 1] + column
            weight = (rest[..., 0] - (1 - row)).abs() * (rest[..., 1] - (1 - column)).abs()
            interpolated = interpolated + weight * logits.gather(2, index.long().unsqueeze(2)).squeeze(2)
    return interpolated
