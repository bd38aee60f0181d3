"""Times of the layers of a model that runs on a CPU."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ...common.errors import ModelError, OutputError
from ...common.types import Array, Image
from ..backends.onnxrt.colour import normalised_lab
from ..backends.onnxrt.integer_encoder import for_integer_kernels
from ..model.metadata import EXPORT_AGAIN
from ..model.step_graph import cut_at_memory_read, load_step_graph, memory_read
from ..model.tensor_names import FRAME, LAB
from .inputs import model_inputs
from .report import Layer

RUNS = 4
"""Runs of the encoder over which the times of its operators are averaged."""


def layers_on_cpu(model: Path, frame: Image, parts: list[dict[str, float]], threads: int) -> list[Layer]:
    """Layers of the encoder, and the parts of a step that maskring computes itself; slowest first.

    Args:
        model: an exported ``.onnx``.
        frame: [H, W, 3] RGB, the encoder's input.
        parts: seconds of each tracked step by part, at least one step.
        threads: CPU threads.
    """
    own_parts = [
        Layer(name, "maskring", sum(part[name] for part in parts) / len(parts) * 1e3)
        for name in parts[0]
        if name != "encoder" and any(part[name] for part in parts)
    ]
    return _slowest_first([*encoder_layers(model, frame, threads), *own_parts])


def encoder_layers(model: Path, frame: Image, threads: int) -> list[Layer]:
    """Operators of the encoder as onnxruntime profiles them, slowest first."""
    graph, metadata = load_step_graph(model)
    graph = for_integer_kernels(graph)
    read = memory_read(graph)
    if read is None:
        raise ModelError(f"{model} has no memory read", EXPORT_AGAIN)
    inputs = model_inputs(metadata, frame)
    if metadata.lab_mean:
        inputs[LAB] = np.zeros((1, 3, *frame.shape[:2]), np.float32)
        normalised_lab(frame, metadata, out=inputs[LAB][0])
    encoder = cut_at_memory_read(graph, read, LAB if metadata.lab_mean else FRAME).model
    layers: dict[tuple[str, str], float] = {}
    for event in _profile_operators(encoder, inputs, threads):
        key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        layers[key] = layers.get(key, 0.0) + event["dur"] / 1e3 / RUNS
    return _slowest_first([Layer(name, kind, taken) for (name, kind), taken in layers.items()])


def _slowest_first(layers: list[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def _profile_operators(
    model: onnx.ModelProto, inputs: dict[str, Array], threads: int
) -> list[dict[str, Any]]:
    """Run the model :data:`RUNS` times; returns the operators' events of onnxruntime's profile.

    Raises:
        OutputError: when the profile cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "layers")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {declared.name: inputs[declared.name] for declared in session.get_inputs()}
        for _ in range(RUNS):
            session.run(None, feeds)
        written = Path(session.end_profiling())
        try:
            events = json.loads(written.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:  # onnxruntime does not report a full disk
            raise OutputError(
                f"the layer times cannot be written to {written.parent.parent}",
                "free some space there, or name another folder with TMPDIR",
            ) from error
    return [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
