"""What a served model is compared with: the tracker on the plain export, with slots in the served order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from maskring.runtime.model.step_graph import load_step_graph
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker

RADIUS = 1
"""So small that the policy dilates windows on frames of this size."""


def serve(
    session: Any, clip: Iterable[tuple[np.ndarray, np.ndarray]], state: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """What Triton does with one sequence of frames and masks: state in, state out."""
    found = []
    pairs = {f"{name}_next": name for name in state}
    for index, (frame, mask) in enumerate(clip):
        feeds = {"frame": frame[None], "mask": (mask if index == 0 else np.zeros_like(mask))[None]}
        start = np.array([index == 0], np.int32)
        labels, *after = session.run(["labels", *pairs], feeds | {"start": start} | state)
        state.update(dict(zip(pairs.values(), after, strict=True)))
        found.append(labels[0])
    return found


def tracked(model: Path, clip: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """What the tracker makes of a clip."""
    with Tracker(ServedOrder(model)) as tracker:
        return [
            tracker.step(frame, mask if index == 0 else None).labels
            for index, (frame, mask) in enumerate(clip)
        ]


class ServedOrder:
    """Executes an exported model for the tracker, with slots in the order of the served model.

    The order has no meaning but for the last bit of sums, and labels that are equally probable hang on it.
    """

    def __init__(self, model: Path) -> None:
        self.metadata = load_step_graph(model)[1]
        self._session = onnxruntime.InferenceSession(model)
        self._frame_in_slot: dict[int, int] = {}
        self._now = 0

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        grid = self.metadata.feature_size(height, width)
        self._keys = np.zeros((slots, self.metadata.channels, *grid), np.float32)
        self._values = np.zeros((slots, labels, *grid), np.float32)

    def step(self, frame: Any, dilation: np.ndarray, slot: int) -> tuple[np.ndarray, np.ndarray]:
        slot_of_frame = {self._frame_in_slot[s]: s for s in np.flatnonzero(dilation).tolist()}
        policy = MemoryPolicy()
        reads = [*policy.long_term, *(self._now - age for age in policy.short_term)]
        slots = [slot_of_frame.pop(frame, None) for frame in reads]
        assert not slot_of_frame
        windows = [0 if found is None else dilation[found] for found in slots]
        feeds = {
            "frame": frame[None],
            "memory_keys": self._keys[None, [found or 0 for found in slots]],
            "memory_values": self._values[None, [found or 0 for found in slots]],
            "memory_dilation": np.array([windows], np.int32),
        }
        names = ["labels", "probabilities", "value", "key"]
        labels, probabilities, value, key = self._session.run(names, feeds)
        self._keys[slot], self._values[slot] = key[0], value[0]
        self._frame_in_slot[slot] = self._now
        self._now += 1
        return labels[0], probabilities[0]

    def write_value(self, slot: int, value: np.ndarray) -> None:
        self._values[slot] = value

    def close(self) -> None:
        pass
