"""Building an exported model into an engine of TensorRT or TensorRT-RTX, with a manifest next to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ..common.errors import ModelError, OutputError, UnavailableError
from ..common.files import atomic_path, directory, make_directory
from ..common.machine import compute_capability
from ..common.types import MAX_LABELS
from ..plugins.library import library_path
from ..plugins.library import load as load_plugin
from ..plugins.windowed_affinity.onnx_bindings import use_tensorrt_plugin
from ..plugins.windowed_affinity.onnx_function import without_matrix_products
from ..runtime.backends.trt.module import load_for_polygraphy
from ..runtime.model.engine_file import (
    ENGINE_SUFFIX,
    HARDWARE_COMPATIBILITY,
    RUNTIMES,
    TENSORRT,
    TENSORRT_RTX,
    EngineKey,
    EngineManifest,
    Shapes,
    manifest_path,
    read_engine,
    read_manifest,
    sha256,
)
from ..runtime.model.metadata import QUANTIZATION_KEY, ModelMetadata
from ..runtime.model.step_graph import load_step_graph, read_export
from ..runtime.model.tensor_names import DILATION, FRAME, INPUTS, KEYS, VALUES
from ..runtime.pipeline.progress import Progress, no_progress
from ..runtime.tracking.memory import MemoryPolicy
from .engine_builder import build
from .triton.state import REQUEST_INPUTS, STATE_INPUTS

Range = tuple[int, int, int]
"""Smallest, best and largest value."""

DEFAULT_OBJECTS: Range = (1, 3, 15)

PLAN_SUFFIX = ".plan"
"""Suffix of engines for Triton."""

TURING = "sm75"
"""For this GPU architecture, TensorRT-RTX has no float32 matrix products."""


@dataclass(frozen=True)
class EngineOptions:
    """The user's options for an engine.

    Attributes:
        runtime: one of :data:`maskring.runtime.model.engine_file.RUNTIMES`.
        height, width: of the frames, if the model takes any.
        objects: without background, if the model takes any number; None for :data:`DEFAULT_OBJECTS`.
        compute_capabilities: GPUs to compile for, for example ``sm86``; for TensorRT-RTX only, because
            TensorRT times kernels on the GPU of this machine.
        optimization_level: of the builder, 0 to 5; None for its default.
        workspace_mb: limit of scratch memory, in MiB.
        version_compatible: whether later TensorRT of the same major version can run it.
        hardware_compatibility: one of :data:`maskring.runtime.model.engine_file.HARDWARE_COMPATIBILITY`, or
            empty.
        timing_cache: file that stores timings for the next build.
    """

    runtime: str = TENSORRT
    height: Range | None = None
    width: Range | None = None
    objects: Range | None = None
    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    hardware_compatibility: str = ""
    timing_cache: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """What :func:`build_engine` did.

    Attributes:
        manifest: of the engine.
        reused: whether the existing engine was the right one, and nothing was built.
        replaced: why an existing engine was replaced; empty when there was none.
    """

    manifest: EngineManifest
    reused: bool
    replaced: str = ""


def parse_range(text: str, option: str) -> Range:
    """``480`` or ``240:480:1080`` -> smallest, best, largest.

    Raises:
        ModelError: when the text has another form.
    """
    parts = text.split(":")
    # int() also accepts digits of other scripts, and raises for thousands of digits.
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 10]
    rising = len(numbers) == len(parts) and 0 not in numbers and numbers == sorted(numbers)
    if not rising or len(numbers) not in (1, 3):
        raise ModelError(f"{option} {text} is not a range", f"give {option} N or SMALLEST:BEST:LARGEST")
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def build_engine(
    model: Path, out: Path, options: EngineOptions, progress: Progress = no_progress
) -> BuiltEngine:
    """Build ``model`` into the engine ``out`` and its manifest ``out``.json, unless both are there already.

    For TensorRT, the plugin computes the memory read. TensorRT-RTX takes no plugins, so the function body is
    built in. The precision is that of the model.

    Args:
        model: an exported ``.onnx``; for a ``.plan`` the one in a Triton repository.
        out: the ``.engine`` or ``.plan`` to write.
        options: see :class:`EngineOptions`.
        progress: called with each phase of the build, its steps that are done, and their number.

    Raises:
        ModelError: when the model, a size or an option does not fit, or TensorRT refuses the model.
        UnavailableError: when TensorRT, polygraphy, the plugin or a GPU is missing.
        OutputError: when a file cannot be written.
    """
    _check_output(out, options)
    served = out.suffix == PLAN_SUFFIX
    graph, metadata, fixed = _load_served_model(model) if served else (*load_step_graph(model), {})
    _check_options(options)
    shapes = profile_shapes(metadata, options)
    if served:
        shapes = {name: [shape] * 3 for name, shape in fixed.items()}
    trt = load_for_polygraphy(options.runtime)
    targets = (compute_capability(),) if options.runtime == TENSORRT else _targets(trt, options)
    network = _network(graph, shapes, options.runtime, targets)
    key = EngineKey(
        runtime=options.runtime,
        onnx_sha256=sha256(model),
        network_sha256=hashlib.sha256(network).hexdigest(),
        precision=_precision(graph, metadata),
        shapes=shapes,
        tensorrt_version=str(trt.__version__),
        compute_capability=targets,
        plugin_sha256=sha256(library_path()) if options.runtime == TENSORRT else "",
        optimization_level=options.optimization_level,
        workspace_mb=options.workspace_mb,
        version_compatible=options.version_compatible,
        hardware_compatibility=options.hardware_compatibility,
    )
    existing, difference = _matching_manifest(out, key)
    if existing is not None:
        return BuiltEngine(existing, reused=True)
    with directory(out.parent):
        if options.timing_cache is not None:
            make_directory(options.timing_cache.parent)
        if options.runtime == TENSORRT:
            load_plugin(trt)
        engine, log = build(trt, network, key, options.timing_cache, progress)
        built = EngineManifest(key, metadata, hashlib.sha256(engine).hexdigest(), log.memory)
        _write(out, engine, built)
    return BuiltEngine(built, reused=False, replaced=difference)


def _check_output(out: Path, options: EngineOptions) -> None:
    if out.suffix not in (ENGINE_SUFFIX, PLAN_SUFFIX):
        raise OutputError(f"{out} does not end in .engine (for trackers) or .plan (for Triton)", "rename it")
    if out.suffix == PLAN_SUFFIX and options.runtime == TENSORRT_RTX:
        raise ModelError("Triton does not run engines of TensorRT-RTX", "build with --runtime tensorrt")
    for path in (out, manifest_path(out), options.timing_cache):
        if path is not None and path.is_dir():
            raise OutputError(f"{path} is a folder", "give a file name")


def _load_served_model(path: Path) -> tuple[onnx.ModelProto, ModelMetadata, dict[str, list[int]]]:
    """The model of a Triton repository, its metadata and the fixed shapes of its inputs.

    Raises:
        ModelError: when the file is missing, damaged or not such a model.
    """
    model, metadata = read_export(path)
    shapes = {
        tensor.name: [axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
        for tensor in model.graph.input
    }
    if set(shapes) != {*REQUEST_INPUTS, *STATE_INPUTS}:
        raise ModelError(
            f"{path} is not the model of a Triton repository",
            "write one: maskring export CHECKPOINT --triton DIR",
        )
    return model, metadata, shapes


def profile_shapes(metadata: ModelMetadata, options: EngineOptions) -> Shapes:
    """Smallest, best and largest shape of each input of the step graph.

    Raises:
        ModelError: when a size that the model leaves open is missing, or differs from one that it fixes.
    """
    height = _range("height", options.height, metadata.height, None)
    width = _range("width", options.width, metadata.width, None)
    fixed = None if metadata.num_labels is None else metadata.num_labels - 1
    objects = _range("objects", options.objects, fixed, DEFAULT_OBJECTS)
    if objects[2] >= MAX_LABELS:
        raise ModelError(f"--objects {objects[2]} is out of range", f"give at most {MAX_LABELS - 1}")
    policy = MemoryPolicy.of_model(metadata)
    slots = metadata.num_slots or policy.num_slots
    shapes: Shapes = {name: [] for name in INPUTS}
    for pixels_high, pixels_wide, count in zip(height, width, objects, strict=True):
        grid = metadata.feature_size(pixels_high, pixels_wide)
        shapes[FRAME].append([1, pixels_high, pixels_wide, 3])
        shapes[KEYS].append([1, slots, metadata.channels, *grid])
        shapes[VALUES].append([1, slots, count + 1, *grid])
        shapes[DILATION].append([1, slots])
    return shapes


def _network(graph: onnx.ModelProto, shapes: Shapes, runtime: str, targets: tuple[str, ...]) -> bytes:
    """The serialized model for TensorRT's parser."""
    if runtime == TENSORRT:
        graph = use_tensorrt_plugin(graph)
    elif TURING in targets:
        graph = without_matrix_products(graph)
    # If the profile fixes an axis, fixing it in the graph too saves the builder scratch memory.
    for tensor in graph.graph.input:
        extents = zip(*shapes[tensor.name], strict=True)
        for axis, (smallest, _, largest) in zip(tensor.type.tensor_type.shape.dim, extents, strict=True):
            if smallest == largest:
                axis.dim_value = largest
    network: bytes = graph.SerializeToString(deterministic=True)
    return network


def _range(name: str, asked: Range | None, fixed: int | None, default: Range | None) -> Range:
    if fixed is not None:
        if asked not in (None, (fixed, fixed, fixed)):
            raise ModelError(
                f"the model is fixed to {name} {fixed}",
                f"leave --{name} out, or export the model without --{name}",
            )
        return fixed, fixed, fixed
    chosen = asked or default
    if chosen is None:
        raise ModelError(
            f"the model takes any {name}, and an engine needs bounds",
            f"give --{name} N, or --{name} SMALLEST:BEST:LARGEST",
        )
    return chosen


def _check_options(options: EngineOptions) -> None:
    if options.runtime not in RUNTIMES:
        raise ModelError(f"the runtime {options.runtime} is unknown", f"choose {' or '.join(RUNTIMES)}")
    if options.hardware_compatibility not in ("", *HARDWARE_COMPATIBILITY):
        raise ModelError(
            f"the hardware compatibility {options.hardware_compatibility} is unknown",
            f"choose {' or '.join(HARDWARE_COMPATIBILITY)}",
        )
    if options.runtime == TENSORRT and options.compute_capabilities:
        raise ModelError(
            "--compute-capability does not apply to TensorRT, which builds for the GPU of this machine",
            "leave it out, or build with --runtime tensorrt-rtx",
        )
    if options.runtime == TENSORRT_RTX and (
        options.version_compatible or options.hardware_compatibility or options.timing_cache
    ):
        raise ModelError(
            "--version-compatible, --hardware-compatibility and --timing-cache do not apply to TensorRT-RTX",
            "leave them out and name the GPUs with --compute-capability",
        )
    if options.runtime == TENSORRT_RTX and not options.compute_capabilities:
        raise ModelError(
            "TensorRT-RTX builds ahead of time and needs to know the GPUs",
            "name them with --compute-capability sm86,sm89 (maskring doctor prints that of this machine)",
        )


def _precision(graph: onnx.ModelProto, metadata: ModelMetadata) -> str:
    quantized = any(entry.key == QUANTIZATION_KEY for entry in graph.metadata_props)
    return metadata.dtype + ("+int8" if quantized else "")


def _targets(trt: Any, options: EngineOptions) -> tuple[str, ...]:
    supported = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    # NVIDIA writes 8.9, sm_89 and sm89 for one thing.
    targets = [
        re.sub(r"(?:sm_?)?(\d+)\.?(\d)", r"sm\1\2", name.lower()) for name in options.compute_capabilities
    ]
    unknown = [name for name in targets if name not in supported]
    if unknown:
        raise UnavailableError(
            f"TensorRT-RTX {trt.__version__} compiles for no {', '.join(unknown)}",
            f"choose from {', '.join(supported)}",
        )
    return tuple(dict.fromkeys(targets))


def _matching_manifest(out: Path, key: EngineKey) -> tuple[EngineManifest | None, str]:
    """The manifest of the engine at ``out`` if it matches ``key``; otherwise None and the difference."""
    if not out.exists():
        return None, ""
    try:
        manifest = read_manifest(out)
        read_engine(out, manifest)
    except ModelError as error:
        return None, error.problem
    differences = manifest.key.differences(key)
    return (None, "; ".join(differences)) if differences else (manifest, "")


def _write(out: Path, engine: bytes, manifest: EngineManifest) -> None:
    """Write both files; should only one arrive, the digest in the manifest does not match and is refused."""
    with atomic_path(out) as partial, atomic_path(manifest_path(out)) as partial_manifest:
        partial.write_bytes(engine)
        partial_manifest.write_text(manifest.to_json(), encoding="utf-8")
