"""The pretext task and the momentum encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from maskring.plugins.windowed_affinity.reference import windowed_affinity
from maskring.training.encoder import Encoder, EncoderConfig
from maskring.training.losses import drop_colour, grid_colours, huber, reconstruct
from maskring.training.momentum import follow, momentum_copy


def test_dropout_hides_one_colour_channel_in_all_frames_of_a_window() -> None:
    lab = torch.randn(2, 3, 3, 8, 8)
    visible = drop_colour(lab, torch.tensor([1, 2]))
    assert visible[0, :, 1].abs().max() == 0
    assert visible[1, :, 2].abs().max() == 0
    assert torch.equal(visible[0, :, [0, 2]], 1.5 * lab[0, :, [0, 2]])
    assert torch.equal(visible[1, :, :2], 1.5 * lab[1, :, :2])


def test_colours_are_sampled_where_features_are_centred() -> None:
    lab = torch.randn(2, 3, 3, 9, 14)
    colours = grid_colours(lab, torch.tensor([2, 1]))
    assert colours.shape == (2, 3, 1, 3, 4)
    assert colours[0, 1, 0, 2, 3] == lab[0, 1, 2, 8, 12]
    assert colours[1, 2, 0, 1, 0] == lab[1, 2, 1, 4, 0]


def test_each_frame_is_reconstructed_from_all_the_others() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 16, 5, 6), torch.randn(2, 3, 16, 5, 6)
    colours = torch.randn(2, 3, 1, 5, 6)
    copied = reconstruct(query, key, colours, radius=2)
    for target, others in ((0, [1, 2]), (1, [0, 2]), (2, [0, 1])):
        expected = windowed_affinity(
            query[:, target],
            key[:, others],
            colours[:, others],
            torch.ones(2, 2, dtype=torch.int32),
            radius=2,
            scale=0.25,
        )
        assert torch.allclose(copied[:, target], expected, atol=1e-5)


def test_gradient_reaches_targets_and_references() -> None:
    query, key = (
        torch.randn(1, 2, 8, 5, 5, requires_grad=True),
        torch.randn(1, 2, 8, 5, 5, requires_grad=True),
    )
    reconstruct(query, key, torch.randn(1, 2, 1, 5, 5), radius=1).square().sum().backward()
    for features in (query, key):
        assert features.grad is not None and features.grad.abs().min(dim=2).values.max() > 0


def test_huber_is_the_smooth_l1_of_mast_on_twentyfold_values() -> None:
    one, other = torch.randn(1000) / 10, torch.randn(1000) / 10
    assert torch.isclose(huber(one, other, 0.05), functional.smooth_l1_loss(20 * one, 20 * other))
    assert math.isclose(huber(torch.tensor([3.0]), torch.tensor([1.0]), 0.5).item(), 3.5, rel_tol=1e-6)
    assert math.isclose(huber(torch.tensor([1.2]), torch.tensor([1.0]), 0.4).item(), 0.125, rel_tol=1e-5)


@pytest.fixture
def encoders() -> tuple[Encoder, Encoder]:
    query = Encoder(EncoderConfig(stem=4, stages=(4, 4, 4, 4), blocks=(1, 1, 1, 1), channels=4))
    return query, momentum_copy(query)


def test_key_encoder_starts_equal_and_has_no_gradient(encoders: tuple[Encoder, Encoder]) -> None:
    query, key = encoders
    for (name, ours), theirs in zip(key.named_parameters(), query.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr() and not ours.requires_grad and theirs.requires_grad


def test_key_encoder_follows_by_momentum(encoders: tuple[Encoder, Encoder]) -> None:
    query, key = encoders
    before = [parameter.clone() for parameter in key.parameters()]
    with torch.no_grad():
        for parameter in query.parameters():
            parameter.add_(1.0)
    follow(key, query, 0.9)
    for old, new in zip(before, key.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-6)
