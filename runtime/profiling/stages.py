"""Track frames and time every stage, then the bare model and its layers.

Nothing is estimated: every figure is measured on this machine by running what it is named after.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import SourceError
from ...common.machine import threads_to_use
from ...common.types import Image
from ..backends.onnxrt.backend import OnnxRuntimeBackend
from ..backends.trt.backend import TensorRTBackend
from ..model.engine_file import ENGINE_SUFFIX
from ..tracking.tracker import Tracker
from .host import machine_note, peak_memory_mb
from .inputs import middle_object, model_inputs, read_metadata
from .layers import layers_on_cpu
from .polygraphy_runs import time_with_polygraphy
from .report import Latency, Layer, Profile

STAGES = ("decode", "upload", "step", "download", "post")
"""Waiting for the decoded frame; copying it to where the model reads it; executing the model; fetching labels
(nothing is copied on a CPU, and an engine's step includes the copy); masks, boxes and areas."""


def profile_model(
    model: Path,
    frames: Iterable[Image],
    *,
    iterations: int = 50,
    warm_up: int = 8,
    threads: int = 0,
    runner_iterations: int = 5,
) -> Profile:
    """Track one object in ``frames`` and time every stage, then time the bare model and its layers.

    Args:
        model: an exported ``.onnx``, or an ``.engine``.
        frames: [H, W, 3] uint8 RGB; waiting for the next one is the stage ``decode``.
        iterations, warm_up: frames to measure, and frames before; memory is full after eight.
        threads: 0 for all cores that this process may use.
        runner_iterations: runs of the bare file by polygraphy's runner; 0 skips them.

    Raises:
        SourceError: when there are too few frames.
        UserError: when the model cannot be executed.
        UnavailableError: when polygraphy is needed and not installed.
    """
    if iterations < 1:
        raise SourceError(f"{iterations} frames are to be measured", "give --iterations 1 or more")
    threads = threads_to_use(threads)
    run = _track(model, frames, warm_up + iterations, threads)
    records, frame = run.records[warm_up:], run.last_frame
    totals = [sum(record.values()) for record in records]
    feeds = model_inputs(read_metadata(model), frame)
    return Profile(
        model=str(model),
        height=frame.shape[0],
        width=frame.shape[1],
        warm_up=warm_up,
        iterations=iterations,
        threads=threads,
        total=Latency.of(totals),
        stages={stage: Latency.of(record[stage] for record in records) for stage in STAGES},
        frames=[total * 1e3 for total in totals],
        runner=time_with_polygraphy(model, feeds, runner_iterations, threads) if runner_iterations else None,
        layers=layers_on_cpu(model, frame, run.parts[warm_up:], threads)
        if run.layers is None
        else run.layers,
        peak_memory_mb=peak_memory_mb(),
        machine=machine_note() | run.device,
    )


@dataclass
class _TrackingRun:
    """What was measured while frames were tracked.

    Attributes:
        records: seconds of each frame by stage.
        parts: on a CPU, seconds of each step by part.
        last_frame: the last frame that was tracked.
        device: the GPU of an engine, for people.
        layers: layers of an engine; None on a CPU.
    """

    records: list[dict[str, float]]
    parts: list[dict[str, float]]
    last_frame: Image
    device: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] | None = None


def _track(model: Path, frames: Iterable[Image], count: int, threads: int) -> _TrackingRun:
    records: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    stream = iter(frames)
    frame: Image | None = None
    backend = _open(model, threads)
    with closing(Tracker(backend)) as tracker:
        for index in range(count):
            requested = time.perf_counter()
            frame = next(stream, None)
            if frame is None:
                raise SourceError(
                    f"the source ended after {index} of {count} frames",
                    "give a longer one, or fewer --iterations",
                )
            decoded = time.perf_counter()
            timings = tracker.step(frame, middle_object(frame) if index == 0 else None).timings
            upload, run = backend.last_upload, backend.last_run
            spent = (decoded - requested, upload, run, max(0.0, timings.step - upload - run), timings.post)
            records.append(dict(zip(STAGES, spent, strict=True)))
            if isinstance(backend, OnnxRuntimeBackend):
                parts.append(backend.last_parts())
        assert frame is not None
        result = _TrackingRun(records, parts, frame)
        if isinstance(backend, TensorRTBackend):
            result.device = backend.description()
            result.layers = [Layer(name, "engine", taken) for name, taken in backend.layer_times()]
    return result


def _open(model: Path, threads: int) -> OnnxRuntimeBackend | TensorRTBackend:
    """A backend that reports the times of its latest step."""
    if model.suffix == ENGINE_SUFFIX:
        return TensorRTBackend(model)
    return OnnxRuntimeBackend(model, threads=threads)
