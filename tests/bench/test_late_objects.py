"""The prototype of a memory that continues after a mask that only adds objects."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from feature_tracker import lab_features
from late_objects import ContinuingBackend, ContinuingRing, ContinuingTracker, disc, redistribute

from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.training.checkpoint import AffinitySettings

RED, GREEN, GREY = (200, 30, 30), (30, 200, 30), (120, 120, 120)


def lab_tracker() -> ContinuingTracker:
    settings = AffinitySettings(radius=4, logit_scale=600.0, smoothing_radius=0)
    channels = lab_features(np.zeros((8, 8, 3), np.uint8))[0].shape[1]
    return ContinuingTracker(ContinuingBackend(lab_features, channels, settings))


def scene(red: int, green: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a red square at column ``red`` and a green one at ``green``; and its labels, 1 and 2."""
    frame, labels = np.empty((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    frame[:] = GREY
    for name, (column, row, colour) in enumerate(((red, 8, RED), (green, 40, GREEN)), 1):
        frame[row : row + 16, column : column + 16] = colour
        labels[row : row + 16, column : column + 16] = name
    return frame, labels


def test_missing_votes_go_to_background_and_late_objects() -> None:
    votes = torch.tensor([0.1, 0.3, 0.2, 0.0]).view(1, 4, 1, 1)
    shared = redistribute(votes, [2]).flatten()
    assert torch.allclose(shared, torch.tensor([0.1 + 0.4 / 3, 0.3, 0.2 + 0.8 / 3, 0.0]), atol=1e-4)
    silent = redistribute(torch.tensor([0.0, 0.4, 0.0, 0.0]).view(1, 4, 1, 1), [2]).flatten()
    assert torch.allclose(silent, torch.tensor([0.6, 0.4, 0.0, 0.0]), atol=1e-4)


def test_a_late_object_is_tracked_and_older_frames_stay_in_memory() -> None:
    tracker = lab_tracker()
    _, labels = scene(8, 8)
    for index in range(16):
        frame, labels = scene(8 + 2 * index, 8 + 2 * index)
        mask = None
        if index == 0:
            mask = np.where(labels == 1, 1, 0).astype(np.uint8)
        if index == 8:
            mask = np.where(labels == 2, 2, 0).astype(np.uint8)
        result = tracker.step(frame, mask)
        if index == 8:
            assert tracker._ring.policy.long_term == (0, 8)
    for name in (1, 2):
        ours, truth = result.labels == name, labels == name
        assert (ours & truth).sum() / (ours | truth).sum() > 0.8


def test_a_mask_that_redraws_an_object_restarts_memory() -> None:
    tracker = lab_tracker()
    for index in range(4):
        frame, labels = scene(8, 8)
        tracker.step(frame, labels if index in (0, 3) else None)
    assert tracker._ring.policy.long_term == MemoryPolicy().long_term
    assert tracker._ring.policy.frames_read(1) == {0} and tracker._ring._clock == 1


def test_no_slot_is_lost() -> None:
    ring = ContinuingRing(MemoryPolicy())
    for clock in range(60):
        dilation, slot = ring.plan(10.0)
        assert dilation[slot] == 0
        ring.only_adds = clock in (3, 20, 41)
        if ring.only_adds:
            ring.restart()
        ring.commit()
        assert len(ring._free) + len(ring._slot_of_frame) == ring.policy.num_slots
    assert ring.policy.long_term == (0, 41) and set(ring._slot_of_frame) >= {0, 41}


def test_the_disc_does_not_touch_the_object() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:40, 5:30] = True
    drawn = disc(mask)
    assert drawn.sum() > 50 and not (drawn & mask).any()
