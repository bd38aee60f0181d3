"""What the memory read costs in an engine of TensorRT-RTX, which has no plugins: arithmetic and memory.

    python bench/engine_cost.py                     # the shipped checkpoints, 480x480, r=12, three objects
    python bench/engine_cost.py --architecture 75   # Turing, whose body has products and sums in place of
                                                    # matrix products: as many of them

Multiply-adds are counted, not timed. "executed" counts the matrix products and convolutions of the model in
standard operators, which TensorRT-RTX builds. "asked for" counts what the operator needs: every feature with
every feature of its windows, which is what the plugin computes. Scratch memory is what NVIDIA's builder
reports for the engine.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from maskring.export.engine import EngineOptions, build_engine
from maskring.export.onnx_export import export_onnx
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.model.step_graph import load_step_graph
from maskring.runtime.model.tensor_names import DILATION, FRAME, KEYS, VALUES
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.training.weights import shipped_checkpoint

SLOTS = MemoryPolicy().num_slots


def executed(model: Path, folder: Path) -> Counter[str]:
    """Multiply-adds of one step by kind of operator, with full memory and undilated windows."""
    graph, metadata = load_step_graph(model)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])
    session.run(None, inputs(metadata))
    counted: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        details = event.get("args", {})
        if details.get("op_name") in ("MatMul", "Conv") and "output_type_shape" in details:
            (out,) = details["output_type_shape"][0].values()
            (first,), (second,) = (shape.values() for shape in details["input_type_shape"][:2])
            summed = first[-1] if details["op_name"] == "MatMul" else math.prod(second[1:])
            counted[details["op_name"]] += math.prod(out) * summed
    return counted


def inputs(metadata: ModelMetadata) -> dict[str, np.ndarray]:
    """Inputs of a step, of the sizes that the model is fixed to."""
    height, width, labels = metadata.height or 0, metadata.width or 0, metadata.num_labels or 0
    grid = metadata.feature_size(height, width)
    return {
        FRAME: np.zeros((1, height, width, 3), np.uint8),
        KEYS: np.zeros((1, SLOTS, metadata.channels, *grid), metadata.dtype),
        VALUES: np.zeros((1, SLOTS, labels, *grid), metadata.dtype),
        DILATION: np.ones((1, SLOTS), np.int32),
    }


def asked_for(metadata: ModelMetadata) -> int:
    """Multiply-adds of both reads: one per channel and one per label for each pair of features."""

    def pairs(radius: int) -> int:
        product = 1
        for extent in metadata.feature_size(metadata.height or 0, metadata.width or 0):
            middles = np.arange(extent)
            first, last = np.maximum(middles - radius, 0), np.minimum(middles + radius, extent - 1)
            product *= int((last - first + 1).sum())
        return product

    smoothing = pairs(metadata.smoothing_radius) if metadata.smoothing_radius else 0
    return (SLOTS * pairs(metadata.radius) + smoothing) * (metadata.channels + (metadata.num_labels or 0))


def row(checkpoint: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """The figures of one checkpoint."""
    scratch = []
    targets = (f"sm{options.architecture}",)
    engine = EngineOptions(runtime="tensorrt-rtx", compute_capabilities=targets)
    sizes = {
        "height": options.size,
        "width": options.size,
        "num_labels": options.objects + 1,
        "num_slots": SLOTS,
    }
    models = {dtype: folder / f"{checkpoint}-{dtype}.onnx" for dtype in ("float32", "float16")}
    for dtype, model in models.items():
        export_onnx(shipped_checkpoint(checkpoint), model, dtype=dtype, radius=options.radius, **sizes)
        built = build_engine(model, folder / "m.engine", engine)
        scratch.append(f"{built.manifest.memory['scratch'] / 2**20:.0f} ({dtype})")
    counted = executed(models["float32"], folder)
    useful, read = asked_for(load_step_graph(models["float32"])[1]), counted["MatMul"]
    figures = [f"{figure / 1e9:.2f}" for figure in (counted["Conv"], useful, read)]
    return [checkpoint, *figures, f"{read / useful:.1f}", ", ".join(scratch)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--radius", type=int, default=12)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--architecture", default="86")
    options = parser.parse_args()
    table = Table(
        *("checkpoint", "encoder", "reads: asked for", "executed", "times", "scratch MiB"),
        title=f"{options.size}x{options.size}, r={options.radius}, {options.objects} objects, {SLOTS} slots, "
        f"sm{options.architecture}; 10^9 multiply-adds per frame",
    )
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in ("pico", "nano", "full"):
            table.add_row(*row(checkpoint, options, Path(folder)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
