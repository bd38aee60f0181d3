"""Verification: does an exported model compute what its checkpoint computes, however it is executed?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ..common.errors import ModelError, SourceError
from ..common.types import Array
from ..plugins.operator_library import onnxruntime_library
from ..runtime.backends.onnxrt.session import SESSION_ERRORS, open_session
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

Step = dict[str, Array]
Runner = Callable[[Step], Step]

TOLERANCES = {
    "float32": {KEY: 1e-3, PROBABILITIES: 1e-3, LABELS: 0.999, VALUE: 0.999},
    "float16": {KEY: 5e-2, PROBABILITIES: 5e-2, LABELS: 0.99, VALUE: 0.99},
    "int8": {LABELS: 0.98, VALUE: 0.98},
}
"""Tolerances by the model's type. ``key``: largest error relative to the largest feature; ``probabilities``:
largest error; ``labels`` and ``value``, which hold winners: least share of equal elements. The weights of ``value``
follow from ``probabilities``, so only its winners are compared.

Features in float32 differ by the order in which convolutions are summed; a winner may change only where two
labels tie within that. A quantized encoder computes something else than the float one, so against torch only
its winners are compared. Both ways to execute a quantized file compute the same integers and must meet
float32's tolerances."""

DEFAULT_SLOTS, DEFAULT_LABELS = 3, 3
"""Size of the memory when the model takes any."""

EXEMPT_SHARE = 0.01
"""Share of probabilities that are not compared in a model that searches for window centres. A centre half-way
between two features is rounded to either by the last bit of a sum, and the pixel then reads another
window."""

COLUMNS = ("output", "max error", "mean error", "agreement", "tolerance", "")
"""Headings for :meth:`ParityRow.cells`."""

TORCH, FUNCTION_BODY, LIBRARY = "torch", "function body", "operator library"
"""The ways to execute a model."""


@dataclass(frozen=True)
class ParityRow:
    """One output of one way to execute the model, compared with the first way over all frames.

    Attributes:
        compared: the names of both ways.
        output: name of the output.
        max_error, mean_error: of absolute differences.
        agreement: share of equal elements of a map of winners; None for other outputs.
        tolerance: the limit, see :data:`TOLERANCES`; for ``key`` in units of the features.
        ok: whether the output is within the tolerance.
    """

    compared: str
    output: str
    max_error: float
    mean_error: float
    agreement: float | None
    tolerance: float
    ok: bool

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of :data:`COLUMNS`."""
        if self.agreement is None:
            figures = f"{self.max_error:.2e}", f"{self.mean_error:.2e}", "", f"<= {self.tolerance:.2e}"
        else:  # label numbers have no meaningful difference
            figures = "", "", f"{100 * self.agreement:.3f} %", f">= {100 * self.tolerance:g} %"
        return self.output, *figures, "ok" if self.ok else "BEYOND"


@dataclass(frozen=True)
class ParityReport:
    """The result of a verification."""

    rows: tuple[ParityRow, ...]

    @property
    def ok(self) -> bool:
        """Whether all outputs are within their tolerances."""
        return all(row.ok for row in self.rows)


def verify_model(model: Path, *, checkpoint: Path | None, frames: Iterable[Array]) -> ParityReport:
    """Execute ``model`` on ``frames`` in every way, each step with the same memory, and compare the outputs.

    The first way fills the memory as tracking would: with keys of earlier frames, and with label maps that
    start from stripes of up to three labels.

    Args:
        model: an exported ``.onnx``.
        checkpoint: what it was exported from; torch is then the first way. None compares onnxruntime with
            itself.
        frames: [H, W, 3] uint8 RGB, at least two, all of one size.

    Raises:
        ModelError: when the model cannot be read, or was exported from another checkpoint.
        SourceError: when the frames do not fit the model.
        UnavailableError: when the operator library was not built.
    """
    proto, metadata = load_step_graph(model)
    runners: dict[str, Runner] = {}
    if checkpoint is not None:
        runners[TORCH] = _torch_runner(checkpoint, metadata, model)
    runners[FUNCTION_BODY] = _session_runner(proto, library=False, origin=model)
    runners[LIBRARY] = _session_runner(proto, library=True, origin=model)
    quantized = any(entry.key == QUANTIZATION_KEY for entry in proto.metadata_props)
    against_torch = checkpoint is not None
    differences = _Differences(
        "int8" if quantized and against_torch else metadata.dtype, EXEMPT_SHARE if metadata.roi_step else 0.0
    )
    for step in _steps(frames, metadata, next(iter(runners.values()))):
        results = {name: run(step) for name, run in runners.items()}
        (first, expected), *others = results.items()
        for name, outputs in others:
            differences.add(f"{name} to {first}", expected, outputs)
    return ParityReport(differences.rows())


def _torch_runner(checkpoint: Path, metadata: ModelMetadata, model: Path) -> Runner:
    # Imported here because the other ways are compared on machines without torch, too.
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


def _session_runner(proto: onnx.ModelProto, *, library: bool, origin: Path) -> Runner:
    operators = onnxruntime_library() if library else None
    try:
        session = open_session(proto, threads=0, library=operators)
    except SESSION_ERRORS as error:
        raise ModelError(f"onnxruntime cannot load {origin}", EXPORT_AGAIN) from error

    def run(step: Step) -> Step:
        return dict(zip(OUTPUTS, session.run(list(OUTPUTS), step), strict=True))

    return run


def _steps(frames: Iterable[Array], metadata: ModelMetadata, run: Runner) -> Iterable[Step]:
    """Inputs of one step per frame; ``run`` computes what each frame writes into memory."""
    slots = metadata.num_slots or DEFAULT_SLOTS
    labels = metadata.num_labels or DEFAULT_LABELS
    memory: Step = {}
    for index, frame in enumerate(frames):
        height, width = frame.shape[:2]
        metadata.check_frame_size(height, width)
        if not memory:
            memory = HostTensors.zeros(metadata, height, width, slots, labels).inputs()
        elif memory[FRAME].shape[1:] != frame.shape:
            raise SourceError(
                f"frame {index} differs in size from the frames before it", "give frames of one size"
            )
        memory[FRAME] = np.ascontiguousarray(frame[None])
        if index > 0:
            yield memory
        outputs, slot = run(memory), index % slots
        memory[KEYS][:, slot] = outputs[KEY]
        memory[VALUES][:, slot] = outputs[VALUE] if index else _striped_mask(outputs[VALUE])
        # Older frames are dilated if that makes the model search for window centres.
        memory[DILATION][:, :index] = 2 if metadata.roi_step else 1
        memory[DILATION][:, slot] = 1


def _striped_mask(value: Array) -> Array:
    """A one-hot map of the shape of ``value`` in which every label covers some vertical stripes."""
    labels, width = value.shape[1], value.shape[-1]
    owner = np.arange(width) // max(1, width // (2 * labels)) % labels
    stripes = (owner == np.arange(labels)[:, None]).astype(value.dtype)
    return np.broadcast_to(stripes[None, :, None, :], value.shape)


class _Differences:
    """Errors by pair of ways and output; the worst ``exempt_share`` of probabilities does not count."""

    def __init__(self, dtype: str, exempt_share: float = 0.0) -> None:
        if dtype not in TOLERANCES:
            raise ModelError(f"the model has the unknown type {dtype}", EXPORT_AGAIN)
        self._tolerances, self._exempt_share = TOLERANCES[dtype], exempt_share
        self._errors: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}

    def add(self, compared: str, expected: Step, outputs: Step) -> None:
        for name in self._tolerances:
            a, b = expected[name].astype(np.float64), outputs[name].astype(np.float64)
            error = np.abs(a - b)
            share = 1 - self._exempt_share if name == PROBABILITIES else 1.0
            largest = float(np.quantile(error, share, method="lower"))
            equal = (a > 0) == (b > 0) if name == VALUE else a == b
            record = largest, float(error.mean()), float(equal.mean()), float(np.abs(a).max())
            self._errors.setdefault((compared, name), []).append(record)

    def rows(self) -> tuple[ParityRow, ...]:
        return tuple(self._row(*key) for key in self._errors)

    def _row(self, compared: str, name: str) -> ParityRow:
        largest, mean, equal, size = zip(*self._errors[compared, name], strict=True)
        tolerance, worst = self._tolerances[name], float(np.max(largest))  # Python's max may skip nan
        if name in (LABELS, VALUE):
            agreement, ok = min(equal), min(equal) >= tolerance
        else:
            tolerance *= float(np.max(size)) if name == KEY else 1.0
            agreement, ok = None, worst <= tolerance
        return ParityRow(compared, name, worst, float(np.mean(mean)), agreement, tolerance, bool(ok))
