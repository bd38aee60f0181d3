"""The encoder: MAST's size, any frame size, features centred where the runtime expects them."""

from __future__ import annotations

import pytest
import torch

from maskring.training.encoder import Encoder, EncoderConfig

TINY = EncoderConfig(stem=4, stages=(4, 4, 4, 4), blocks=(1, 1, 1, 1), channels=4)


def test_full_is_as_large_as_mast() -> None:
    assert Encoder(EncoderConfig.preset("full")).parameter_count() == 5_291_648


def test_nano_has_half_the_width() -> None:
    full, nano = EncoderConfig.preset("full"), EncoderConfig.preset("nano")
    assert nano.stem * 2 == full.stem
    assert tuple(2 * width for width in nano.stages) == full.stages
    assert (nano.blocks, nano.channels) == (full.blocks, full.channels)


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="full, nano"):
        EncoderConfig.preset("giant")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (37, 50), (39, 4)])
def test_any_size_gives_one_feature_per_four_pixels(height: int, width: int) -> None:
    features = Encoder(TINY).eval()(torch.randn(2, 3, height, width))
    assert features.shape == (2, 4, -(-height // 4), -(-width // 4))


def test_second_stage_halves_the_resolution_as_in_mast() -> None:
    x = Encoder(TINY).eval().stem(torch.randn(1, 3, 64, 64))
    sizes = [x.shape[-1]]
    for stage in Encoder(TINY).eval().stages:
        x = stage(x)
        sizes.append(x.shape[-1])
    assert sizes == [32, 32, 16, 16, 16]


def test_features_are_centred_on_every_fourth_pixel() -> None:
    torch.manual_seed(0)
    frame = torch.randn(1, 3, 160, 168, requires_grad=True)
    Encoder(TINY).eval()(frame)[0, :, 20, 22].sum().backward()
    assert frame.grad is not None
    seen = frame.grad.abs().sum((0, 1))
    for positions, centre in ((seen.sum(1).nonzero(), 80), (seen.sum(0).nonzero(), 88)):
        assert int(positions.min()) > 0  # the whole field of view lies inside the frame
        assert int(positions.min()) + int(positions.max()) == 2 * centre
