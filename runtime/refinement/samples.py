"""What adaptation learns from: small frames with their masks, in a bounded buffer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...common.types import Image, Labels
from ..arrays.upsampling import to_pixels
from ..tracking.result import ObjectState, Result
from .crop import Crop
from .quality import RECENT, confidence, frame_quality
from .settings import RefinementSettings


@dataclass(eq=False)
class Sample:
    """One frame.

    Attributes:
        index: position of the frame in the stream.
        image: [S, S, 3] uint8 RGB, the crop that the U-Net is shown.
        labels: [S, S] uint8 object ids.
        confidence: [S, S] uint8, 255 = certain.
        ids: objects that were tracked.
        quality: trust in the mask, 0 to 1.
        true: the user drew the mask.
    """

    index: int
    image: Image
    labels: Labels
    confidence: NDArray[np.uint8]
    ids: tuple[int, ...]
    quality: float
    true: bool


@dataclass
class SampleMaker:
    """Turns a tracker's results into samples. It remembers recent areas, which decide the quality.

    Attributes:
        settings: size and margin of the crops are used.
        stride: pixels per feature of the tracker's model.
    """

    settings: RefinementSettings
    stride: int
    _areas: dict[int, list[float]] = field(default_factory=dict)

    def crop(self, result: Result) -> Crop:
        """The part of a frame that the U-Net is shown, given its propagated result."""
        height, width = result.labels.shape
        return Crop.around(result.objects, (height, width), self.settings.size, self.settings.margin)

    def make(self, image: Image, result: Result, mask: Labels | None) -> Sample:
        """The sample of a tracked frame.

        Args:
            image: [H, W, 3] uint8 RGB.
            result: the tracker's result of this frame.
            mask: [H, W] object ids that the user gave with this frame, if any.
        """
        crop, true = self.crop(result), mask is not None
        quality = 1.0 if true else self._quality(result.objects)
        for state in result.objects:
            self._areas.setdefault(state.id, []).append(float(state.area))
            del self._areas[state.id][:-RECENT]
        return Sample(
            index=result.frame_index,
            image=crop.image(image),
            labels=crop.labels(result.labels),
            confidence=self._certain(crop) if true else self._confidence(crop, result),
            ids=tuple(state.id for state in result.objects),
            quality=quality,
            true=true,
        )

    def _certain(self, crop: Crop) -> NDArray[np.uint8]:
        return np.full((crop.size, crop.size), 255, np.uint8)

    def _confidence(self, crop: Crop, result: Result) -> NDArray[np.uint8]:
        inside = to_pixels(confidence(result.probabilities), crop.box, self.stride)
        return np.rint(255 * crop.values(inside)).astype(np.uint8)

    def _quality(self, objects: tuple[ObjectState, ...]) -> float:
        return frame_quality(
            [state.confidence for state in objects],
            [state.area for state in objects],
            [self._areas.get(state.id, []) for state in objects],
        )


class SampleBuffer:
    """At most ``limit`` samples: the true ones, and propagated ones evenly spread over the stream.

    Whenever it is full, every second propagated sample goes, and from then on only every second new one is
    taken, so the samples stay evenly spaced however long the stream gets.
    """

    def __init__(self, limit: int) -> None:
        self.true: list[Sample] = []
        self.pseudo: list[Sample] = []
        self._limit = limit
        self._stride = 1

    def __len__(self) -> int:
        return len(self.true) + len(self.pseudo)

    def add(self, sample: Sample) -> None:
        """Add a sample, unless the spacing leaves it out."""
        if sample.true:
            self.true.append(sample)
            del self.true[1 : max(1, len(self.true) - max(self._limit // 2, 1) + 1)]
        elif sample.index % self._stride == 0:
            self.pseudo.append(sample)
        while len(self) > self._limit and self.pseudo:
            self._stride *= 2
            self.pseudo = [one for one in self.pseudo if one.index % self._stride == 0]
