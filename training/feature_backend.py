"""A tracking backend in torch, for encoders that were not exported and for any other features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.types import Image
from ..plugins.windowed_affinity.torch_float32 import exact_float32
from ..plugins.windowed_affinity.torch_localisation import localise
from ..plugins.windowed_affinity.torch_op import windowed_affinity
from ..runtime.backends.device_frame import Pixels
from ..runtime.model.metadata import ModelMetadata
from .checkpoint import AffinitySettings
from .network.colour import lab_image
from .network.encoder import STRIDE, Encoder
from .network.guided_filter import guided_upsample
from .network.label_probabilities import shares, smooth_probabilities, votes
from .network.upsampling import upsample

Features = Callable[[Image], tuple[Tensor, Tensor]]
"""A frame [H, W, 3] uint8 RGB -> its query and its key, [1, C, h, w] float32 on the CPU each."""


def encoder_features(encoder: Encoder) -> Features:
    """Query and key by ``encoder``, which may be on any device and must be in evaluation mode."""
    device = next(encoder.parameters()).device

    @torch.no_grad()
    def features(frame: Image) -> tuple[Tensor, Tensor]:
        with exact_float32():
            query = encoder(lab_image(frame).to(device))
        return query.float().cpu(), encoder.keys(query).float().cpu()

    return features


class FeatureBackend:
    """A :class:`maskring.runtime.backends.Backend` that reads memory on the CPU.

    Args:
        features: computes query and key of a frame.
        channels: C, the depth of the features.
        settings: of the memory read.
    """

    def __init__(self, features: Features, channels: int, settings: AffinitySettings) -> None:
        self.metadata = ModelMetadata(
            STRIDE,
            channels,
            settings.radius,
            settings.logit_scale,
            settings.top_k,
            settings.roi_step,
            settings.smoothing_radius,
            settings.confidence_exponent,
            settings.guided_filter_radius,
        )
        self._features = features
        self._keys = self._values = torch.zeros(0)

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """Allocate memory; its content stays when only the number of labels grows."""
        grid = self.metadata.feature_size(height, width)
        values = torch.zeros(1, num_slots, num_labels, *grid)
        if self._values.shape[-2:] == grid and self._values.shape[1] == num_slots:
            values[:, :, : self._values.shape[2]] = self._values
        else:
            self._keys = torch.zeros(1, num_slots, self.metadata.channels, *grid)
        self._values = values

    @torch.no_grad()
    def step(
        self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        """Label ``frame`` and write it into memory."""
        image, settings = np.asarray(frame), self.metadata
        query, key = self._features(image)
        read: dict[str, Any] = {"radius": settings.radius, "scale": settings.logit_scale}
        window_steps, offsets = torch.from_numpy(dilation.copy())[None], None
        if settings.roi_step and bool((window_steps > 1).any()):
            offsets = localise(query, self._keys, window_steps, step=settings.roi_step, **read)
            window_steps = window_steps.clamp(max=1)
        probabilities = windowed_affinity(
            query, self._keys, self._values, window_steps, offsets, top_k=settings.top_k, **read
        )
        if settings.confidence_exponent:
            probabilities = shares(probabilities)
        if settings.smoothing_radius:
            probabilities = smooth_probabilities(
                probabilities, query, key, settings.smoothing_radius, settings.logit_scale
            )
        self._keys[:, write_slot] = key
        self._values[:, write_slot] = votes(probabilities, settings.confidence_exponent)
        height, width = image.shape[:2]
        if settings.guided_filter_radius:
            of_pixels = guided_upsample(probabilities, lab_image(image), settings.guided_filter_radius)
        else:
            of_pixels = upsample(probabilities, height, width, STRIDE)
        labels = of_pixels.argmax(1)[0]
        return labels.to(torch.uint8).numpy(), probabilities[0].numpy()

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        """Replace the label map of ``slot``."""
        self._values[0, slot] = torch.from_numpy(np.array(value))

    def merge_label(self, channel: int) -> None:
        """Add label channel ``channel`` to background in all slots, and clear it."""
        self._values[:, :, 0] += self._values[:, :, channel]
        self._values[:, :, channel] = 0

    def close(self) -> None:
        """Release the memory."""
        self._keys = self._values = torch.zeros(0)
