"""Two ways to execute a step graph on a CPU: the whole file, or cut around the native memory read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from ....common.errors import UnavailableError
from ....common.types import Array
from ...arrays.guided_filter import guided_labels
from ...arrays.upsampling import argmax_planes, best_labels_of_pixels
from ...arrays.votes import write_votes
from ...model.metadata import ModelMetadata
from ...model.step_graph import cut_at_memory_read, memory_read
from ...model.tensor_names import FRAME, KEY, LAB, LABELS, PROBABILITIES, VALUE
from .colour import normalised_lab
from .session import BoundSession, open_session
from .tensors import HostTensors


class Executor(Protocol):
    """A way to execute the step graph."""

    def bind(self, tensors: HostTensors) -> None:
        """Work on ``tensors`` from now on."""

    def run(self, slot: int) -> None:
        """Execute one step that writes ``slot``; the tensors hold frame and dilation already."""


PARTS = ("colours", "encoder", "memory read", "smoothing", "labels")
"""Parts of a step of :class:`NativeReadExecutor`, in order. "labels" covers everything after the
probabilities: labels of pixels, and the label map that memory keeps."""


class WholeGraphExecutor:
    """Runs the file as it is, in one session."""

    def __init__(self, graph: onnx.ModelProto, threads: int) -> None:
        self._session = open_session(graph, threads)
        self._bound: dict[int, BoundSession] = {}

    def bind(self, tensors: HostTensors) -> None:
        """See :meth:`Executor.bind`."""
        self._tensors = tensors
        self._bound = {}

    def run(self, slot: int) -> None:
        """See :meth:`Executor.run`."""
        if slot not in self._bound:
            inputs, outputs = self._tensors.inputs(), self._tensors.outputs(slot)
            self._bound[slot] = BoundSession.to(self._session, inputs, outputs)
        self._bound[slot].run()


@dataclass(frozen=True)
class _BoundSlot:
    """Everything bound for steps that write one slot."""

    encoder: BoundSession
    query: Array
    outputs: Mapping[str, Array]


class NativeReadExecutor:
    """Runs the encoder in a session, and everything around it where a CPU does it fastest.

    - Colours: OpenCV computes them where the graph has the tensor ``lab``.
    - Memory read, smoothing and the search for window centres: the native kernel. It reads memory in place;
      a Python operator bound into the graph would be given a copy of all memory for each frame.
    - Labels: probabilities are interpolated, or fitted to colours, only where labels meet, not everywhere and
      for every object.

    Raises:
        UnavailableError: when the native kernel is not installed.
    """

    def __init__(self, graph: onnx.ModelProto, metadata: ModelMetadata, threads: int) -> None:
        try:
            from ....plugins.windowed_affinity import cpu_localisation, cpu_op
        except ImportError as error:
            raise UnavailableError(
                f"the native CPU kernel cannot be loaded ({error})",
                "install maskring again with a C++20 compiler, or run with --kernel function",
            ) from error
        read = memory_read(graph)
        assert read is not None  # load_step_graph has checked
        self._has_lab = bool(metadata.lab_mean)
        head = cut_at_memory_read(graph, read, LAB if self._has_lab else FRAME)
        self._encoder = open_session(head.model, threads)
        self._query_name, self._top_k, self._smoothing = head.query, head.top_k, head.smoothing
        self._window: dict[str, Any] = {"radius": head.radius, "scale": head.scale, "threads": threads}
        self._metadata = metadata
        self._affinity, self._localise = cpu_op.windowed_affinity, cpu_localisation.localise
        self._slots: dict[int, _BoundSlot] = {}
        self.parts: dict[str, float] = {}

    def bind(self, tensors: HostTensors) -> None:
        """See :meth:`Executor.bind`."""
        self._tensors = tensors
        self._query = np.zeros_like(tensors.keys[:, 0])
        self._unsmoothed = np.zeros_like(tensors.probabilities)
        self._lab = np.zeros((1, 3, *tensors.frame.shape[1:3]), np.float32)
        self._slots = {}

    def run(self, slot: int) -> None:
        """See :meth:`Executor.run`; ``parts`` then holds the seconds of each of :data:`PARTS`."""
        if slot not in self._slots:
            self._slots[slot] = self._bind_slot(slot)
        bound = self._slots[slot]
        moments = [time.perf_counter()]
        if self._has_lab:
            normalised_lab(self._tensors.frame[0], self._metadata, out=self._lab[0])
        moments.append(time.perf_counter())
        bound.encoder.run()
        moments.append(time.perf_counter())
        self._read_memory(bound)
        moments.append(time.perf_counter())
        if self._smoothing:
            self._smooth(bound, *self._smoothing)
        moments.append(time.perf_counter())
        self._write_labels(bound.outputs)
        moments.append(time.perf_counter())
        self.parts = dict(zip(PARTS, np.diff(moments).tolist(), strict=True))

    def _read_memory(self, bound: _BoundSlot) -> None:
        tensors = self._tensors
        dilation, offsets = tensors.dilation, None
        if step := self._metadata.roi_step:
            offsets = self._localise(bound.query, tensors.keys, dilation, step=step, **self._window)
            dilation = np.minimum(dilation, 1)
        self._affinity(
            bound.query,
            tensors.keys,
            tensors.values,
            dilation,
            offsets,
            top_k=self._top_k,
            shares=self._metadata.confidence_exponent > 0,
            out=self._unsmoothed if self._smoothing else bound.outputs[PROBABILITIES],
            **self._window,
        )

    def _smooth(self, bound: _BoundSlot, radius: int, scale: float) -> None:
        """Smooth the probabilities by a read of the frame itself."""
        self._affinity(
            bound.query,
            bound.outputs[KEY][:, None],
            self._unsmoothed[:, None],
            np.ones((1, 1), np.int32),
            radius=radius,
            scale=scale,
            threads=self._window["threads"],
            out=bound.outputs[PROBABILITIES],
        )

    def _write_labels(self, outputs: Mapping[str, Array]) -> None:
        """From probabilities to the labels of pixels and to what memory keeps."""
        probabilities = outputs[PROBABILITIES][0]
        best = argmax_planes(probabilities)
        stride, radius = self._metadata.stride, self._metadata.guided_filter_radius
        if radius:
            guided_labels(probabilities, best, self._lab[0], radius, stride, out=outputs[LABELS][0])
        else:
            best_labels_of_pixels(probabilities, best, stride, out=outputs[LABELS][0])
        write_votes(probabilities, best, self._metadata.confidence_exponent, out=outputs[VALUE][0])

    def _bind_slot(self, slot: int) -> _BoundSlot:
        outputs = self._tensors.outputs(slot)
        # The query may be the very tensor that the step returns as key.
        arrays = {self._query_name: self._query, KEY: outputs[KEY]}
        encoder = BoundSession.to(self._encoder, self._tensors.inputs() | {LAB: self._lab}, arrays)
        return _BoundSlot(encoder, arrays[self._query_name], outputs)
