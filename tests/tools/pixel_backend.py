"""A backend in a page of numpy: its features are the pixels, its memory read is the native kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskring.plugins.windowed_affinity.cpu_op import windowed_affinity
from maskring.runtime.model.metadata import ModelMetadata

CHANNELS = 4


def pixel_metadata(**changes: Any) -> ModelMetadata:
    return ModelMetadata(**({"stride": 4, "channels": CHANNELS, "radius": 3, "logit_scale": 200.0} | changes))


class PixelBackend:
    """Compares colours: the logit of two pixels is minus their squared distance in RGB, up to a constant.

    Records its calls and can be made to fail, for tests of the tracker.
    """

    def __init__(self, metadata: ModelMetadata | None = None) -> None:
        self.metadata = metadata or pixel_metadata()
        self.allocations: list[tuple[int, int, int, int]] = []
        self.dilations: list[list[int]] = []
        self.closed = 0
        self.fail_next: Exception | None = None
        self.fail_step = 0
        """Number of the step that fails, counted from 1; 0 for none."""

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        grid = self.metadata.feature_size(height, width)
        values = np.zeros((1, num_slots, num_labels, *grid), np.float32)
        if self.allocations and self.allocations[-1][:3] == (height, width, num_slots):
            values[:, :, : self.values.shape[2]] = self.values
        else:
            self.keys = np.zeros((1, num_slots, CHANNELS, *grid), np.float32)
        self.values = values
        self.labels = np.zeros((height, width), np.uint8)
        self.allocations.append((height, width, num_slots, num_labels))

    def step(
        self, frame: NDArray[np.uint8], dilation: NDArray[np.int32], write_slot: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        assert dilation[write_slot] == 0
        self.dilations.append(dilation.tolist())
        stride = self.metadata.stride
        colour = np.ascontiguousarray(frame[::stride, ::stride].transpose(2, 0, 1)).astype(np.float32) / 255
        square = (colour**2).sum(0, keepdims=True)
        query = np.concatenate([2 * colour, -np.ones_like(square)])[None]
        self.keys[0, write_slot] = np.concatenate([colour, square])
        self.values[0, write_slot] = np.nan  # garbage: nobody may read it in this step
        if len(self.dilations) == self.fail_step:
            raise RuntimeError("the step was made to fail")
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        keys, values = self.keys.copy(), self.values.copy()
        values[0, write_slot] = 0
        probabilities = windowed_affinity(
            query,
            keys,
            values,
            dilation[None],
            radius=self.metadata.radius,
            scale=self.metadata.logit_scale,
            top_k=self.metadata.top_k,
        )[0]
        if self.metadata.smoothing_radius:
            probabilities = smoothed(query[0], self.keys[0, write_slot], probabilities, self.metadata)
        winners = probabilities.argmax(0)
        one_hot = (winners == np.arange(len(probabilities)).reshape(-1, 1, 1)).astype(np.float32)
        self.values[0, write_slot] = one_hot
        self.labels[:] = interpolate(probabilities, *frame.shape[:2], stride).argmax(0)
        return self.labels, probabilities

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        self.values[0, slot] = value

    def merge_label(self, channel: int) -> None:
        self.values[0, :, 0] += self.values[0, :, channel]
        self.values[0, :, channel] = 0

    def close(self) -> None:
        self.closed += 1


Maps = NDArray[np.floating[Any]]


def smoothed(query: Maps, key: Maps, probabilities: Maps, metadata: ModelMetadata) -> Maps:
    """Each feature's mean of its neighbours' probabilities, weighted by how alike they are; by definition."""
    out = np.empty_like(probabilities)
    height, width = query.shape[1:]
    for y, x in np.ndindex(height, width):
        rows = slice(max(0, y - metadata.smoothing_radius), y + metadata.smoothing_radius + 1)
        columns = slice(max(0, x - metadata.smoothing_radius), x + metadata.smoothing_radius + 1)
        logits = np.einsum("c,chw->hw", query[:, y, x], key[:, rows, columns]) * metadata.logit_scale / 20
        weights = np.exp(logits - logits.max())
        out[:, y, x] = (probabilities[:, rows, columns] * weights).sum((1, 2)) / weights.sum()
    return out


def interpolate(maps: Maps, height: int, width: int, stride: int) -> Maps:
    """Bilinear, feature i on pixel stride * i, replicated beyond the last feature."""

    def along(maps: Maps, axis: int, length: int) -> Maps:
        position = np.minimum(np.arange(length) / stride, maps.shape[axis] - 1)
        low = position.astype(np.intp)
        high = np.minimum(low + 1, maps.shape[axis] - 1)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(3)])
        return maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share

    return along(along(maps, 1, height), 2, width)
