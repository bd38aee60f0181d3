"""The real tracker over any features, for baselines and ablations that no exported model holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskring.export.step_module import one_hot_argmax, smoothed
from maskring.plugins.windowed_affinity.torch_localisation import localise
from maskring.plugins.windowed_affinity.torch_op import windowed_affinity
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker
from maskring.training.network.colour import normalise_lab, rgb_to_lab
from maskring.training.network.encoder import STRIDE, Encoder
from maskring.training.network.upsampling import upsample

Image = NDArray[np.uint8]
Features = Callable[[Image], tuple[torch.Tensor, torch.Tensor]]
"""From a frame [H, W, 3] to its query and its key, [1, C, h, w] each."""

PATCH = 2 * STRIDE  # pixels


def encoder_features(encoder: Encoder) -> Features:
    """Query and key by ``encoder``; each frame is encoded once."""
    encoder = encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    known: dict[bytes, torch.Tensor] = {}

    @torch.no_grad()
    def features(frame: Image) -> tuple[torch.Tensor, torch.Tensor]:
        name = hashlib.blake2b(np.ascontiguousarray(frame), digest_size=16).digest()
        if name not in known:
            known[name] = encoder(_normalised(frame))
        return known[name], encoder.keys(known[name])

    return features


def lab_features(frame: Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw Lab values of the 8x8 patch around every fourth pixel, [1, C, h, w].

    One more channel gives all vectors the same length, so that inner products order patches by their
    distance: the fairest comparison that raw values can get.
    """
    lab = _normalised(frame)
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


def _normalised(frame: Image) -> torch.Tensor:
    """[H, W, 3] RGB -> [1, 3, H, W] normalised Lab."""
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    return normalise_lab(rgb_to_lab(image))


def _grid(padded: torch.Tensor) -> tuple[int, int]:
    height, width = padded.shape[-2:]
    return (height - PATCH) // STRIDE + 1, (width - PATCH) // STRIDE + 1


class FeatureBackend:
    """A backend (:class:`maskring.runtime.backends.Backend`) in torch, over any features.

    Args:
        features: of a frame.
        radius, scale, top_k: settings of the memory read.
        localised: search slots that the policy dilates, and centre their windows on what was found.
        smooth: radius of the smoothing that follows the read, 0 for none.
    """

    def __init__(
        self,
        features: Features,
        *,
        radius: int,
        scale: float,
        top_k: int = 0,
        localised: bool = False,
        smooth: int = 0,
    ) -> None:
        channels = features(np.zeros((PATCH, PATCH, 3), np.uint8))[0].shape[1]
        self.metadata = ModelMetadata(STRIDE, channels, radius, scale, top_k, smooth=smooth)
        self.features, self.localised = features, localised
        self.values = torch.zeros(0)

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        grid = self.metadata.feature_size(height, width)
        values = torch.zeros(1, slots, labels, *grid)
        if self.values.shape[-2:] == grid and self.values.shape[1] == slots:
            values[:, :, : self.values.shape[2]] = self.values
        else:
            self.keys = torch.zeros(1, slots, self.metadata.channels, *grid)
        self.values = values

    def step(
        self, frame: Image, dilation: NDArray[np.int32], write_slot: int, soft: bool
    ) -> tuple[Image, NDArray[np.floating[Any]]]:
        (query, key), settings = self.features(frame), self.metadata
        read = {"radius": settings.radius, "scale": settings.scale}
        steps, offsets = torch.from_numpy(dilation.copy())[None], None
        if self.localised and bool((steps > 1).any()):
            offsets = localise(query, self.keys, steps, **read)
            steps = steps.clamp(max=1)
        probabilities = windowed_affinity(
            query, self.keys, self.values, steps, offsets, top_k=settings.top_k, **read
        )
        if settings.smooth:
            probabilities = smoothed(probabilities, query, key, settings.smooth, settings.scale)
        self.keys[:, write_slot] = key
        self.values[:, write_slot] = probabilities if soft else one_hot_argmax(probabilities)
        labels = upsample(probabilities, *frame.shape[:2], STRIDE).argmax(1)[0].to(torch.uint8).numpy()
        return labels, probabilities[0].numpy()

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        self.values[0, slot] = torch.from_numpy(np.array(value))

    def merge_label(self, channel: int) -> None:
        self.values[:, :, 0] += self.values[:, :, channel]
        self.values[:, :, channel] = 0

    def close(self) -> None:
        pass


def feature_tracker(
    features: Features, *, policy: MemoryPolicy | None = None, soft: bool = False, **settings: Any
) -> Tracker:
    """A tracker over ``features``; ``settings`` as :class:`FeatureBackend`."""
    return Tracker(FeatureBackend(features, **settings), policy=policy, soft=soft)


class FirstMask:
    """Repeats the first mask for ever: what tracking has to beat."""

    def step(self, frame: Image, mask: Image | None = None) -> FirstMask:
        if mask is not None:
            self.labels = mask
        return self

    def close(self) -> None:
        pass
