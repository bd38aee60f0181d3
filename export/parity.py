"""Does an exported model compute what it was exported from? The ways to execute it, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ..common.errors import ModelError, SourceError
from ..plugins.windowed_affinity.onnx_op import use_native_kernel
from ..runtime.backends.onnxrt.tensors import HostTensors
from ..runtime.model.metadata import EXPORT_AGAIN, QUANTIZATION_KEY, ModelMetadata
from ..runtime.model.step_graph import load_step_graph
from ..runtime.model.tensor_names import (
    DILATION,
    FRAME,
    KEY,
    KEYS,
    LABELS,
    OUTPUTS,
    PROBABILITIES,
    VALUE,
    VALUES,
)

Array = NDArray[Any]
Step = dict[str, Array]
Runner = Callable[[Step], Step]

TOLERANCES = {
    "float32": {KEY: 1e-3, PROBABILITIES: 1e-3, LABELS: 0.999, VALUE: 0.999},
    "float16": {KEY: 5e-2, PROBABILITIES: 5e-2, LABELS: 0.99, VALUE: 0.99},
    "int8": {LABELS: 0.98, VALUE: 0.98},
}
"""For ``key`` the largest error relative to the largest feature, for ``probabilities`` the largest error, for
the two winner maps the share of equal elements; by the model's type. Features of float32 differ by the order
in which convolutions are summed; a winner may change only where two labels tie within that. A quantized
encoder is another function than the float one: against torch its winners alone count. The two ways to execute
the quantized file compute the same integers and are held to float32's tolerances."""

SLOTS = 3
"""Frames of memory in a comparison of a model that takes any number."""

UNDECIDED = 0.01
"""Share of probabilities that may be off in a model that searches for window centres: one that lies half-way
between two features is rounded to either by the last bit of a sum, and its square sees another window."""

COLUMNS = ("output", "max error", "mean error", "agreement", "tolerance", "")
"""What :meth:`ParityRow.cells` holds."""

ROUTES = ("torch", "function body", "native kernel")


@dataclass(frozen=True)
class ParityRow:
    """One output of one way to execute the model, against the first way, over all frames.

    Attributes:
        compared: the two ways.
        output: name of the output.
        max_error, mean_error: of absolute differences.
        agreement: share of equal elements, for winner maps; None for others.
        tolerance: what the row is held to, see :data:`TOLERANCES`; for ``key`` in units of the features.
        ok: whether it is met.
    """

    compared: str
    output: str
    max_error: float
    mean_error: float
    agreement: float | None
    tolerance: float
    ok: bool

    def cells(self) -> tuple[str, ...]:
        """The row as texts in the order of :data:`COLUMNS`."""
        if self.agreement is None:
            figures = f"{self.max_error:.2e}", f"{self.mean_error:.2e}", "", f"<= {self.tolerance:.2e}"
        else:  # differences of labels' numbers say nothing
            figures = "", "", f"{100 * self.agreement:.3f} %", f">= {100 * self.tolerance:g} %"
        return self.output, *figures, "ok" if self.ok else "BEYOND"


@dataclass(frozen=True)
class ParityReport:
    """All rows of a comparison."""

    rows: tuple[ParityRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is within its tolerance."""
        return all(row.ok for row in self.rows)


def verify_model(model: Path, *, checkpoint: Path | None, frames: Iterable[Array]) -> ParityReport:
    """Execute ``model`` on ``frames`` in every way there is here, each step with the same memory.

    Memory is filled by the first way as tracking would fill it: with the keys of the frames seen so far, and
    with label maps that start from an invented mask of as many labels as the model allows, up to three.

    Args:
        model: an exported ``.onnx``.
        checkpoint: what it was exported from; adds torch as the first way. None compares onnxruntime alone.
        frames: [H, W, 3] uint8 RGB, at least two, all of one size.

    Raises:
        ModelError: when the model cannot be read, or was exported from another checkpoint.
        SourceError: when the frames do not fit the model.
    """
    proto, metadata = load_step_graph(model)
    runners: dict[str, Runner] = {}
    if checkpoint is not None:
        runners[ROUTES[0]] = _torch_runner(checkpoint, metadata, model)
    runners[ROUTES[1]] = _session_runner(proto, native=False, origin=model)
    runners[ROUTES[2]] = _session_runner(proto, native=True, origin=model)
    quantized = any(entry.key == QUANTIZATION_KEY for entry in proto.metadata_props)
    against_torch = checkpoint is not None
    differences = _Differences(
        "int8" if quantized and against_torch else metadata.dtype, UNDECIDED if metadata.roi_step else 0.0
    )
    for step in _steps(frames, metadata, next(iter(runners.values()))):
        results = {name: run(step) for name, run in runners.items()}
        (first, expected), *others = results.items()
        for name, found in others:
            differences.add(f"{name} to {first}", expected, found)
    return ParityReport(differences.rows())


def _torch_runner(checkpoint: Path, metadata: ModelMetadata, model: Path) -> Runner:
    # Here alone: the other ways are compared on machines without torch, too.
    import torch

    from ..training.checkpoint import load_checkpoint
    from .onnx_export import step_graph

    loaded = load_checkpoint(checkpoint)
    if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != metadata.checkpoint_sha256:
        raise ModelError(
            f"{model} was exported from {metadata.checkpoint or 'another checkpoint'}, not from {checkpoint}",
            "give the checkpoint it was exported from",
        )
    graph = step_graph(loaded, metadata)

    def run(step: Step) -> Step:
        with torch.no_grad():
            outputs = graph(*(torch.from_numpy(array) for array in step.values()))
        return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}

    return run


def _session_runner(proto: onnx.ModelProto, *, native: bool, origin: Path) -> Runner:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = use_native_kernel(proto, options) if native else proto
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base
        raise ModelError(f"onnxruntime refuses {origin}", EXPORT_AGAIN) from error

    def run(step: Step) -> Step:
        return dict(zip(OUTPUTS, session.run(list(OUTPUTS), step), strict=True))

    return run


def _steps(frames: Iterable[Array], metadata: ModelMetadata, run: Runner) -> Iterable[Step]:
    """Inputs of one step per frame; after each, the first way's outputs enter the memory."""
    slots, labels = metadata.num_slots or SLOTS, metadata.num_labels or 3
    memory: Step = {}
    for index, frame in enumerate(frames):
        height, width = frame.shape[:2]
        metadata.check_frame_size(height, width)
        if not memory:
            memory = HostTensors.zeros(metadata, height, width, slots, labels).inputs()
        elif memory[FRAME].shape[1:] != frame.shape:
            raise SourceError(
                f"frame {index} has another size than those before it", "give frames of one size"
            )
        memory[FRAME] = np.ascontiguousarray(frame[None])
        if index > 0:
            yield memory
        found, slot = run(memory), index % slots
        memory[KEYS][:, slot] = found[KEY]
        memory[VALUES][:, slot] = found[VALUE] if index else _invented_mask(found[VALUE])
        # Frames older than the one just written are dilated where that starts the search for centres.
        memory[DILATION][:, :index] = 2 if metadata.roi_step else 1
        memory[DILATION][:, slot] = 1


def _invented_mask(value: Array) -> Array:
    """A one-hot map in which every label covers some vertical stripes."""
    labels, width = value.shape[1], value.shape[-1]
    owner = np.arange(width) // max(1, width // (2 * labels)) % labels
    stripes = (owner == np.arange(labels)[:, None]).astype(value.dtype)
    return np.broadcast_to(stripes[None, :, None, :], value.shape)


class _Differences:
    """Errors per pair of ways and output; the worst share ``undecided`` of probabilities is left out."""

    def __init__(self, dtype: str, undecided: float = 0.0) -> None:
        if dtype not in TOLERANCES:
            raise ModelError(f"the model's type {dtype} is unknown", EXPORT_AGAIN)
        self._tolerances, self._undecided = TOLERANCES[dtype], undecided
        self._errors: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}

    def add(self, compared: str, expected: Step, found: Step) -> None:
        for name in self._tolerances:
            a, b = expected[name].astype(np.float64), found[name].astype(np.float64)
            error = np.abs(a - b)
            kept = 1 - self._undecided if name == PROBABILITIES else 1.0
            largest = float(np.quantile(error, kept, method="lower"))
            record = largest, float(error.mean()), float((a == b).mean()), float(np.abs(a).max())
            self._errors.setdefault((compared, name), []).append(record)

    def rows(self) -> tuple[ParityRow, ...]:
        return tuple(self._row(*key) for key in self._errors)

    def _row(self, compared: str, name: str) -> ParityRow:
        largest, mean, equal, size = zip(*self._errors[compared, name], strict=True)
        tolerance, worst = self._tolerances[name], float(np.max(largest))  # Python's max may pass over nan
        if name in (LABELS, VALUE):
            agreement, ok = min(equal), min(equal) >= tolerance
        else:
            tolerance *= float(np.max(size)) if name == KEY else 1.0
            agreement, ok = None, worst <= tolerance
        return ParityRow(compared, name, worst, float(np.mean(mean)), agreement, tolerance, bool(ok))
