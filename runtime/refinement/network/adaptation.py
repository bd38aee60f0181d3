"""Adaptation: the U-Net learns one video. Shared by both modes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...arrays.overlap import intersection_over_union
from ..guard import AGREEMENT, LEARNED, NOT_LEARNED_REASON, unsure
from ..quality import LEAST_QUALITY
from ..samples import Sample, SampleBuffer
from ..settings import RefinementSettings
from .augmentation import STRONG, WEAK, augment
from .losses import weighted_cross_entropy, weighted_dice
from .predictor import Predictor, as_tensor

LAST_RATE = 0.05
"""Learning rate at the end of an offline adaptation, as a fraction of the first one."""

Tensors = tuple[Tensor, Tensor, Tensor]


class Adaptation:
    """An optimiser that fits a predictor to the samples of a video.

    Args:
        settings: see :class:`RefinementSettings`.
        predictor: adapted before; None to start from random weights (Deep Image Prior: the structure of the
            U-Net fits objects before it fits the noise of propagation).

    Attributes:
        predictor: the U-Net that is fitted.
        iterations: optimiser steps taken.
    """

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        self.predictor = predictor or Predictor.untrained(settings.width, settings.seed)
        self.iterations = 0
        self._settings = settings
        self._rng = np.random.default_rng(settings.seed)
        self._optimiser = self._new_optimiser()

    def step(self, buffer: SampleBuffer, *, anneal: bool) -> float:
        """Take one optimiser step on a random batch.

        Args:
            buffer: holds at least one sample with a true mask.
            anneal: lower the learning rate along a cosine over ``settings.iterations``.

        Returns:
            The loss.
        """
        samples = self._batch(buffer)
        if self.predictor.follow([known for sample in samples for known in sample.ids], self._settings.seed):
            self._optimiser = self._new_optimiser()
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * (self._annealed() if anneal else 1.0)
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(samples)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.iterations += 1
        return float(loss.detach())

    def reassess(self, buffer: SampleBuffer) -> None:
        """Lower the quality of propagated masks with which the U-Net disagrees; leave out those that lost the object.

        By now the U-Net has learned what is consistent over the video, so it disagrees with masks that drifted
        off. It would come to agree with them if it went on learning from them.
        """
        for sample in buffer.pseudo:
            found = self.predictor.predict(sample.image, sample.ids).argmax(0)
            agreed = [
                intersection_over_union(sample.labels == known, found == channel)
                for channel, known in enumerate(sample.ids, start=1)
            ]
            if agreed:
                agreement = float(np.mean(agreed))
                sample.quality *= agreement if agreement >= AGREEMENT else 0.0

    def not_learned(self, buffer: SampleBuffer) -> dict[int, str]:
        """Objects that the U-Net does not find where the user drew them -> the reason for the guard."""
        reasons = {}
        for sample in buffer.true:
            found = self.predictor.predict(sample.image, sample.ids).argmax(0)
            for channel, known in enumerate(sample.ids, start=1):
                if intersection_over_union(sample.labels == known, found == channel) < LEARNED:
                    reasons[known] = NOT_LEARNED_REASON
        return reasons

    def unsure(self, sample: Sample) -> dict[int, str]:
        """Objects whose mask changes when the U-Net sees the sample's frame mirrored -> the reason."""
        direct = self.predictor.predict(sample.image, sample.ids)
        return unsure(sample.ids, direct, self.predictor.predict(sample.image, sample.ids, mirrored=True))

    def _loss(self, samples: Sequence[Sample]) -> Tensor:
        images, targets, weights = (torch.stack(p) for p in zip(*map(self._augmented, samples), strict=True))
        logits = self.predictor.logits(images, [sample.ids for sample in samples])
        targets, weights = targets.to(logits.device), weights.to(logits.device)
        entropy = self._settings.cross_entropy * weighted_cross_entropy(logits, targets, weights)
        dice = self._settings.dice * weighted_dice(logits, targets, weights)
        share = [self._share(sample, len(samples)) for sample in samples]
        shares = torch.tensor(share, device=logits.device)
        return ((entropy + dice) * shares).sum() / shares.sum().clamp(min=1e-6)

    def _batch(self, buffer: SampleBuffer) -> list[Sample]:
        """One true sample, and propagated ones with a probability in proportion to their quality."""
        samples = [buffer.true[int(self._rng.integers(len(buffer.true)))]]
        usable = [sample for sample in buffer.pseudo if sample.quality >= LEAST_QUALITY]
        if usable and self._settings.pseudo_frames:
            quality = np.array([sample.quality for sample in usable])
            picks = self._rng.choice(len(usable), self._settings.pseudo_frames, p=quality / quality.sum())
            samples += [usable[int(pick)] for pick in picks]
        return samples

    def _augmented(self, sample: Sample) -> Tensors:
        channels = np.zeros(256, np.int64)
        channels[self.predictor.ids] = np.arange(1, len(self.predictor.ids) + 1)
        labels = torch.from_numpy(channels[sample.labels])
        target = torch.nn.functional.one_hot(labels, len(self.predictor.ids) + 1).permute(2, 0, 1).float()
        weight = torch.from_numpy(sample.confidence.astype(np.float32) / 255)
        strength = STRONG if sample.true else WEAK
        return augment(self._rng, as_tensor(sample.image), target, weight, strength)

    def _share(self, sample: Sample, batch: int) -> float:
        return self._settings.true_mask * max(batch - 1, 1) if sample.true else 1.0

    def _annealed(self) -> float:
        done = min(self.iterations / max(self._settings.iterations, 1), 1.0)
        return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))

    def _new_optimiser(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.predictor.unet.parameters(), lr=self._settings.learning_rate)
