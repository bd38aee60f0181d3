"""The encoder: MAST's size, any frame size, features centred where the runtime expects them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from maskring.training.network.encoder import Encoder, EncoderConfig

TINY = EncoderConfig(stem=4, stages=(4, 4, 4, 4), blocks=(1, 1, 1, 1), channels=4)
PYRAMID = dataclasses.replace(TINY, pyramid=True)


def test_full_is_as_large_as_mast() -> None:
    encoder = Encoder(EncoderConfig.preset("full"))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 5_291_648


def test_nano_has_half_the_width() -> None:
    full, nano = EncoderConfig.preset("full"), EncoderConfig.preset("nano")
    assert nano.stem * 2 == full.stem
    assert tuple(2 * width for width in nano.stages) == full.stages
    assert (nano.blocks, nano.channels) == (full.blocks, full.channels)


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="full, nano, full-patch, nano-patch, full-pyramid, nano-pyramid"):
        EncoderConfig.preset("giant")


PATCHED = EncoderConfig(stem=4, stages=(4, 4, 4, 4), blocks=(1, 1, 1, 1), channels=64, patch=9)


def test_features_beside_a_patch_are_compared_by_distance() -> None:
    """Inner products of queries and keys are minus half squared distances, up to a term of the query."""
    torch.manual_seed(0)
    encoder = Encoder(PATCHED).eval()
    torch.nn.init.normal_(encoder.head.weight, std=0.1)
    one, other = encoder(torch.rand(2, 3, 24, 24) * 2 - 1)[:, None].double()
    key = encoder.keys(other)
    logits = torch.einsum("bcij,bckl->bijkl", one, key)
    x, y = one[:, :-2], other[:, :-2]
    distance = (x[..., None, None] - y[:, :, None, None]).square().sum(1)
    own = x.square().sum(1)[..., None, None]
    assert torch.allclose(logits, 0.5 * (own - distance), atol=1e-4)


def test_distances_survive_half_precision() -> None:
    encoder = Encoder(PATCHED).eval()
    features = encoder(torch.full((1, 3, 24, 24), 0.97))  # long vectors, all alike but at the borders
    key = encoder.keys(features.half()).float()
    exact = -0.5 * features.half().float()[:, :-2].square().sum(1)
    assert exact.abs().max() > 500  # one float16 would be off by up to 0.25
    assert torch.allclose(key[:, -2:].sum(1), exact, atol=0.02)


@pytest.mark.parametrize("pyramid", [False, True])
def test_untrained_patches_order_neighbours_as_raw_colours_do(pyramid: bool) -> None:
    encoder = Encoder(dataclasses.replace(PATCHED, pyramid=pyramid)).eval()
    torch.manual_seed(0)
    lab = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=(64, 64), mode="bicubic")
    features = encoder(lab)[0, :-2]
    raw = torch.nn.functional.unfold(lab, 9, stride=4, padding=4).view(3 * 81, 16, 16)
    inner = (slice(None), slice(2, 14), slice(2, 14))
    found, true = (x[inner].flatten(1).T for x in (features, raw))
    correlation = torch.corrcoef(torch.stack([torch.pdist(found), torch.pdist(true)]))[0, 1]
    assert correlation > 0.99


def test_features_without_a_patch_are_their_own_keys() -> None:
    features = torch.randn(1, 4, 3, 3)
    assert Encoder(TINY).keys(features) is features


@pytest.mark.parametrize("wrong", [{"patch": 8}, {"patch": -1}, {"patch": 9, "channels": 2}, {"inputs": 2}])
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"patch|1 or 3 channels"):
        EncoderConfig(**({"stem": 4, "stages": (4, 4, 4, 4), "channels": 8} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [TINY, PYRAMID])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (37, 50), (39, 4)])
def test_any_size_gives_one_feature_per_four_pixels(config: EncoderConfig, height: int, width: int) -> None:
    features = Encoder(config).eval()(torch.randn(2, 3, height, width))
    assert features.shape == (2, 4, -(-height // 4), -(-width // 4))


@pytest.mark.parametrize(
    ("config", "expected"), [(TINY, [32, 32, 16, 16, 16]), (PYRAMID, [32, 32, 16, 8, 8])]
)
def test_second_stage_halves_the_resolution_as_in_mast(config: EncoderConfig, expected: list[int]) -> None:
    x = Encoder(config).eval().stem(torch.randn(1, 3, 64, 64))
    sizes = [x.shape[-1]]
    for stage in Encoder(config).eval().stages:
        x = stage(x)
        sizes.append(x.shape[-1])
    assert sizes == expected


@pytest.mark.parametrize("name", ["nano", "full"])
def test_a_pyramid_costs_less_than_half(name: str) -> None:
    costs = []
    for kind in ("patch", "pyramid"):
        counter = FlopCounterMode(display=False)
        with counter, torch.device("meta"):
            Encoder(EncoderConfig.preset(f"{name}-{kind}"))(torch.empty(1, 3, 240, 240))
        costs.append(counter.get_total_flops())
    assert costs[1] < 0.42 * costs[0]


@pytest.mark.parametrize(("config", "row"), [(TINY, 40), (PYRAMID, 40), (PYRAMID, 41)])
def test_features_are_centred_on_every_fourth_pixel(config: EncoderConfig, row: int) -> None:
    """Those of a pyramid lie on a coarse feature, or halfway between two."""
    torch.manual_seed(0)
    frame = torch.randn(1, 3, 320, 320, requires_grad=True)
    Encoder(config).eval()(frame)[0, :, row, row + 2].sum().backward()
    assert frame.grad is not None
    seen = frame.grad.abs().sum((0, 1))
    centres = 4 * row, 4 * (row + 2)
    for positions, centre in zip((seen.sum(1).nonzero(), seen.sum(0).nonzero()), centres, strict=True):
        assert int(positions.min()) > 0  # the whole field of view lies inside the frame
        assert int(positions.min()) + int(positions.max()) == 2 * centre
