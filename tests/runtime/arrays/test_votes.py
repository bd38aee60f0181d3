"""What memory keeps of label probabilities, in the runtime and in the step graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskring.runtime.arrays.upsampling import argmax_planes
from maskring.runtime.arrays.votes import LEAST_VOTE, write_votes
from maskring.training.network.label_probabilities import one_hot_argmax, shares, votes


def written(probabilities: np.ndarray, exponent: int) -> np.ndarray:
    out = np.full_like(probabilities, np.nan)
    write_votes(probabilities, argmax_planes(probabilities), exponent, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("exponent", [0, 1, 4])
def test_runtime_and_graph_give_equal_votes(labels: int, exponent: int, dtype: type) -> None:
    noise = np.random.default_rng(labels).dirichlet(np.full(labels, 0.3), (9, 11)).transpose(2, 0, 1)
    probabilities = noise.astype(dtype)
    expected = votes(torch.from_numpy(probabilities)[None], exponent)[0].numpy()
    np.testing.assert_allclose(
        written(probabilities, exponent), expected, atol=1e-6 if dtype is np.float32 else 1e-3
    )


def test_a_vote_is_the_lead_to_the_exponent() -> None:
    places = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.1, 0.8, 0.1], [0.0, 0.0, 0.0]], np.float32)
    found = written(places.T[:, None], 2)[:, 0].T
    expected = [[1, 0, 0], [LEAST_VOTE, 0, 0], [0, 0.7**2, 0], [LEAST_VOTE, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_an_exponent_all_votes_are_1() -> None:
    probabilities = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(votes(probabilities, 0), one_hot_argmax(probabilities))


def test_shares_of_votes_are_probabilities() -> None:
    read = torch.tensor([0.3, 0.1, 0.0, 0.0, 0.5, 0.5]).view(3, 2, 1, 1)  # two labels at each of three places
    np.testing.assert_allclose(shares(read).flatten().numpy(), [0.75, 0.25, 0, 0, 0.5, 0.5], rtol=1e-6)
