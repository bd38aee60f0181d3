"""What adaptation learns from: small frames with their masks, in a bounded buffer; no torch in it."""

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
        index: of the frame in the stream.
        image: [S, S, 3] uint8 RGB, what the U-Net is shown of the frame.
        labels: [S, S] uint8 object ids.
        confidence: [S, S] uint8, 255 = certain.
        ids: objects that were followed.
        quality: 0 to 1; how far the mask is believed.
        true: the user gave the mask.
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
    """Turns a tracker's results into samples; remembers the objects' areas, which quality is judged by.

    Attributes:
        settings: size and margin of the views are used.
        stride: pixels per feature of the tracker's model.
    """

    settings: RefinementSettings
    stride: int
    _areas: dict[int, list[float]] = field(default_factory=dict)

    def view(self, result: Result) -> Crop:
        """What the U-Net is shown of a frame with this result of propagation."""
        height, width = result.labels.shape
        return Crop.around(result.objects, (height, width), self.settings.size, self.settings.margin)

    def make(self, image: Image, result: Result, mask: Labels | None) -> Sample:
        """The sample of a tracked frame.

        Args:
            image: [H, W, 3] uint8 RGB.
            result: what the tracker made of it.
            mask: [H, W] object ids, when the user gave one with this frame.
        """
        view, true = self.view(result), mask is not None
        quality = 1.0 if true else self._quality(result.objects)
        for state in result.objects:
            self._areas.setdefault(state.id, []).append(float(state.area))
            del self._areas[state.id][:-RECENT]
        return Sample(
            index=result.frame_index,
            image=view.image(image),
            labels=view.labels(result.labels),
            confidence=self._certain(view) if true else self._confidence(view, result),
            ids=tuple(state.id for state in result.objects),
            quality=quality,
            true=true,
        )

    def _certain(self, view: Crop) -> NDArray[np.uint8]:
        return np.full((view.size, view.size), 255, np.uint8)

    def _confidence(self, view: Crop, result: Result) -> NDArray[np.uint8]:
        seen = to_pixels(confidence(result.probabilities), view.box, self.stride)
        return np.rint(255 * view.values(seen)).astype(np.uint8)

    def _quality(self, objects: tuple[ObjectState, ...]) -> float:
        return frame_quality(
            [state.confidence for state in objects],
            [state.area for state in objects],
            [self._areas.get(state.id, []) for state in objects],
        )


class SampleBuffer:
    """Samples, at most ``limit`` of them: every true one first, of the others an even spread over the stream.

    Whenever it is full, every second of the propagated samples goes and only every second of those to come is
    taken, so that the ones kept stay evenly spaced however long the stream gets.
    """

    def __init__(self, limit: int) -> None:
        self.true: list[Sample] = []
        self.pseudo: list[Sample] = []
        self._limit = limit
        self._stride = 1

    def __len__(self) -> int:
        return len(self.true) + len(self.pseudo)

    def add(self, sample: Sample) -> None:
        """Take a sample, if it is one of those that are kept."""
        if sample.true:
            self.true.append(sample)
            del self.true[1 : max(1, len(self.true) - max(self._limit // 2, 1) + 1)]
        elif sample.index % self._stride == 0:
            self.pseudo.append(sample)
        while len(self) > self._limit and self.pseudo:
            self._stride *= 2
            self.pseudo = [kept for kept in self.pseudo if kept.index % self._stride == 0]
