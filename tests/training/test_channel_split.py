"""Features are rotated to their principal axes, and the last channels reset."""

from __future__ import annotations

import pytest
import torch

from maskring.training.channel_split import free_channels
from maskring.training.network.encoder import PRESETS, Encoder, EncoderConfig


def random_encoder() -> Encoder:
    """An encoder whose layers all contribute to the features."""
    torch.manual_seed(0)
    encoder = Encoder(PRESETS["nano-pyramid"]).eval()
    for layer in (encoder.head, encoder.lateral):
        torch.nn.init.normal_(layer.weight, std=0.02)
    torch.nn.init.normal_(encoder.head.bias)
    return encoder


def distances(features: torch.Tensor, channels: slice) -> torch.Tensor:
    points = features[0, channels].flatten(1).T
    return torch.cdist(points, points)


def frames() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 48, 64, generator=generator) for _ in range(3)]


def test_one_free_channel_leaves_distances_almost_unchanged() -> None:
    encoder, frame = random_encoder(), frames()[0]
    before = distances(encoder(frame), slice(0, 62))
    head = encoder.head.weight.clone()
    share = free_channels(encoder, frames(), 1)
    after = distances(encoder.eval()(frame), slice(0, 61))
    assert 0.99 < share < 1
    assert not torch.allclose(encoder.head.weight, head)
    assert (before - after).abs().max() < 0.1 * before.max()
    assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.999


def test_variance_moves_to_the_first_channels_and_the_last_are_reset() -> None:
    encoder, frame = random_encoder(), frames()[1]
    free_channels(encoder, frames(), 31)
    features = encoder.eval()(frame)[0, :62].flatten(1)
    spread = features.var(dim=1)
    assert spread[0] == spread[:31].max() and spread[:31].min() > 0
    assert encoder.patch is not None and encoder.lateral is not None
    assert encoder.patch.weight[31:].abs().max() == 0 and encoder.lateral.weight[31:].abs().max() == 0
    assert encoder.head.bias is not None and encoder.head.bias[31:].abs().max() == 0
    assert spread[31:].min() > 0


def test_features_compared_by_inner_product_are_refused() -> None:
    encoder = Encoder(EncoderConfig(stem=4, stages=(4, 4, 4, 4), blocks=(1, 1, 1, 1), channels=8))
    with pytest.raises(ValueError, match="distance"):
        free_channels(encoder, frames(), 2)
