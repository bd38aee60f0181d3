"""``maskring build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .console import note, say, size_mb
from .options import EngineRuntime
from .progress import show_progress

if TYPE_CHECKING:
    from ..export.engine import BuiltEngine


def build(
    model: options.OnnxToBuild,
    out_file: options.EngineOut,
    runtime: options.Runtime = EngineRuntime.tensorrt,
    compute_capability: options.ComputeCapability = "",
    height: options.HeightRange = None,
    width: options.WidthRange = None,
    objects: options.ObjectsRange = None,
    optimization_level: options.OptimizationLevel = None,
    workspace: options.Workspace = None,
    version_compatible: options.VersionCompatible = False,
    hardware_compatibility: options.Compatibility = None,
    timing_cache: options.TimingCache = None,
) -> None:
    """Build an exported model into an engine for NVIDIA GPUs."""
    from ..export.engine import EngineOptions, build_engine, parse_range

    ranges = {
        name: None if text is None else parse_range(text, f"--{name}")
        for name, text in (("height", height), ("width", width), ("objects", objects))
    }
    settings = EngineOptions(
        runtime=runtime.value,
        compute_capabilities=tuple(name.strip() for name in compute_capability.split(",") if name.strip()),
        optimization_level=optimization_level,
        workspace_mb=workspace,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility.value if hardware_compatibility else "",
        timing_cache=timing_cache,
        **ranges,
    )
    with show_progress(nested=True, speed=False) as progress:
        built = build_engine(model, out_file, settings, progress)
    _report(built, out_file)


def _report(built: BuiltEngine, out_file: Path) -> None:
    if built.replaced:
        note(f"rebuilt: {built.replaced}")
    done = f"{out_file} is up to date, nothing built" if built.reused else f"wrote {out_file}"
    memory = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in built.manifest.memory.items())
    on_gpu = f"; on the GPU: {memory}" if memory else ""
    say(f"{done} ({size_mb(out_file)}{on_gpu})")
