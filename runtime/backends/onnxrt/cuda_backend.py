"""Step graphs on an NVIDIA GPU with onnxruntime's CUDA provider."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ....common.errors import ModelError, SourceError, UnavailableError
from ....common.machine import cuda_driver
from ....common.types import FloatMaps, Labels
from ...model.metadata import EXPORT_AGAIN
from ...model.step_graph import load_step_graph
from ...model.tensor_names import FRAME
from ..device_frame import DeviceFrame, Pixels, not_on_this_gpu
from . import cuda_provider
from .cuda_tensors import CudaTensors, copy_model
from .session import SESSION_ERRORS, error_reason


class OnnxRuntimeCudaBackend:
    """Executes an exported model on the GPU, in one session of the file as it is.

    Keys and label maps of past frames never leave the GPU. A frame costs one copy to the GPU, or none where it is
    there already, and the labels and coarse probabilities come back. Nothing runs on the CPU in the GPU's place.

    Args:
        model: an exported ``.onnx``.

    Attributes:
        last_upload, last_run: seconds that the latest step took to upload its inputs, and to execute the model and
            fetch its outputs.

    Raises:
        ModelError: when the file is missing, damaged, not ours, or asks for what no CUDA kernel supports.
        UnavailableError: when onnxruntime's CUDA provider, the operator library, the driver or the GPU is missing.
    """

    def __init__(self, model: Path) -> None:
        graph, self.metadata = load_step_graph(model)
        self._model = model
        try:
            self._session: onnxruntime.InferenceSession | None = cuda_provider.open_cuda_session(graph)
            self._copies = cuda_provider.open_cuda_session(copy_model(self.metadata.dtype))
        except SESSION_ERRORS as error:
            raise ModelError(
                f"onnxruntime cannot load {model} on the GPU: {error_reason(error)}", EXPORT_AGAIN
            ) from error
        self._context: cuda_provider.PrimaryContext | None = None
        self._tensors: CudaTensors | None = None
        self.last_upload = self.last_run = 0.0

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.allocate`."""
        self._open()
        self.metadata.check_frame_size(height, width)
        old = self._tensors
        try:
            if old is not None and old.sizes[:3] == (height, width, num_slots) and num_labels >= old.sizes[3]:
                self._tensors = old.with_labels(num_labels)
            else:
                self._tensors = CudaTensors.zeros(self.metadata, height, width, num_slots, num_labels)
        except SESSION_ERRORS as error:
            raise UnavailableError(
                f"{num_slots} frames of {width}x{height} pixels with {num_labels} labels do not fit on the GPU "
                f"({error_reason(error)})",
                "use smaller frames, remember fewer of them, or end other programs on the GPU",
            ) from error

    def step(self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int) -> tuple[Labels, FloatMaps]:
        """See :meth:`maskring.runtime.backends.base.Backend.step`; the frame may be on the GPU."""
        session, tensors = self._open(), self._allocated()
        started = time.perf_counter()
        try:
            binding = session.io_binding()
            for name, value in tensors.inputs().items():
                binding.bind_ortvalue_input(name, value)
            self._place(binding, tensors, frame)
            tensors.dilation.update_inplace(np.ascontiguousarray(dilation[None]))
            uploaded = time.perf_counter()
            target = tensors.bind_outputs(binding, write_slot)
            session.run_with_iobinding(binding)
            if target is not None:
                self._copy_value(tensors, target)
        except SESSION_ERRORS as error:
            raise ModelError(
                f"onnxruntime could not execute {self._model} on {frame.shape[1]}x{frame.shape[0]} pixels on the "
                f"GPU: {error_reason(error)}",
                f"check the GPU with nvidia-smi, and the file with maskring verify {self._model}",
            ) from error
        self.last_upload, self.last_run = uploaded - started, time.perf_counter() - uploaded
        return tensors.labels[0], tensors.probabilities[0]

    def write_value(self, slot: int, value: FloatMaps) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.write_value`; done on the host, as it is rare."""
        tensors = self._allocated()
        values = tensors.values.numpy()
        values[0, slot] = value
        tensors.values.update_inplace(values)

    def merge_label(self, channel: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.merge_label`; done on the host, as it is rare."""
        tensors = self._allocated()
        values = tensors.values.numpy()
        values[0, :, 0] += values[0, :, channel]
        values[0, :, channel] = 0
        tensors.values.update_inplace(values)

    def close(self) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.close`."""
        self._session = self._tensors = None
        context, self._context = self._context, None
        if context is not None:
            context.release()

    def _place(self, binding: onnxruntime.IOBinding, tensors: CudaTensors, frame: Pixels) -> None:
        """Bind the frame where it is on the GPU, or upload it."""
        if not isinstance(frame, DeviceFrame):
            tensors.frame.update_inplace(np.ascontiguousarray(frame[None]))
            return
        if self._context is None:
            self._context = cuda_provider.PrimaryContext(cuda_driver())
        if not self._context.can_read(frame.address):
            raise not_on_this_gpu(frame)
        if frame.stream is not None and not self._context.finish(frame.stream):
            raise SourceError(
                f"the frame's stream {frame.stream:#x} failed or is unknown to the driver",
                "check what writes the frame",
            )
        shape = [1, *frame.shape]
        binding.bind_input(FRAME, cuda_provider.DEVICE, 0, np.uint8, shape, frame.address)

    def _copy_value(self, tensors: CudaTensors, target: int) -> None:
        """Copy the label map that the step has written to the address of its slot."""
        binding, dtype = self._copies.io_binding(), tensors.probabilities.dtype.type
        shape, source = list(tensors.probabilities.shape), int(tensors.value.data_ptr())
        binding.bind_input("source", cuda_provider.DEVICE, 0, dtype, shape, source)
        binding.bind_output("target", cuda_provider.DEVICE, 0, dtype, shape, target)
        self._copies.run_with_iobinding(binding)

    def _open(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise ValueError("the backend is closed")
        return self._session

    def _allocated(self) -> CudaTensors:
        self._open()
        if self._tensors is None:
            raise ValueError("the backend has no memory: call allocate first")
        return self._tensors
