"""The real tracker over any features, for baselines and ablations that no exported model holds."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from maskring.common.types import Image
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker
from maskring.training.checkpoint import AffinitySettings
from maskring.training.feature_backend import FeatureBackend, Features
from maskring.training.feature_backend import encoder_features as uncached_features
from maskring.training.network.colour import lab_image
from maskring.training.network.encoder import STRIDE, Encoder

PATCH = 2 * STRIDE  # pixels


def encoder_features(encoder: Encoder) -> Features:
    """Query and key by ``encoder``; each frame is encoded once, however many variants track it."""
    encoder = encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features, cache = uncached_features(encoder), dict[bytes, tuple[torch.Tensor, torch.Tensor]]()

    def cached(frame: Image) -> tuple[torch.Tensor, torch.Tensor]:
        digest = hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()
        if digest not in cache:
            cache[digest] = features(frame)
        return cache[digest]

    return cached


def lab_features(frame: Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw Lab values of the 8x8 patch around every fourth pixel, [1, C, h, w].

    One more channel gives all vectors the same length, so that inner products order patches by their
    distance: the fairest comparison that raw values can get.
    """
    lab = lab_image(frame)
    height, width = lab.shape[-2:]
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    below, right = STRIDE * (rows - 1) + PATCH - height, STRIDE * (columns - 1) + PATCH - width
    before = PATCH // 2
    padded = torch.nn.functional.pad(
        lab, (before, max(0, right - before), before, max(0, below - before)), mode="replicate"
    )
    patches = torch.nn.functional.unfold(padded, PATCH, stride=STRIDE)
    patches = patches.view(1, -1, *_grid(padded))[..., :rows, :columns] / PATCH
    longest = 3.0 * 2  # |L|, |a|, |b| are at most about 1 each
    rest = (longest - patches.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    features = torch.cat([patches, rest], dim=1)
    return features, features


def _grid(padded: torch.Tensor) -> tuple[int, int]:
    height, width = padded.shape[-2:]
    return (height - PATCH) // STRIDE + 1, (width - PATCH) // STRIDE + 1


def feature_tracker(features: Features, *, policy: MemoryPolicy | None = None, **settings: Any) -> Tracker:
    """A tracker over ``features`` that does not smooth unless ``settings`` say so (``AffinitySettings``)."""
    channels = features(np.zeros((PATCH, PATCH, 3), np.uint8))[0].shape[1]
    read = AffinitySettings(**{"smoothing_radius": 0, **settings})
    return Tracker(FeatureBackend(features, channels, read), policy=policy)


class FirstMask:
    """Repeats the first mask for ever: what tracking has to beat."""

    def step(self, frame: Image, mask: Image | None = None) -> FirstMask:
        if mask is not None:
            self.labels = mask
        return self

    def close(self) -> None:
        pass
