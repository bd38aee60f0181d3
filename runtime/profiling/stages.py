"""Where the time of a frame goes: the real tracker stage by stage, the bare model, its layers.

Nothing is estimated: every figure is taken on this machine by running the thing it is named after.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import resource
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ...common.errors import ModelError, OutputError, SourceError, UnavailableError
from ...common.files import atomic_path, make_directory
from ...common.machine import threads_to_use, usable_cores
from ...plugins.library import library_path
from ...plugins.library import load as load_plugin
from ..backends.onnxrt.backend import Memory, OnnxRuntimeBackend, open_session
from ..backends.onnxrt.colour import normalised_lab
from ..backends.onnxrt.integer_encoder import for_integer_kernels
from ..backends.trt.backend import TensorRTBackend
from ..model.engine_file import ENGINE_SUFFIX, TENSORRT_RTX, load_for_polygraphy, read_manifest
from ..model.metadata import EXPORT_AGAIN, FRAME, INPUTS, LAB, VALUES, ModelMetadata
from ..model.step_graph import cut_at_memory_read, load_step_graph, memory_read
from ..tracking.tracker import Tracker

Array = NDArray[Any]

STAGES = ("decode", "upload", "step", "download", "post")
"""Waiting for the decoded frame; copying it to where the model reads it; executing the model; fetching labels
(nothing is copied on a CPU, and an engine's step includes the copy); masks, boxes and areas."""

SLOTS = 5
"""Frames in memory when the bare model is run: what the default policy reads."""

NEEDS_POLYGRAPHY = "run pip install 'maskring[profile]'"


@dataclass(frozen=True)
class Latency:
    """Statistics of durations, in milliseconds.

    Attributes:
        p50, p90, p99, max: percentiles, linearly interpolated, and the largest.
        mean: average.
        jitter: mean absolute difference of consecutive durations.
    """

    p50: float
    p90: float
    p99: float
    max: float
    mean: float
    jitter: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """Statistics of durations in seconds, at least one."""
        times = np.array(list(seconds)) * 1e3
        p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist()
        jitter = float(np.abs(np.diff(times)).mean()) if len(times) > 1 else 0.0
        return cls(p50, p90, p99, float(times.max()), float(times.mean()), jitter)


@dataclass(frozen=True)
class Layer:
    """Mean milliseconds per run of one operator of the model."""

    name: str
    kind: str
    milliseconds: float


@dataclass(frozen=True)
class Profile:
    """All figures of one model on this machine.

    Attributes:
        model: its file.
        height, width: size of the frames.
        warm_up, iterations: frames before the clock started, and frames measured.
        threads: CPU threads.
        total: of a whole frame, decoding included.
        stages: by name, see :data:`STAGES`.
        frames: milliseconds of each frame measured, in order.
        runner: of the bare file by polygraphy's runner, None when it was not asked for.
        layers: slowest first.
        peak_memory_mb: largest resident size of the process so far.
        machine: what it ran on, and what is known of its clocks.
    """

    model: str
    height: int
    width: int
    warm_up: int
    iterations: int
    threads: int
    total: Latency
    stages: dict[str, Latency]
    frames: list[float]
    runner: Latency | None
    layers: list[Layer]
    peak_memory_mb: float
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second, from the mean time of a frame."""
        return 1e3 / self.total.mean

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON's types."""
        return asdict(self) | {"fps": self.fps, "unit": "ms"}


def profile_model(
    model: Path,
    frames: Iterable[Array],
    mask: NDArray[np.uint8] | None = None,
    *,
    iterations: int = 50,
    warm_up: int = 8,
    threads: int = 0,
    runner_iterations: int = 5,
) -> Profile:
    """Track ``frames`` and time every stage, then time the bare model and its layers.

    Args:
        model: an exported ``.onnx``, or an ``.engine``.
        frames: [H, W, 3] uint8 RGB; waiting for the next one is the stage ``decode``.
        mask: objects of the first frame; None for one object in its middle.
        iterations, warm_up: frames to measure, and frames before; memory is full after eight.
        threads: 0 for all cores that this process may use.
        runner_iterations: runs of the bare file by polygraphy's runner; 0 leaves it out.

    Raises:
        SourceError: when there are fewer frames than asked for.
        UserError: when the model cannot be executed.
        UnavailableError: when polygraphy is needed and not installed.
    """
    if iterations < 1:
        raise SourceError("no frame is to be measured", "ask for at least one iteration")
    threads = threads_to_use(threads)
    tracked = _track(model, frames, mask, warm_up + iterations, threads)
    records, last = tracked.records[warm_up:], tracked.last
    totals = [sum(record.values()) for record in records]
    feeds = model_inputs(_metadata(model), last)
    return Profile(
        model=str(model),
        height=last.shape[0],
        width=last.shape[1],
        warm_up=warm_up,
        iterations=iterations,
        threads=threads,
        total=Latency.of(totals),
        stages={stage: Latency.of(record[stage] for record in records) for stage in STAGES},
        frames=[total * 1e3 for total in totals],
        runner=time_with_polygraphy(model, feeds, runner_iterations, threads) if runner_iterations else None,
        layers=_layers_on_cpu(model, tracked, warm_up, threads) if tracked.layers is None else tracked.layers,
        peak_memory_mb=peak_memory_mb(),
        machine=machine_note() | tracked.device,
    )


@dataclass
class _Tracked:
    """Seconds of each frame by stage, on a CPU also by part of the step; what an engine says of its GPU."""

    records: list[dict[str, float]]
    parts: list[dict[str, float]]
    last: Array
    device: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] | None = None


def _track(
    model: Path, frames: Iterable[Array], mask: NDArray[np.uint8] | None, count: int, threads: int
) -> _Tracked:
    records: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    stream = iter(frames)
    frame: Array | None = None
    backend = _open(model, threads)
    with closing(Tracker(backend)) as tracker:
        for index in range(count):
            asked = time.perf_counter()
            frame = next(stream, None)
            if frame is None:
                raise SourceError(
                    f"the source ended after {index} of {count} frames",
                    "give a longer one, or fewer --iterations",
                )
            decoded = time.perf_counter()
            if index == 0 and mask is None:
                mask = middle_object(frame)
            timings = tracker.step(frame, mask if index == 0 else None).timings
            upload, run = backend.last_upload, backend.last_run
            spent = (decoded - asked, upload, run, max(0.0, timings.step - upload - run), timings.post)
            records.append(dict(zip(STAGES, spent, strict=True)))
            if isinstance(backend, OnnxRuntimeBackend):
                parts.append(backend.last_parts())
        assert frame is not None
        tracked = _Tracked(records, parts, frame)
        if isinstance(backend, TensorRTBackend):
            tracked.device = backend.description()
            tracked.layers = [Layer(name, "engine", taken) for name, taken in backend.layer_times()]
    return tracked


def _open(model: Path, threads: int) -> OnnxRuntimeBackend | TensorRTBackend:
    """A backend that knows the times of its last step."""
    if model.suffix == ENGINE_SUFFIX:
        return TensorRTBackend(model)
    return OnnxRuntimeBackend(model, threads=threads)


def _metadata(model: Path) -> ModelMetadata:
    """Of a model, with what an engine was built to do best where that is a matter of choice."""
    if model.suffix != ENGINE_SUFFIX:
        return load_step_graph(model)[1]
    manifest = read_manifest(model)
    _, slots, labels, _, _ = manifest.key.shapes[VALUES][1]
    return replace(manifest.metadata, num_slots=slots, num_labels=labels)


def middle_object(frame: Array) -> NDArray[np.uint8]:
    """[H, W] mask of one object: the frame's middle ninth."""
    height, width = frame.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)] = 1
    return mask


def model_inputs(metadata: ModelMetadata, frame: Array) -> dict[str, Array]:
    """Inputs of one run of the bare model: ``frame`` and a memory full of invented features."""
    slots, labels = metadata.num_slots or SLOTS, metadata.num_labels or 2
    height, width = frame.shape[:2]
    memory = Memory.zeros(metadata, height, width, slots, labels)
    generator = np.random.default_rng(0)
    memory.frame[0] = frame
    memory.keys[:] = generator.standard_normal(memory.keys.shape, np.float32)
    memory.values[:, :, 0] = 1
    memory.dilation[:] = 1
    return memory.inputs()


def time_with_polygraphy(model: Path, feeds: dict[str, Array], iterations: int, threads: int) -> Latency:
    """Time the file as it is: an ``.onnx`` with polygraphy's ``OnnxrtRunner``, an engine with ``TrtRunner``.

    The memory read of an ``.onnx`` is executed in standard operators.

    Raises:
        UnavailableError: when polygraphy is not installed.
    """
    if model.suffix == ENGINE_SUFFIX:
        return time_engine(model, feeds, iterations)
    try:
        from polygraphy.backend.onnxrt import OnnxrtRunner
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", NEEDS_POLYGRAPHY) from error
    graph = onnx.load_model_from_string(model.read_bytes())
    with OnnxrtRunner(lambda: open_session(graph, threads)) as runner:
        return Latency.of(_runs(runner, feeds, iterations))


def time_engine(engine: Path, feeds: dict[str, Array], iterations: int) -> Latency:
    """Time an engine with polygraphy's ``TrtRunner``.

    Raises:
        ModelError: when what stands beside the engine is missing or damaged.
        UnavailableError: when polygraphy, TensorRT, the plugin or a GPU is missing, or TensorRT refuses.
    """
    key = read_manifest(engine).key
    trt = load_for_polygraphy(key.runtime)
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner
    from polygraphy.exception import PolygraphyException

    if key.plugin_sha256:
        load_plugin(trt)
    try:
        with TrtRunner(EngineFromBytes(BytesFromPath(str(engine)))) as runner:
            return Latency.of(_runs(runner, feeds, iterations))
    except (PolygraphyException, TypeError, RuntimeError) as error:
        # The bindings have no other words for what could not be made, as where CUDA fails.
        raise UnavailableError(
            f"polygraphy could not run {engine}: {' '.join(str(error).split())[:300].rstrip('. ')}",
            "read what TensorRT wrote above, or leave this measurement out: --runner-iterations 0",
        ) from error


def _runs(runner: Any, feeds: dict[str, Array], iterations: int) -> Iterator[float]:
    runner.infer(feeds)  # warm-up
    for _ in range(iterations):
        runner.infer(feeds, check_inputs=False)
        yield runner.last_inference_time()


def _layers_on_cpu(model: Path, tracked: _Tracked, warm_up: int, threads: int) -> list[Layer]:
    """The encoder's operators, and the parts of the tracked steps that maskring computes itself."""
    parts = tracked.parts[warm_up:]
    ours = [
        Layer(name, "maskring", sum(part[name] for part in parts) / len(parts) * 1e3)
        for name in parts[0]
        if name != "encoder" and any(part[name] for part in parts)
    ]
    layers = [*layer_times(model, tracked.last, threads), *ours]
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def layer_times(model: Path, frame: Array, threads: int, runs: int = 3) -> list[Layer]:
    """What onnxruntime's profile says of the operators of the encoder, slowest first."""
    graph, metadata = load_step_graph(model)
    graph = for_integer_kernels(graph)
    read = memory_read(graph)
    if read is None:
        raise ModelError(f"{model} has no memory read", EXPORT_AGAIN)
    inputs = model_inputs(metadata, frame)
    if metadata.lab_mean:
        inputs[LAB] = np.zeros((1, 3, *frame.shape[:2]), np.float32)
        normalised_lab(frame, metadata, out=inputs[LAB][0])
    head = cut_at_memory_read(graph, read, LAB if metadata.lab_mean else FRAME).model
    layers: dict[tuple[str, str], float] = {}
    for event in _profile(head, inputs, threads, runs):
        key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        layers[key] = layers.get(key, 0.0) + event["dur"] / 1e3 / (runs + 1)
    ordered = sorted(layers.items(), key=lambda item: -item[1])
    return [Layer(name, kind, milliseconds) for (name, kind), milliseconds in ordered]


def _profile(
    part: onnx.ModelProto, arrays: dict[str, Array], threads: int, runs: int
) -> list[dict[str, Any]]:
    """Run ``part`` once and ``runs`` times more; the profile's events of operators."""
    with tempfile.TemporaryDirectory(prefix="maskring-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "layers")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {declared.name: arrays[declared.name] for declared in session.get_inputs()}
        for _ in range(runs + 1):
            session.run(None, feeds)
        written = Path(session.end_profiling())
        try:
            events = json.loads(written.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:  # onnxruntime does not tell of a full disk
            raise OutputError(
                f"the times of layers cannot be written to {written.parent.parent}",
                "free some space there, or name another folder with TMPDIR",
            ) from error
    return [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def machine_note() -> dict[str, str]:
    """What the figures were taken on; whether clocks were fixed decides whether they can be compared."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    clocks = governor.read_text().strip() if governor.is_file() else "unknown: the system does not say"
    return {
        "processor": _processor(),
        "cores": str(usable_cores()),
        "clock governor": clocks,
        "load": f"{os.getloadavg()[0]:.1f} over the last minute",
        "onnxruntime": onnxruntime.__version__,
        "system": platform.platform(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def budget_ms(text: str) -> float:
    """Milliseconds of a budget such as ``33ms``, ``0.033s`` or ``33``.

    Raises:
        SourceError: when it is not a positive duration.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)?\s*", text)
    value = float(found.group(1)) * (1e3 if found.group(2) == "s" else 1.0) if found else 0.0
    if not 0 < value < math.inf:
        raise SourceError(f"the budget {text[:20]} is not a duration", "give it as 33ms or 0.033s")
    return value


def write_inputs(model: Path, frame: Array, folder: Path) -> dict[str, str]:
    """Write the inputs of a run where other tools can read them, and say how to call the tools.

    ``inputs.json`` is polygraphy's, ``NAME.bin`` are trtexec's.

    Raises:
        UnavailableError: when polygraphy is not installed.
        OutputError: when the files cannot be written.

    Returns:
        Command lines by tool.
    """
    try:
        from polygraphy.json import save_json
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", NEEDS_POLYGRAPHY) from error
    make_directory(folder)
    feeds = model_inputs(_metadata(model), frame)
    with atomic_path(folder / "inputs.json") as partial:
        save_json([feeds], str(partial))
    for name, array in feeds.items():
        with atomic_path(folder / f"{name}.bin") as partial:
            array.tofile(partial)
    shapes = ",".join(f"{name}:{'x'.join(map(str, array.shape))}" for name, array in feeds.items())
    files = ",".join(f"{name}:{folder / name}.bin" for name in INPUTS)
    q = shlex.quote
    inputs = f"--load-inputs {q(str(folder / 'inputs.json'))}"
    timing = f"--shapes={q(shapes)} --loadInputs={q(files)} --warmUp=500 --iterations=100 --dumpProfile"
    if model.suffix != ENGINE_SUFFIX:
        return {
            "polygraphy": f"polygraphy run {q(str(model))} --onnxrt {inputs}",
            "trtexec": f"trtexec --onnx={q(str(model))} --stronglyTyped {timing}",
        }
    key = read_manifest(model).key
    if key.runtime == TENSORRT_RTX:
        return {
            "polygraphy": "POLYGRAPHY_USE_TENSORRT_RTX=1 "
            f"polygraphy run {q(str(model))} --trt --model-type engine {inputs}",
            "tensorrt_rtx": f"tensorrt_rtx --loadEngine={q(str(model))} {timing}",
        }
    plugin = str(library_path()) if key.plugin_sha256 else ""
    return {
        "polygraphy": f"polygraphy run {q(str(model))} --trt --model-type engine {inputs}"
        + (f" --plugins {q(plugin)}" if plugin else ""),
        "trtexec": f"trtexec --loadEngine={q(str(model))} {timing}"
        + (f" --dynamicPlugins={q(plugin)}" if plugin else ""),
    }
