"""``maskring export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.errors import ModelError, OutputError
from . import options
from .console import busy, require_suffix, say, size_mb
from .options import PrecisionChoice


def export(
    checkpoint: options.Checkpoint,
    out_file: options.OptionalOnnxOut = None,
    triton: options.Triton = None,
    streams: options.Streams = None,
    height: options.FixedHeight = None,
    width: options.FixedWidth = None,
    objects: options.FixedObjects = None,
    radius: options.Radius = None,
    logit_scale: options.LogitScale = None,
    top_k: options.TopK = None,
    roi_step: options.RoiStep = None,
    smoothing_radius: options.SmoothingRadius = None,
    confidence_exponent: options.ConfidenceExponent = None,
    guided_filter_radius: options.GuidedFilterRadius = None,
    precision: options.Precision = PrecisionChoice.float32,
) -> None:
    """Export a checkpoint to one ONNX file that holds a whole tracking step."""
    from ..models import model_file
    from ..training.checkpoint_header import open_checkpoint

    checkpoint = model_file(checkpoint)
    if out_file is None and triton is None:
        raise OutputError("no output was given", "add --out FILE.onnx or --triton DIR")
    if streams is not None and triton is None:
        raise OutputError("--streams is for --triton", "add --triton DIR, or leave --streams out")
    if out_file is not None:
        require_suffix(out_file, ".onnx")
    with open_checkpoint(checkpoint, "numpy"):
        pass  # what is no checkpoint is refused before the exporter is imported, which takes seconds
    from ..export.onnx_export import export_onnx

    settings: dict[str, Any] = {
        "height": height,
        "width": width,
        "num_labels": None if objects is None else objects + 1,
        "radius": radius,
        "logit_scale": logit_scale,
        "top_k": top_k,
        "roi_step": roi_step,
        "smoothing_radius": smoothing_radius,
        "confidence_exponent": confidence_exponent,
        "guided_filter_radius": guided_filter_radius,
        "dtype": precision.value,
    }
    if triton is not None:
        _export_triton(checkpoint, triton, streams, settings)
    if out_file is not None:
        with busy("exporting"):
            export_onnx(checkpoint, out_file, **settings)
        say(f"wrote {out_file} ({size_mb(out_file)})")


def _export_triton(checkpoint: Path, folder: Path, streams: int | None, settings: dict[str, Any]) -> None:
    from ..export.triton.config import DEFAULT_STREAMS
    from ..export.triton.repository import write_triton_repository

    sizes = (settings["height"], settings["width"], settings["num_labels"])
    if None in sizes:
        raise ModelError("--triton needs fixed sizes", "add --height, --width and --objects")
    with busy("exporting for Triton"):
        written = write_triton_repository(checkpoint, folder, streams=streams or DEFAULT_STREAMS, **settings)
    say(f"wrote {written}, for {streams or DEFAULT_STREAMS} streams at once")
