"""Labels along the edges of colours, against the step graph's guided filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskring.common.types import Floats
from maskring.runtime.arrays import guided_filter
from maskring.runtime.arrays.guided_filter import guided_labels
from maskring.runtime.arrays.upsampling import argmax_planes
from maskring.training.network import guided_filter as graph
from maskring.training.network.encoder import STRIDE
from maskring.training.network.guided_filter import guided_upsample


def scene(labels: int, height: int, width: int, seed: int) -> tuple[Floats, Floats]:
    """Probabilities [O, h, w] of discs whose colours differ from the background's, and Lab [3, H, W]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    lab = generator.normal(0, 0.02, (3, height, width)) + 0.3 * np.sin(x / 9)
    planes = np.zeros((labels, height, width))
    for label in range(1, labels):
        centre = generator.random(2) * (height, width)
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (
            min(height, width) * generator.uniform(0.1, 0.4)
        ) ** 2
        planes[:, disc], planes[label, disc] = 0, 1
        lab[:, disc] += generator.normal(0, 0.3, (3, 1))
    planes[0] = 1 - planes[1:].sum(0)
    coarse = torch.from_numpy(planes)[None, :, ::STRIDE, ::STRIDE]
    soft = torch.nn.functional.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)[0]
    return soft.to(torch.float32).numpy(), lab.astype(np.float32)


@pytest.mark.parametrize("labels", [2, 3, 11])
@pytest.mark.parametrize(("height", "width"), [(96, 130), (49, 66), (45, 67), (3, 2), (1, 1)])
@pytest.mark.parametrize("radius", [1, 2, 4])
def test_pixels_are_labelled_as_in_the_graph(labels: int, height: int, width: int, radius: int) -> None:
    probabilities, lab = scene(labels, height, width, labels + height + radius)
    found = np.full((height, width), 77, np.uint8)
    guided_labels(probabilities, argmax_planes(probabilities), lab, radius, STRIDE, out=found)
    exact = guided_upsample(torch.from_numpy(probabilities)[None], torch.from_numpy(lab)[None], radius)[0]
    leads = exact.topk(2, dim=0).values
    clear = (leads[0] - leads[1] > 1e-4).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], exact.argmax(0).numpy()[clear])


def test_it_is_the_least_squares_fit_to_the_window() -> None:
    probabilities, lab = scene(2, 48, 64, 5)
    fitted = guided_upsample(torch.from_numpy(probabilities)[None], torch.from_numpy(lab)[None], 2)[0, 1]
    row, column = 6, 9
    window = np.s_[row - 2 : row + 3, column - 2 : column + 3]
    colours = lab[:, ::STRIDE, ::STRIDE].astype(np.float64)[(slice(None), *window)].reshape(3, -1)
    values = probabilities[1][window].astype(np.float64).ravel()
    centred = colours - colours.mean(1, keepdims=True)
    covariance = centred @ centred.T / values.size + graph.GUIDED_FILTER_EPS * np.eye(3)
    slope = np.linalg.solve(covariance, centred @ (values - values.mean()) / values.size)
    colour = lab[:, STRIDE * row, STRIDE * column].astype(np.float64)
    expected = values.mean() + slope @ (colour - colours.mean(1))
    assert float(fitted[STRIDE * row, STRIDE * column]) == pytest.approx(expected, abs=1e-4)


def test_an_edge_follows_the_colours_where_bilinear_interpolation_cannot() -> None:
    """The edge lies three pixels right of a feature; the grid alone places it two pixels right."""
    lab = np.zeros((3, 64, 64), np.float32)
    lab[:, :, :31] = 0.5
    probabilities = np.zeros((2, 16, 16), np.float32)
    probabilities[1, :, :8] = 1
    probabilities[0] = 1 - probabilities[1]
    found = np.empty((64, 64), np.uint8)
    guided_labels(probabilities, argmax_planes(probabilities), lab, 2, STRIDE, out=found)
    np.testing.assert_array_equal(found, np.where(np.arange(64) < 31, 1, 0)[None].repeat(64, 0))


def test_where_memory_holds_nothing_is_background() -> None:
    probabilities, lab = (
        np.zeros((3, 4, 5), np.float32),
        np.random.default_rng(0).random((3, 16, 20), np.float32),
    )
    found = np.full((16, 20), 7, np.uint8)
    guided_labels(probabilities, argmax_planes(probabilities), lab, 2, STRIDE, out=found)
    assert not found.any()
    fitted = guided_upsample(torch.from_numpy(probabilities)[None], torch.from_numpy(lab)[None], 2)
    assert not fitted.argmax(1).any()


def test_both_take_the_same_variance_for_noise() -> None:
    assert guided_filter.EPS == graph.GUIDED_FILTER_EPS
