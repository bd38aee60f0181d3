"""The tensors of one stream in the memory of a GPU, as onnxruntime's own values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ....common.types import Array
from ...model.metadata import ModelMetadata
from ...model.tensor_names import DILATION, FRAME, KEY, KEYS, LABELS, PROBABILITIES, VALUE, VALUES
from . import cuda_provider

ALIGNMENT = 16
"""Bytes that addresses of outputs are multiples of; a label map's slot may begin anywhere."""


def on_device(array: Array) -> onnxruntime.OrtValue:
    """An array in the memory of the device; that of the host it would share."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array, cuda_provider.DEVICE, 0)


@dataclass(frozen=True)
class CudaTensors:
    """Inputs and outputs of the step graph; memory (keys, values) stays on the device from frame to frame.

    Attributes:
        frame: uint8 [1, H, W, 3], on the device like all that are not named below.
        keys: [1, N, C, h, w].
        values: [1, N, O, h, w].
        dilation: int32 [1, N].
        value: [1, O, h, w], for label maps whose slot is not aligned.
        labels: uint8 [1, H, W] on the host.
        probabilities: [1, O, h, w] on the host.
    """

    frame: onnxruntime.OrtValue
    keys: onnxruntime.OrtValue
    values: onnxruntime.OrtValue
    dilation: onnxruntime.OrtValue
    value: onnxruntime.OrtValue
    labels: Array
    probabilities: Array

    @classmethod
    def zeros(
        cls, metadata: ModelMetadata, height: int, width: int, num_slots: int, num_labels: int
    ) -> CudaTensors:
        """Empty memory for ``num_slots`` frames of ``height`` x ``width`` pixels."""
        grid, dtype = metadata.feature_size(height, width), np.dtype(metadata.dtype)
        probabilities = np.zeros((1, num_labels, *grid), dtype)
        return cls(
            frame=on_device(np.zeros((1, height, width, 3), np.uint8)),
            keys=on_device(np.zeros((1, num_slots, metadata.channels, *grid), dtype)),
            values=on_device(np.zeros((1, num_slots, num_labels, *grid), dtype)),
            dilation=on_device(np.zeros((1, num_slots), np.int32)),
            value=on_device(np.zeros_like(probabilities)),
            labels=np.zeros((1, height, width), np.uint8),
            probabilities=probabilities,
        )

    def with_labels(self, num_labels: int) -> CudaTensors:
        """The same memory with more label channels; keys are shared, not copied."""
        old = self.values.numpy()
        values = np.zeros((*old.shape[:2], num_labels, *old.shape[3:]), old.dtype)
        values[:, :, : old.shape[2]] = old
        probabilities = np.zeros((1, *values.shape[2:]), values.dtype)
        return CudaTensors(
            frame=self.frame,
            keys=self.keys,
            values=on_device(values),
            dilation=self.dilation,
            value=on_device(np.zeros_like(probabilities)),
            labels=self.labels,
            probabilities=probabilities,
        )

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Height, width, slots, labels."""
        _, height, width = self.labels.shape
        _, slots, labels, *_ = self.values.shape()
        return height, width, slots, labels

    def inputs(self) -> dict[str, onnxruntime.OrtValue]:
        """Inputs of the step graph by name."""
        return {FRAME: self.frame, KEYS: self.keys, VALUES: self.values, DILATION: self.dilation}

    def slot_of(self, memory: onnxruntime.OrtValue, slot: int) -> int:
        """Address of one slot of keys or values."""
        shape, itemsize = memory.shape(), np.dtype(self.probabilities.dtype).itemsize
        return int(memory.data_ptr()) + slot * int(np.prod(shape[2:])) * itemsize

    def bind_outputs(self, binding: onnxruntime.IOBinding, slot: int) -> int | None:
        """Bind what a step writes.

        Args:
            binding: the binding of the session.
            slot: the slot that takes the frame.

        Returns:
            address that ``value`` must be copied to after the run; None when the step writes there itself.
        """
        device, dtype = cuda_provider.DEVICE, self.probabilities.dtype.type
        for name, array in ((LABELS, self.labels), (PROBABILITIES, self.probabilities)):
            binding.bind_output(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        key, target = self.slot_of(self.keys, slot), self.slot_of(self.values, slot)
        aligned = target % ALIGNMENT == 0
        address = target if aligned else int(self.value.data_ptr())
        binding.bind_output(KEY, device, 0, dtype, [1, *self.keys.shape()[2:]], key)
        binding.bind_output(VALUE, device, 0, dtype, list(self.probabilities.shape), address)
        return None if aligned else target


def copy_model(dtype: str) -> onnx.ModelProto:
    """A model that copies a tensor: with it, onnxruntime copies between any two addresses of the device."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    source, target = (helper.make_tensor_value_info(name, kind, [None] * 4) for name in ("source", "target"))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["source"], ["target"])], "copy", [source], [target]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
