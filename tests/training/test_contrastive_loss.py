"""The contrastive loss over pairs of views."""

from __future__ import annotations

import math

import torch

from maskring.training.channel_split import reset_channels
from maskring.training.contrastive_loss import PairBatch, correspondence_loss, last_channels
from maskring.training.network.encoder import PRESETS, Encoder


def batch(
    anchors: list[list[int]],
    matches: list[list[list[float]]],
    anchor_layers: list[list[int]],
    layers: torch.Tensor,
) -> PairBatch:
    views = torch.zeros(len(anchors), 2, 3, 8, 8, dtype=torch.uint8)
    return PairBatch(
        views,
        torch.tensor(anchors),
        torch.tensor(matches),
        torch.tensor(anchor_layers, dtype=torch.uint8),
        layers.to(torch.uint8),
    )


def codes(side: int, length: float = 1.0) -> torch.Tensor:
    """[1, side^2, side, side]: features of different positions are orthogonal."""
    return length * torch.eye(side**2).view(1, side**2, side, side)


HIDDEN = [math.nan, math.nan]
BACKGROUND = torch.zeros(1, 3, 3)


def test_equal_features_score_as_chance() -> None:
    key = torch.ones(1, 4, 3, 3)
    pairs = batch([[0, 4]], [[[0.0, 0.0], [1.5, 1.0]]], [[0, 0]], BACKGROUND)
    assert math.isclose(correspondence_loss(key, key, pairs, 1.0).item(), math.log(9), rel_tol=1e-5)


def test_correct_matches_cost_nothing_and_wrong_ones_much() -> None:
    correct = batch([[0, 5]], [[[0.0, 0.0], [1.0, 2.0]]], [[0, 0]], BACKGROUND)
    wrong = batch([[0, 5]], [[[2.0, 2.0], [0.0, 0.0]]], [[0, 0]], BACKGROUND)
    features = codes(3, 5.0)
    assert correspondence_loss(features, features, correct, 1.0) < 1e-3
    assert correspondence_loss(features, features, wrong, 1.0) > 10


def test_a_match_between_features_counts_for_its_neighbours() -> None:
    features = codes(3, 5.0)
    near = batch([[0]], [[[0.0, 0.25]]], [[0]], BACKGROUND)
    far = batch([[0]], [[[0.0, 0.75]]], [[0]], BACKGROUND)
    one, three = (correspondence_loss(features, features, pairs, 1.0).item() for pairs in (near, far))
    assert math.isclose(three / one, 3, rel_tol=1e-3)


def test_a_hidden_anchor_may_match_anything_of_its_layer() -> None:
    layers = torch.tensor([[[1, 1, 0], [0, 0, 0], [0, 0, 0]]])
    query = codes(3, 5.0)
    piece = batch([[1]], [[HIDDEN]], [[1]], layers)
    background = batch([[1]], [[HIDDEN]], [[0]], layers)
    assert correspondence_loss(query, query, piece, 1.0) < 1e-3
    assert correspondence_loss(query, query, background, 1.0) > 10


def test_an_anchor_without_positives_has_a_finite_gradient() -> None:
    query = torch.randn(1, 4, 3, 3, requires_grad=True)
    pairs = batch([[1, 2]], [[HIDDEN, [0.0, 0.0]]], [[7, 0]], BACKGROUND)
    correspondence_loss(query, query, pairs, 1.0).backward()
    assert query.grad is not None and bool(query.grad.isfinite().all())


def test_other_pairs_are_negatives() -> None:
    key = torch.ones(2, 4, 5, 5)
    pairs = batch([[0], [0]], [[[0.0, 0.0]], [[0.0, 0.0]]], [[0], [0]], torch.zeros(2, 5, 5))
    negatives = math.ceil((5 - 2) / 4) ** 2
    assert math.isclose(
        correspondence_loss(key, key, pairs, 1.0).item(), math.log(25 + negatives), rel_tol=1e-5
    )


def test_last_channels_start_without_raw_colours_and_are_compared_by_distance() -> None:
    torch.manual_seed(0)
    encoder = Encoder(PRESETS["nano-pyramid"]).eval()
    reset_channels(encoder, 31)
    features = encoder(torch.randn(1, 3, 32, 32))
    part = last_channels(encoder, features, 31)
    assert part.shape[1] == 33
    assert torch.equal(part[:, :-2], features[:, 31:62]) and bool((part[:, -2:] == 1).all())
    assert encoder.patch is not None and encoder.patch.weight[31:].abs().max() == 0
    assert (
        encoder.patch.weight[:31].abs().min(dim=0).values.shape and encoder.head.weight[31:].abs().max() > 0
    )
    assert encoder.head.weight[:31].abs().max() == 0
    key = encoder.keys(part)
    first, second = part[0, :-2, 0, 0], part[0, :-2, 3, 5]
    product = (part[0, :, 0, 0] * key[0, :, 3, 5]).sum() - 0.5 * first.square().sum()
    assert torch.isclose(product, -0.5 * (first - second).square().sum(), atol=1e-3)
    assert torch.equal(last_channels(encoder, features, 0), features)
