"""Labels of pixels from probabilities of features, against the step graph's upsampling and argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskring.runtime.arrays.upsampling import argmax_planes, best_labels_of_pixels
from maskring.training.network.encoder import STRIDE
from maskring.training.network.upsampling import upsample


def smooth_probabilities(labels: int, rows: int, columns: int, seed: int) -> np.ndarray:
    """[O, h, w] float32 with regions as those of objects, of which a third label often leads between two."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.normal(size=(1, labels, rows // 4 + 2, columns // 4 + 2)) * 4)
    logits = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bilinear")[0]
    return logits.softmax(0).to(torch.float32).numpy()


@pytest.mark.parametrize("labels", [1, 2, 3, 11, 256])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (49, 66), (45, 67), (3, 2), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_pixels_are_labelled_as_in_the_graph(labels: int, height: int, width: int, dtype: type) -> None:
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    probabilities = smooth_probabilities(labels, rows, columns, labels + height).astype(dtype)
    best = argmax_planes(probabilities)
    np.testing.assert_array_equal(best, probabilities.argmax(0))
    found = np.full((height, width), 77, np.uint8)
    best_labels_of_pixels(probabilities, best, STRIDE, out=found)
    exact = upsample(torch.from_numpy(probabilities.astype(np.float64))[None], height, width, STRIDE)[0]
    leads = exact.topk(min(2, labels), dim=0).values
    clear = ((leads[0] - leads[-1] > 1e-6) | (labels == 1)).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], exact.argmax(0).numpy()[clear])


def test_equals_and_features_that_read_nothing_go_to_the_smallest_label() -> None:
    probabilities = np.zeros((3, 4, 5), np.float32)
    probabilities[1:, :2] = 0.5
    best = argmax_planes(probabilities)
    assert (best[:2] == 1).all() and not best[2:].any()
    found = np.empty((16, 20), np.uint8)
    best_labels_of_pixels(probabilities, best, 4, out=found)
    assert (found[:8] == 1).all() and not found[8:].any()
