"""Step graphs on CPUs with onnxruntime; memory stays where it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native_errors

from ....common.errors import ModelError, UnavailableError
from ....common.machine import threads_to_use
from ...arrays.label_maps import best_labels, best_labels_of_pixels
from ...model.metadata import (
    DILATION,
    EXPORT_AGAIN,
    FRAME,
    KEY,
    KEYS,
    LAB,
    LABELS,
    PROBABILITIES,
    VALUE,
    VALUES,
    ModelMetadata,
)
from ...model.step_graph import cut_at_memory_read, load_step_graph, memory_read
from ..device_frame import Pixels
from .colour import normalised_lab
from .integer_encoder import for_integer_kernels

Array = NDArray[Any]
Kernel = Literal["native", "function"]

# Most of onnxruntime's errors have no common base; those of bound runs arrive as RuntimeError.
_ENGINE_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    UnicodeDecodeError,  # a message that quotes the file
    *(
        kind
        for kind in vars(native_errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)


@dataclass(frozen=True)
class Memory:
    """The tensors of one stream, named and shaped as the step graph's inputs and outputs.

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
    def zeros(cls, metadata: ModelMetadata, height: int, width: int, slots: int, labels: int) -> Memory:
        """Empty memory for ``slots`` frames of ``height`` x ``width`` pixels and ``labels`` labels."""
        grid = metadata.feature_size(height, width)
        dtype = np.dtype(metadata.dtype)
        return cls(
            frame=np.zeros((1, height, width, 3), np.uint8),
            keys=np.zeros((1, slots, metadata.channels, *grid), dtype),
            values=np.zeros((1, slots, labels, *grid), dtype),
            dilation=np.zeros((1, slots), np.int32),
            labels=np.zeros((1, height, width), np.uint8),
            probabilities=np.zeros((1, labels, *grid), dtype),
        )

    def with_labels(self, metadata: ModelMetadata, labels: int) -> Memory:
        """The same memory with room for more label channels; keys are shared, not copied."""
        _, height, width, _ = self.frame.shape
        grown = Memory.zeros(metadata, height, width, 0, labels)
        values = np.zeros((1, self.keys.shape[1], *grown.values.shape[2:]), self.values.dtype)
        values[:, :, : self.values.shape[2]] = self.values
        return Memory(self.frame, self.keys, values, self.dilation, self.labels, grown.probabilities)

    def inputs(self) -> dict[str, Array]:
        """What a step reads."""
        return {FRAME: self.frame, KEYS: self.keys, VALUES: self.values, DILATION: self.dilation}

    def kept(self, slot: int, soft: bool) -> dict[str, Array]:
        """Where a step writes: what it remembers lands in ``slot`` of the memory."""
        outputs = {LABELS: self.labels, KEY: self.keys[:, slot]}
        if soft:
            return outputs | {PROBABILITIES: self.values[:, slot]}
        return outputs | {PROBABILITIES: self.probabilities, VALUE: self.values[:, slot]}


class Executor(Protocol):
    """A way to execute the step graph on memory."""

    def bind(self, memory: Memory) -> None:
        """Work on ``memory`` from now on."""

    def run(self, slot: int, soft: bool) -> None:
        """Execute one step that writes ``slot``; frame and dilation stand in the memory already."""


PARTS = ("colours", "encoder", "memory read", "smoothing", "labels")
"""Of a step with the native kernel, in order; "labels" is from probabilities to pixels and to memory."""


class OnnxRuntimeBackend:
    """Executes an exported model with onnxruntime on the CPU.

    No tensor of the memory is copied or allocated while frames go by: graph inputs are bound to the memory,
    and the key and the label map of a frame are written into its slot by what computes them.

    Args:
        model: an exported ``.onnx``.
        kernel: ``native`` reads memory with maskring's CPU kernel; ``function`` runs the file as it is, with
            the read in standard ONNX operators (portable and slow).
        threads: CPU threads, 0 for all that this process may use.

    Attributes:
        last_upload, last_run: seconds that the latest step took to copy its inputs and to execute the model.

    Raises:
        ModelError: when the file is missing, damaged, not ours or of another version.
        UnavailableError: when the native kernel is not installed.
        UserError: when there cannot be so many threads.
    """

    def __init__(self, model: Path, *, kernel: Kernel = "native", threads: int = 0) -> None:
        graph, self.metadata = load_step_graph(model)
        graph = for_integer_kernels(graph)
        threads = threads_to_use(threads)
        self._model = model
        try:
            self._executor: Executor | None = (
                _InPlaceRead(graph, self.metadata, threads)
                if kernel == "native"
                else _WholeGraph(graph, threads)
            )
        except _ENGINE_ERRORS as error:
            raise ModelError(f"onnxruntime refuses {model}: {_reason(error)}", EXPORT_AGAIN) from error
        self._memory: Memory | None = None
        self.last_upload = self.last_run = 0.0

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        """See :meth:`maskring.runtime.backends.Backend.allocate`."""
        executor, memory = self._open(), self._memory
        self.metadata.require_frame_size(height, width)
        try:
            if memory is not None and _same_stream(memory, height, width, slots, labels):
                grown = memory.with_labels(self.metadata, labels)
            else:
                grown = Memory.zeros(self.metadata, height, width, slots, labels)
        except MemoryError as error:
            raise UnavailableError(
                f"{slots} frames of {width}x{height} pixels with {labels} labels do not fit into memory",
                "use smaller frames or remember fewer",
            ) from error
        executor.bind(grown)
        self._memory = grown

    def step(
        self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int, soft: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        """See :meth:`maskring.runtime.backends.Backend.step`."""
        executor, memory = self._open(), self._allocated()
        started = time.perf_counter()
        memory.frame[0] = frame
        memory.dilation[0] = dilation
        uploaded = time.perf_counter()
        try:
            executor.run(write_slot, soft)
        except _ENGINE_ERRORS as error:
            raise ModelError(
                f"onnxruntime could not execute {self._model} on {frame.shape[1]}x{frame.shape[0]} pixels: "
                f"{_reason(error)}",
                f"check the file with maskring verify {self._model}",
            ) from error
        self.last_upload, self.last_run = uploaded - started, time.perf_counter() - uploaded
        return memory.labels[0], memory.kept(write_slot, soft)[PROBABILITIES][0]

    def last_parts(self) -> dict[str, float]:
        """Seconds of the latest step by part, see :data:`PARTS`; none where the file is run as it is."""
        executor = self._open()
        return dict(executor.parts) if isinstance(executor, _InPlaceRead) else {}

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        """See :meth:`maskring.runtime.backends.Backend.write_value`."""
        self._allocated().values[0, slot] = value

    def merge_label(self, channel: int) -> None:
        """See :meth:`maskring.runtime.backends.Backend.merge_label`."""
        values = self._allocated().values[0]
        values[:, 0] += values[:, channel]
        values[:, channel] = 0

    def close(self) -> None:
        """See :meth:`maskring.runtime.backends.Backend.close`."""
        self._executor = None
        self._memory = None

    def _open(self) -> Executor:
        if self._executor is None:
            raise ValueError("the backend is closed")
        return self._executor

    def _allocated(self) -> Memory:
        if self._memory is None:
            raise ValueError("the backend has no memory: call allocate first")
        return self._memory


class _WholeGraph:
    """The file as it is, in one session."""

    def __init__(self, graph: onnx.ModelProto, threads: int) -> None:
        self._session = open_session(graph, threads)
        self._bound: dict[tuple[int, bool], BoundSession] = {}

    def bind(self, memory: Memory) -> None:
        self._memory = memory
        self._bound = {}

    def run(self, slot: int, soft: bool) -> None:
        if (slot, soft) not in self._bound:
            inputs, outputs = self._memory.inputs(), self._memory.kept(slot, soft)
            self._bound[slot, soft] = BoundSession.to(self._session, inputs, outputs)
        self._bound[slot, soft].run()


@dataclass(frozen=True)
class _Slot:
    """Everything bound for steps that write one slot."""

    head: BoundSession
    query: Array
    kept: Mapping[str, Array]


class _InPlaceRead:
    """The encoder in a session, and everything around it where it is done best on a CPU.

    An operator written in Python and bound into the graph would be handed a copy of the whole memory for each
    frame: the native kernel reads the memory where it stands. The kernel also does the search for window
    centres of a localised graph, instead of the graph's own nodes. Where the graph has the tensor ``lab``,
    the session starts from there and OpenCV computes the colours. Probabilities are brought back to pixels
    only where labels meet, instead of everywhere and for every object.
    """

    def __init__(self, graph: onnx.ModelProto, metadata: ModelMetadata, threads: int) -> None:
        try:
            from ....plugins.windowed_affinity import (
                cpu_localisation as native_localisation,
            )
            from ....plugins.windowed_affinity import (
                cpu_op as native,
            )
        except ImportError as error:
            raise UnavailableError(
                f"the native CPU kernel cannot be loaded ({error})",
                "install maskring again with a C++20 compiler, or run with --kernel function",
            ) from error
        read = memory_read(graph)
        assert read is not None  # load_step_graph has checked
        self._colours = bool(metadata.lab_mean)
        head = cut_at_memory_read(graph, read, LAB if self._colours else FRAME)
        self._head = open_session(head.model, threads)
        self._query_name, self._top_k, self._smoothing = head.query, head.top_k, head.smoothing
        self._window: dict[str, Any] = {"radius": head.radius, "scale": head.scale, "threads": threads}
        self._metadata = metadata
        self._affinity, self._localise = native.windowed_affinity, native_localisation.localise
        self._slots: dict[tuple[int, bool], _Slot] = {}
        self.parts: dict[str, float] = {}

    def bind(self, memory: Memory) -> None:
        self._memory = memory
        self._query = np.zeros_like(memory.keys[:, 0])
        self._read = np.zeros_like(memory.probabilities)  # before smoothing
        self._lab = np.zeros((1, 3, *memory.frame.shape[1:3]), np.float32)
        self._slots = {}

    def run(self, slot: int, soft: bool) -> None:
        if (slot, soft) not in self._slots:
            self._slots[slot, soft] = self._bind_slot(slot, soft)
        bound, memory = self._slots[slot, soft], self._memory
        moments = [time.perf_counter()]
        if self._colours:
            normalised_lab(memory.frame[0], self._metadata, out=self._lab[0])
        moments.append(time.perf_counter())
        bound.head.run()
        moments.append(time.perf_counter())
        dilation, offsets = memory.dilation, None
        if step := self._metadata.roi_step:
            offsets = self._localise(bound.query, memory.keys, dilation, step=step, **self._window)
            dilation = np.minimum(dilation, 1)
        self._affinity(
            bound.query,
            memory.keys,
            memory.values,
            dilation,
            offsets,
            top_k=self._top_k,
            out=self._read if self._smoothing else bound.kept[PROBABILITIES],
            **self._window,
        )
        moments.append(time.perf_counter())
        if self._smoothing:
            self._smooth(bound, *self._smoothing)
        moments.append(time.perf_counter())
        self._decide(bound.kept)
        moments.append(time.perf_counter())
        self.parts = dict(zip(PARTS, np.diff(moments).tolist(), strict=True))

    def _smooth(self, bound: _Slot, radius: int, scale: float) -> None:
        """From what was read to probabilities, by a read of the frame itself."""
        self._affinity(
            bound.query,
            bound.kept[KEY][:, None],
            self._read[:, None],
            np.ones((1, 1), np.int32),
            radius=radius,
            scale=scale,
            threads=self._window["threads"],
            out=bound.kept[PROBABILITIES],
        )

    def _decide(self, kept: Mapping[str, Array]) -> None:
        """From probabilities to the labels of pixels and to what memory keeps."""
        probabilities = kept[PROBABILITIES][0]
        best = best_labels(probabilities)
        best_labels_of_pixels(probabilities, best, self._metadata.stride, out=kept[LABELS][0])
        if VALUE in kept:
            for label, plane in enumerate(kept[VALUE][0]):
                np.equal(best, label, out=plane)

    def _bind_slot(self, slot: int, soft: bool) -> _Slot:
        kept = self._memory.kept(slot, soft)
        # The query may be the very tensor that the step gives out.
        arrays = {self._query_name: self._query, KEY: kept[KEY]}
        head = BoundSession.to(self._head, self._memory.inputs() | {LAB: self._lab}, arrays)
        return _Slot(head, arrays[self._query_name], kept)


def open_session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU that keeps quiet and lets its threads sleep between runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait in a loop take their cores from those of the memory read and of everything else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # failures arrive as exceptions; stderr belongs to the program
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # to the same provider, announced on stdout
    )


@dataclass(frozen=True)
class BoundSession:
    """A session that reads and writes arrays in place.

    Attributes:
        session: what is run.
        binding: addresses of the arrays.
        arrays: the arrays themselves: they must live as long as their addresses are written to.
    """

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    arrays: tuple[Array, ...]

    @classmethod
    def to(
        cls, session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> BoundSession:
        """Bind contiguous arrays by name; inputs that the session does not have are left out."""
        binding = session.io_binding()
        wanted = {declared.name: inputs[declared.name] for declared in session.get_inputs()}
        for bind, arrays in ((binding.bind_input, wanted), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                assert array.flags.c_contiguous
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return cls(session, binding, (*wanted.values(), *outputs.values()))

    def run(self) -> None:
        """Run the session once."""
        self.session.run_with_iobinding(self.binding)


def _same_stream(memory: Memory, height: int, width: int, slots: int, labels: int) -> bool:
    same = memory.frame.shape[1:3] == (height, width) and memory.keys.shape[1] == slots
    return same and memory.values.shape[2] <= labels


def _reason(error: Exception) -> str:
    """What onnxruntime complains about, without its codes and the places in its source."""
    text = str(error).split("Status Message: ")[-1].split(" : ")[-1]
    return " ".join(text.split())[:200].rstrip(". ") or type(error).__name__
