"""What memory keeps of a frame does not depend on the guided filter, which moves the labels of pixels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import moving_square

from maskring.common.types import Labels
from maskring.runtime.tracking.tracker import Tracker
from maskring.training.checkpoint import load_checkpoint
from maskring.training.feature_backend import FeatureBackend, encoder_features
from maskring.training.weights import shipped_checkpoint


def noisy(index: int) -> tuple[np.ndarray, Labels]:
    """A moving square under noise, so that edges of colours are not those of features."""
    frame, mask = moving_square(index)
    noise = np.random.default_rng(index).integers(-40, 41, frame.shape)
    return np.clip(frame.astype(int) + noise, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("late", [False, True])
def test_memory_is_the_same_with_and_without_the_filter(late: bool) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint("pico"))
    features, kept, shown = encoder_features(checkpoint.query_encoder()), [], []
    for radius in (0, 2):
        settings = replace(checkpoint.tracking, guided_filter_radius=radius)
        backend = FeatureBackend(features, checkpoint.config.channels, settings)
        tracker = Tracker(backend)
        for index in range(6):
            frame, mask = noisy(index)
            given = mask if index == 0 else None
            if late and index == 3:
                given = np.zeros_like(mask)
                given[:8, :8] = 2
            labels = tracker.step(frame, given).labels
        kept.append(backend._values.numpy().copy())
        shown.append(labels)
    np.testing.assert_array_equal(*kept)
    assert (shown[0] != shown[1]).any()
