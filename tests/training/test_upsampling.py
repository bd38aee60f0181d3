"""Interpolation: on the spot, to any size, with gradients; the operator that exports keep together."""

from __future__ import annotations

import pytest
import torch

from maskring.training.network.upsampling import upsample, upsample_like


def test_elements_stay_on_their_places() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    large = upsample(maps, 11, 14, 4)
    assert large.shape == (1, 1, 11, 14)
    torch.testing.assert_close(large[..., ::4, ::4], maps)
    torch.testing.assert_close(large[0, 0, 0, :5], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(large[0, 0, 0, 12:], torch.tensor([3.0, 3.0]))  # replicated beyond the last


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (6, 9), (1, 1)])
def test_the_operator_is_the_function(size: tuple[int, int]) -> None:
    coarse = torch.randn(2, 3, -(-size[0] // 2), -(-size[1] // 2), dtype=torch.float64, requires_grad=True)
    fine = torch.zeros(2, 1, *size, dtype=torch.float64)
    assert torch.equal(upsample_like(coarse, fine, 2), upsample(coarse, *size, 2))
    assert torch.autograd.gradcheck(lambda maps: upsample_like(maps, fine, 2), coarse)
    torch.library.opcheck(torch.ops.maskring.upsample_like.default, (coarse, fine, 2))
