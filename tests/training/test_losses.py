"""The pretext task and the momentum encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from maskring.plugins.windowed_affinity.reference import windowed_affinity
from maskring.training.averaging import ema_update, frozen_copy, update_running_mean
from maskring.training.losses import (
    colour_classes,
    cross_entropy,
    drop_colour,
    grid_colours,
    huber,
    reconstruct,
    targets_and_references,
)
from maskring.training.network.encoder import Encoder, EncoderConfig


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
    copied = reconstruct(query, key, colours, radius=2, scale=0.25)
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


def test_who_is_reconstructed_from_whom() -> None:
    assert targets_and_references(3, "others") == [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])]
    assert targets_and_references(3, "previous") == [(2, [0, 1])]


def test_last_frame_from_previous_ones() -> None:
    torch.manual_seed(0)
    query, colours = torch.randn(2, 3, 16, 5, 6), torch.randn(2, 3, 2, 5, 6)
    settings = {"radius": 2, "scale": 0.25}
    last = reconstruct(query, query, colours, references="previous", **settings)
    assert torch.allclose(last, reconstruct(query, query, colours, **settings)[:, 2:], atol=1e-6)


def test_search_finds_what_lies_outside_the_window() -> None:
    """Two frames, the second shifted by 6 features: a window of radius 2 alone cannot see that far."""
    torch.manual_seed(0)
    scene = functional.normalize(torch.randn(1, 16, 12, 24), dim=1) * 6
    colours = torch.randn(1, 1, 12, 24)
    features = torch.stack([scene[..., :18], scene[..., 6:]], dim=1)
    truth = torch.stack([colours[..., :18], colours[..., 6:]], dim=1)
    settings = {"radius": 2, "scale": 1.0, "references": "previous"}
    seen = truth[:, 1:, ..., :12]  # what is in both frames
    near = reconstruct(features, features, truth, **settings)[..., :12]
    found = reconstruct(features, features, truth, coarse_step=3, **settings)[..., :12]
    columns = slice(0, 11)  # the coarse grid passes through the match, whose window lies in the frame
    assert (found - seen)[..., columns].abs().mean() < 0.05 < 0.5 < (near - seen)[..., columns].abs().mean()


def test_classes_of_colours_and_their_cross_entropy() -> None:
    palette = torch.tensor([[0.0, 0.0], [0.5, 0.5], [-0.5, 0.5]])
    lab = torch.zeros(1, 2, 3, 8, 8)
    lab[0, 1, 1:, 4, 0] = torch.tensor([-0.4, 0.6])
    classes = colour_classes(lab, palette)
    assert classes.shape == (1, 2, 3, 2, 2)
    assert classes[0, 1, :, 1, 0].tolist() == [0, 0, 1] and classes[0, 0, :, 1, 0].tolist() == [1, 0, 0]
    predicted = torch.full((1, 2, 3, 2, 2), 0.25)
    assert math.isclose(cross_entropy(predicted, classes).item(), math.log(4), rel_tol=1e-6)
    assert cross_entropy(torch.zeros_like(classes), classes).isfinite()


def test_gradient_reaches_targets_and_references() -> None:
    query, key = (
        torch.randn(1, 2, 8, 5, 5, requires_grad=True),
        torch.randn(1, 2, 8, 5, 5, requires_grad=True),
    )
    reconstruct(query, key, torch.randn(1, 2, 1, 5, 5), radius=1, scale=0.3).square().sum().backward()
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
    return query, frozen_copy(query)


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
    ema_update(key, query, 0.9)
    for old, new in zip(before, key.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-6)


def test_running_mean_follows_quickly_at_first_and_takes_the_statistics(
    encoders: tuple[Encoder, Encoder],
) -> None:
    query, average = encoders
    before = [parameter.clone() for parameter in average.parameters()]
    with torch.no_grad():
        for tensor in (*query.parameters(), *(b for b in query.buffers() if b.is_floating_point())):
            tensor.add_(1.0)
    update_running_mean(average, query, 0.99, step=0)
    for old, new in zip(before, average.parameters(), strict=True):
        assert torch.allclose(new, old + 0.9, atol=1e-6)
    for ours, theirs in zip(average.buffers(), query.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    before = [parameter.clone() for parameter in average.parameters()]
    update_running_mean(average, query, 0.99, step=10**6)
    for old, new, fast in zip(before, average.parameters(), query.parameters(), strict=True):
        assert torch.allclose(new, old + 0.01 * (fast - old), atol=1e-6)
