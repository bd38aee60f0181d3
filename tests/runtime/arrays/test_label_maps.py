"""Label maps on small arrays, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from maskring.runtime.arrays import label_maps

STRIDE = 4


def test_samples_are_the_pixels_at_the_centres() -> None:
    labels = np.zeros((9, 12), np.uint8)
    labels[4, 8], labels[5, 9] = 2, 1
    samples = label_maps.sample(labels, 3, STRIDE)
    assert samples.shape == (3, 3, 3)
    assert samples[2].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert samples[1].sum() == 0 and samples[0].sum() == 8


def test_drawn_labels_replace_the_whole_redrawn_object_and_nothing_else() -> None:
    propagated = np.array([[1, 1, 2, 0]], np.uint8)
    drawn = np.array([[0, 0, 1, 0]], np.uint8)
    assert label_maps.overwrite(propagated, drawn, [1]).tolist() == [[0, 0, 1, 0]]
    assert label_maps.overwrite(propagated, drawn, []).tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("num_labels", [3, 8, 9, 40])
def test_boxes_and_areas(num_labels: int) -> None:
    labels = np.zeros((10, 12), np.uint8)
    labels[2:4, 3:8], labels[9, 11] = 1, num_labels - 1
    boxes = label_maps.boxes(labels, num_labels)
    assert boxes == {1: (3, 2, 8, 4), num_labels - 1: (11, 9, 12, 10)}
    assert label_maps.areas(labels, boxes) == {1: 10, num_labels - 1: 1}


def test_mean_confidences_leave_out_background_and_what_covers_no_feature() -> None:
    labels = np.zeros((5, 9), np.uint8)
    labels[0, 0] = labels[4, 8] = 1
    labels[1, 1] = 2  # between the features
    probabilities = np.zeros((3, 2, 3), np.float32)
    probabilities[1, 0, 0], probabilities[1, 1, 2] = 0.5, 1.0
    assert label_maps.mean_confidences(labels, probabilities, STRIDE) == {1: 0.75}
