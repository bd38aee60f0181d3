"""``maskring quantize``."""

from __future__ import annotations

from . import options
from .console import busy, require_suffix, say, size_mb


def quantize(
    model: options.FloatModel,
    calibrate: options.Calibrate,
    out_file: options.Int8Out,
    more: options.MoreVideos = None,
    frames: options.CalibrationFrames = 32,
    size: options.CalibrationSize = 240,
) -> None:
    """Quantize the encoder of an exported model to int8, calibrated on unlabelled videos."""
    from ..export.calibration import quantize_on_videos

    require_suffix(out_file, ".onnx")
    with busy("calibrating"):
        seen = quantize_on_videos(model, [*calibrate, *(more or [])], out_file, frames=frames, size=size)
    say(f"calibrated on {seen} frames; wrote {out_file} ({size_mb(out_file)})")
