"""What an object that is added later costs the first object, on real clips."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from feature_tracker import PATCH, encoder_features
from late_objects import disc, score_with_disc

from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.tracking.tracker import Tracker
from maskring.training.checkpoint import load_checkpoint
from maskring.training.feature_backend import FeatureBackend
from maskring.training.weights import shipped_checkpoint


@pytest.mark.slow
def test_a_late_object_costs_the_first_one_at_most_half_a_point(shared_data: Path) -> None:
    checkpoint, late, losses = load_checkpoint(shipped_checkpoint("pico")), 25, []
    for sequence in load_split(shared_data / "davis_dev", "dev20"):
        if sequence.name not in ("horsejump-low", "lucia", "scooter-gray"):
            continue
        features = encoder_features(checkpoint.query_encoder())
        channels, scores = features(np.zeros((PATCH, PATCH, 3), np.uint8))[0].shape[1], []
        for second_mask in (None, late):
            backend = FeatureBackend(features, channels, checkpoint.tracking)
            scores.append(score_with_disc(sequence, Tracker(backend), 240, second_mask, late)[0])
        losses.append(scores[0] - scores[1])
    assert len(losses) == 3
    assert np.mean(losses) <= 0.5


def test_the_disc_does_not_touch_the_object() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:40, 5:30] = True
    drawn = disc(mask)
    assert drawn.sum() > 50 and not (drawn & mask).any()
