"""The tensors of one stream on the GPU, and their counterparts on the host."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...model.metadata import ModelMetadata
from ...model.tensor_names import DILATION, FRAME, KEYS, VALUES
from .allocations import ALIGNMENT, DeviceBuffer, PinnedArray
from .device import Device

Sizes = tuple[int, int, int, int]
"""Height, width, number of slots, number of labels."""


@dataclass(frozen=True)
class DeviceTensors:
    """The tensors of one stream on the GPU, and where they are copied from and to on the host.

    Attributes:
        sizes: height, width, number of slots, number of labels.
        grid: (h, w).
        frames: two of uint8 [1, H, W, 3]: one is read while the other is filled.
        keys: [1, N, C, h, w].
        values: [1, N, O, h, w].
        dilation: int32 [1, N].
        labels: uint8 [1, H, W].
        probabilities: [1, O, h, w].
        key, value: [1, C, h, w], [1, O, h, w]: outputs for slots that TensorRT does not write to directly;
            they are copied into the slot afterwards.
        separate_outputs: TensorRT writes to no slot directly. Needed where the engine reads all slots in each
            step, the written one included, and masks out the unused ones: an unfinished output may hold
            anything.
        host_frames, host_dilation, host_labels, host_probabilities, host_value: page-locked.
    """

    sizes: Sizes
    grid: tuple[int, int]
    frames: tuple[DeviceBuffer, DeviceBuffer]
    keys: DeviceBuffer
    values: DeviceBuffer
    dilation: DeviceBuffer
    labels: DeviceBuffer
    probabilities: DeviceBuffer
    key: DeviceBuffer
    value: DeviceBuffer
    host_frames: tuple[PinnedArray, PinnedArray]
    host_dilation: PinnedArray
    host_labels: PinnedArray
    host_probabilities: PinnedArray
    host_value: PinnedArray
    separate_outputs: bool

    @classmethod
    def zeros(
        cls, device: Device, metadata: ModelMetadata, sizes: Sizes, separate_outputs: bool
    ) -> DeviceTensors:
        """Empty memory; nothing stays allocated when it does not fit."""
        height, width, num_slots, num_labels = sizes
        grid = metadata.feature_size(height, width)
        dtype = np.dtype(metadata.dtype)
        key = metadata.channels * grid[0] * grid[1] * dtype.itemsize
        value = num_labels * grid[0] * grid[1] * dtype.itemsize
        with ExitStack() as undo:

            def gpu(nbytes: int) -> DeviceBuffer:
                buffer = device.allocate(nbytes)
                undo.callback(buffer.free)
                return buffer

            def host(shape: tuple[int, ...], kind: Any) -> PinnedArray:
                pinned = device.pin(shape, kind)
                undo.callback(pinned.free)
                return pinned

            tensors = cls(
                sizes=sizes,
                grid=grid,
                frames=(gpu(height * width * 3), gpu(height * width * 3)),
                keys=gpu(num_slots * key),
                values=gpu(num_slots * value),
                dilation=gpu(num_slots * 4),
                labels=gpu(height * width),
                probabilities=gpu(value),
                key=gpu(key),
                value=gpu(value),
                host_frames=(host((height, width, 3), np.uint8), host((height, width, 3), np.uint8)),
                host_dilation=host((num_slots,), np.int32),
                host_labels=host((height, width), np.uint8),
                host_probabilities=host((num_labels, *grid), dtype),
                host_value=host((num_labels, *grid), dtype),
                separate_outputs=separate_outputs,
            )
            undo.pop_all()
        for buffer in tensors.on_gpu():
            device.clear(buffer)
        return tensors

    def on_gpu(self) -> tuple[DeviceBuffer, ...]:
        """All buffers on the GPU."""
        memory = self.keys, self.values, self.dilation
        return *self.frames, *memory, self.labels, self.probabilities, self.key, self.value

    def on_host(self) -> tuple[PinnedArray, ...]:
        """All arrays of the host."""
        outputs = self.host_labels, self.host_probabilities, self.host_value
        return *self.host_frames, self.host_dilation, *outputs

    def free(self) -> None:
        """Release all memory."""
        for buffer in self.on_gpu():
            buffer.free()
        for pinned in self.on_host():
            pinned.free()

    def shapes(self, channels: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the engine's inputs by name."""
        height, width, num_slots, num_labels = self.sizes
        return {
            FRAME: (1, height, width, 3),
            KEYS: (1, num_slots, channels, *self.grid),
            VALUES: (1, num_slots, num_labels, *self.grid),
            DILATION: (1, num_slots),
        }

    def key_addresses(self, slot: int) -> tuple[int, int]:
        """Where the key of ``slot`` is, and where TensorRT writes it: there, or to ``key``."""
        return self._addresses(self.keys, self.key, slot)

    def value_addresses(self, slot: int) -> tuple[int, int]:
        """Where the label map of ``slot`` is, and where TensorRT writes it: there, or to ``value``."""
        return self._addresses(self.values, self.value, slot)

    def _addresses(self, memory: DeviceBuffer, output: DeviceBuffer, slot: int) -> tuple[int, int]:
        address = memory.address + slot * output.nbytes
        # TensorRT writes to aligned addresses alone.
        return address, output.address if self.separate_outputs or address % ALIGNMENT else address

    def copy_memory_to(self, device: Device, other: DeviceTensors) -> None:
        """Copy keys and label maps into ``other``, which has as many slots and at least as many labels."""
        device.copy(other.keys.address, self.keys.address, self.keys.nbytes)
        for slot in range(self.sizes[2]):
            source, _ = self.value_addresses(slot)
            target, _ = other.value_addresses(slot)
            device.copy(target, source, self.value.nbytes)
