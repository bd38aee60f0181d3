"""``maskring export-refiner``."""

from __future__ import annotations

from ..runtime.refinement.settings import DEFAULT_SIZE
from . import options, refinement
from .console import say, size_mb


def export_refiner(
    refiner: refinement.RefinerFile, out_file: options.OnnxOut, size: refinement.ExportSize = DEFAULT_SIZE
) -> None:
    """Export an adapted U-Net to ONNX, with standard operators only."""
    from ..export.refiner_export import export_refiner

    export_refiner(refiner, out_file, size=size)
    say(f"wrote {out_file} ({size_mb(out_file)})")
