"""Step graphs on CPUs with onnxruntime."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....common.errors import ModelError, UnavailableError
from ....common.machine import threads_to_use
from ....common.types import FloatMaps, Floats, Image, Kernel, Labels
from ...model.metadata import EXPORT_AGAIN
from ...model.step_graph import load_step_graph, memory_read
from ..device_frame import Pixels
from .executors import Executor, NativeReadExecutor, WholeGraphExecutor
from .integer_encoder import for_integer_kernels
from .session import SESSION_ERRORS, error_reason
from .tensors import HostTensors

SEVERAL_BODIES = (
    "leave --kernel function out, or install onnxruntime 1.28 or newer, which runs several function bodies"
)
"""Remedy for a file whose function has overloads: onnxruntime 1.26 and older refuse them, 1.28 runs them."""


class OnnxRuntimeBackend:
    """Executes an exported model with onnxruntime on the CPU.

    No tensor of the memory is copied or allocated per frame. Inputs of the graph are bound to the memory, and
    what computes a frame's key and label map writes them into the frame's slot.

    Args:
        model: an exported ``.onnx``.
        kernel: ``native`` reads memory with the CPU kernel; ``function`` runs the file as it is, with the
            read in standard ONNX operators (portable and slow).
        threads: CPU threads, 0 for all that this process may use.

    Attributes:
        last_upload, last_run: seconds that the latest step took to copy its inputs and to execute the model.

    Raises:
        ModelError: when the file is missing, damaged, not ours or of another version.
        UnavailableError: when the native kernel is not installed.
        UserError: when ``threads`` is out of range.
    """

    def __init__(self, model: Path, *, kernel: Kernel = "native", threads: int = 0) -> None:
        graph, self.metadata = load_step_graph(model, allow_inlined=True)
        if memory_read(graph) is None and kernel == "native":
            warnings.warn(
                f"another tool has inlined the memory read of {model}: onnxruntime runs all of it, slower than the "
                "file that maskring export wrote",
                stacklevel=2,
            )
            kernel = "function"
        graph = for_integer_kernels(graph)
        threads = threads_to_use(threads)
        self._model = model
        try:
            self._executor: Executor | None = (
                NativeReadExecutor(graph, self.metadata, threads)
                if kernel == "native"
                else WholeGraphExecutor(graph, threads)
            )
        except SESSION_ERRORS as error:
            bodies = len(graph.functions)
            remedy = EXPORT_AGAIN if bodies < 2 or kernel == "native" else SEVERAL_BODIES
            raise ModelError(f"onnxruntime cannot load {model}: {error_reason(error)}", remedy) from error
        self._tensors: HostTensors | None = None
        self.last_upload = self.last_run = 0.0

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.allocate`."""
        executor, tensors = self._open(), self._tensors
        self.metadata.check_frame_size(height, width)
        try:
            if tensors is not None and tensors.can_grow_to(height, width, num_slots, num_labels):
                tensors = tensors.with_labels(self.metadata, num_labels)
            else:
                tensors = HostTensors.zeros(self.metadata, height, width, num_slots, num_labels)
        except MemoryError as error:
            raise UnavailableError(
                f"{num_slots} frames of {width}x{height} pixels with {num_labels} labels do not fit into "
                "memory",
                "use smaller frames or remember fewer",
            ) from error
        executor.bind(tensors)
        self._tensors = tensors

    def step(self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int) -> tuple[Labels, FloatMaps]:
        """See :meth:`maskring.runtime.backends.base.Backend.step`."""
        executor, tensors = self._open(), self._allocated()
        started = time.perf_counter()
        tensors.frame[0] = frame
        tensors.dilation[0] = dilation
        uploaded = time.perf_counter()
        try:
            executor.run(write_slot)
        except SESSION_ERRORS as error:
            raise ModelError(
                f"onnxruntime could not execute {self._model} on {frame.shape[1]}x{frame.shape[0]} pixels: "
                f"{error_reason(error)}",
                f"check the file with maskring verify {self._model}",
            ) from error
        self.last_upload, self.last_run = uploaded - started, time.perf_counter() - uploaded
        return tensors.labels[0], tensors.probabilities[0]

    def last_parts(self) -> dict[str, float]:
        """Seconds of the latest step by part (:data:`.executors.PARTS`); empty with ``kernel="function"``."""
        executor = self._open()
        return dict(executor.parts) if isinstance(executor, NativeReadExecutor) else {}

    def features(self, frame: Image) -> Floats:
        """The encoder's features of a single frame, [C, h, w]; memory is lost.

        Raises:
            UserError: when the step cannot be executed.
        """
        height, width = frame.shape[:2]
        self.allocate(height, width, self.metadata.num_slots or 1, self.metadata.num_labels or 2)
        tensors = self._allocated()
        self.step(frame, np.zeros(tensors.keys.shape[1], np.int32), 0)
        return np.array(tensors.keys[0, 0], np.float32)

    def write_value(self, slot: int, value: FloatMaps) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.write_value`."""
        self._allocated().values[0, slot] = value

    def merge_label(self, channel: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.merge_label`."""
        values = self._allocated().values[0]
        values[:, 0] += values[:, channel]
        values[:, channel] = 0

    def close(self) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.close`."""
        self._executor = None
        self._tensors = None

    def _open(self) -> Executor:
        if self._executor is None:
            raise ValueError("the backend is closed")
        return self._executor

    def _allocated(self) -> HostTensors:
        if self._tensors is None:
            raise ValueError("the backend has no memory: call allocate first")
        return self._tensors
