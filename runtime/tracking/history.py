"""Pixels and labels of the frames in memory, so that they can be searched for an object that is added later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...common.types import Image, Labels
from ..backends import DeviceFrame
from ..backends.device_frame import Pixels


@dataclass
class PastFrame:
    """A frame in memory.

    Attributes:
        frame: [H, W, 3] uint8 RGB, a copy.
        labels: [h, w] uint8 label channel of each feature.
    """

    frame: Image
    labels: Labels


class History:
    """The frame in each memory slot; as many as memory holds."""

    def __init__(self) -> None:
        self._frames: dict[int, PastFrame] = {}

    def __getitem__(self, slot: int) -> PastFrame:
        return self._frames[slot]

    def holds(self, slots: Iterable[int]) -> bool:
        """Whether the frames of all these slots are here. Frames on the GPU are not."""
        return all(slot in self._frames for slot in slots)

    def store(self, slot: int, frame: Pixels, labels: Labels) -> None:
        """Replace what a slot holds by a copy of a frame and the labels [h, w] (channels) of its features."""
        if isinstance(frame, DeviceFrame):
            self._frames.pop(slot, None)
        else:
            self._frames[slot] = PastFrame(np.array(frame), labels)

    def relabel(self, slot: int, labels: Labels) -> None:
        """Replace the labels of a slot by ``labels`` [h, w], if its frame is here."""
        if slot in self._frames:
            self._frames[slot].labels = labels

    def merge_label(self, channel: int) -> None:
        """Make a label background in all frames (object removed)."""
        for past in self._frames.values():
            past.labels[past.labels == channel] = 0
