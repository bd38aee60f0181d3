"""The tensors of one stream in the memory of the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....common.types import Array
from ...model.metadata import ModelMetadata
from ...model.tensor_names import DILATION, FRAME, KEY, KEYS, LABELS, PROBABILITIES, VALUE, VALUES


@dataclass(frozen=True)
class HostTensors:
    """Inputs and outputs of the step graph; memory (keys, values) lives here from frame to frame.

    Attributes:
        frame: uint8 [1, H, W, 3].
        keys: [1, N, C, h, w].
        values: [1, N, O, h, w].
        dilation: int32 [1, N].
        labels: uint8 [1, H, W].
        probabilities: [1, O, h, w].
    """

    frame: Array
    keys: Array
    values: Array
    dilation: Array
    labels: Array
    probabilities: Array

    @classmethod
    def zeros(
        cls, metadata: ModelMetadata, height: int, width: int, num_slots: int, num_labels: int
    ) -> HostTensors:
        """Empty memory for ``num_slots`` frames of ``height`` x ``width`` pixels."""
        grid = metadata.feature_size(height, width)
        dtype = np.dtype(metadata.dtype)
        return cls(
            frame=np.zeros((1, height, width, 3), np.uint8),
            keys=np.zeros((1, num_slots, metadata.channels, *grid), dtype),
            values=np.zeros((1, num_slots, num_labels, *grid), dtype),
            dilation=np.zeros((1, num_slots), np.int32),
            labels=np.zeros((1, height, width), np.uint8),
            probabilities=np.zeros((1, num_labels, *grid), dtype),
        )

    def with_labels(self, metadata: ModelMetadata, num_labels: int) -> HostTensors:
        """The same memory with more label channels; keys are shared, not copied."""
        _, height, width, _ = self.frame.shape
        grown = HostTensors.zeros(metadata, height, width, 0, num_labels)
        values = np.zeros((1, self.keys.shape[1], *grown.values.shape[2:]), self.values.dtype)
        values[:, :, : self.values.shape[2]] = self.values
        return HostTensors(self.frame, self.keys, values, self.dilation, self.labels, grown.probabilities)

    def can_grow_to(self, height: int, width: int, num_slots: int, num_labels: int) -> bool:
        """Whether only the number of labels differs from the present sizes, and does not shrink."""
        same = self.frame.shape[1:3] == (height, width) and self.keys.shape[1] == num_slots
        return same and self.values.shape[2] <= num_labels

    def inputs(self) -> dict[str, Array]:
        """Inputs of the step graph by name."""
        return {FRAME: self.frame, KEYS: self.keys, VALUES: self.values, DILATION: self.dilation}

    def outputs(self, slot: int) -> dict[str, Array]:
        """Outputs of a step by name: what memory keeps of the frame is written into ``slot`` directly."""
        return {
            LABELS: self.labels,
            PROBABILITIES: self.probabilities,
            KEY: self.keys[:, slot],
            VALUE: self.values[:, slot],
        }
