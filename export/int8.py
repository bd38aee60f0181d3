"""Quantization of an exported model: its encoder computes in int8, calibrated on unlabelled frames."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ..common.errors import ModelError, SourceError
from ..common.files import atomic_path, directory
from ..common.types import Array
from ..runtime.backends.onnxrt.session import open_session
from ..runtime.model.metadata import EXPORT_AGAIN, QUANTIZATION_KEY, ModelMetadata
from ..runtime.model.step_graph import load_step_graph, memory_read, subgraph
from ..runtime.model.tensor_names import FRAME, LAB

PERCENTILE = 99.99
"""Percentage of a tensor's values that its int8 range covers: outliers would make the steps coarser."""

LAYERS = ("Conv", "Add")
"""Types of the nodes whose inputs are quantized. The Relu after one is part of the next quantization."""


def quantize_onnx(model: Path, out: Path, frames: Iterable[Array]) -> int:
    """Write ``model`` with an int8 encoder: its layers read QuantizeLinear/DequantizeLinear pairs.

    The scheme is the one that TensorRT takes: symmetric, one scale per tensor and, for weights, one per
    output channel; biases stay float. Colours, memory read and upsampling do not change, and the features
    stay float: the last layer reads int8 and writes float.

    Args:
        model: a float32 step graph as :func:`.export_onnx` writes it.
        out: the ``.onnx`` to write.
        frames: [H, W, 3] uint8 RGB to calibrate on, of any sizes that the model takes; all stay in memory.

    Returns:
        The number of frames.

    Raises:
        ModelError: when the model is not an export of maskring, is quantized already or is not float32.
        SourceError: when there are no frames, or one does not fit the model.
        OutputError: when ``out`` cannot be written.
    """
    graph, metadata = load_step_graph(model)
    read = memory_read(graph)
    _require_quantizable(graph, metadata, read, model)
    assert read is not None
    with directory(out.parent):
        reader = _CalibrationFrames(graph, metadata, frames)
        encoder = subgraph(graph, [LAB], [read.input[0]])
        with tempfile.TemporaryDirectory(prefix="maskring-quantize-") as folder:
            quantized = _quantized(encoder, reader, Path(folder))
        spliced = _replace_encoder(graph, encoder, quantized)
        properties = {entry.key: entry.value for entry in graph.metadata_props}
        note = {
            "scheme": "int8 symmetric, weights per channel",
            "frames": reader.count,
            "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        }
        helper.set_model_props(spliced, properties | {QUANTIZATION_KEY: json.dumps(note)})
        onnx.checker.check_model(spliced, full_check=True)
        with atomic_path(out) as partial:
            partial.write_bytes(spliced.SerializeToString(deterministic=True))
        return reader.count


def _require_quantizable(
    graph: onnx.ModelProto, metadata: ModelMetadata, read: onnx.NodeProto | None, origin: Path
) -> None:
    if any(node.op_type == "QuantizeLinear" for node in graph.graph.node):
        raise ModelError(f"{origin} is already quantized", "quantize the float32 export it was made from")
    if metadata.dtype != "float32":
        raise ModelError(
            f"{origin} is a {metadata.dtype} export, and quantize needs float32",
            "export it with --precision float32",
        )
    if read is None or not any(LAB in node.output for node in graph.graph.node):
        raise ModelError(f"{origin} has no tensor {LAB}, where the encoder begins", EXPORT_AGAIN)


class _CalibrationFrames(CalibrationDataReader):  # type: ignore[misc]
    """Gives the encoder's input for one frame at a time to onnxruntime's calibration.

    ``set_range`` and ``__len__`` make the calibration process each frame before it asks for the next.
    Otherwise it would hold the tensors of all layers for all frames at once, which do not fit into memory.
    """

    def __init__(self, graph: onnx.ModelProto, metadata: ModelMetadata, frames: Iterable[Array]) -> None:
        self._colours = open_session(subgraph(graph, [FRAME], [LAB]), threads=0)
        self._metadata = metadata
        # The calibration asks for the number of frames first, so all uint8 frames are held, but no floats.
        self._frames = list(frames)
        self._pending: list[Array] = []
        if not self._frames:
            raise SourceError("there are no frames to calibrate on", "give a video that has some")

    @property
    def count(self) -> int:
        """The number of frames."""
        return len(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restrict :meth:`get_next` to these frames."""
        self._pending = self._frames[start_index:end_index]

    def get_next(self) -> dict[str, Array] | None:
        """Normalised colours of the next frame, None after the last."""
        if not self._pending:
            return None
        frame = self._pending.pop(0)
        self._metadata.check_frame_size(*frame.shape[:2])
        (lab,) = self._colours.run([LAB], {FRAME: np.ascontiguousarray(frame[None])})
        return {LAB: lab}


def _quantized(encoder: onnx.ModelProto, reader: _CalibrationFrames, folder: Path) -> onnx.ModelProto:
    plain, result = folder / "encoder.onnx", folder / "quantized.onnx"
    excluded = _raw_colour_path(encoder)
    onnx.save(encoder, plain)
    with _quiet():
        quantize_static(
            plain,
            result,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(LAYERS),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT takes no int32 biases
                "OpTypesToExcludeOutputQuantization": list(LAYERS),
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": 1,
            },
        )
    return _remove_pairs_before(onnx.load(result), excluded)


def _remove_pairs_before(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """``model`` without Q/DQ pairs at the inputs of the nodes with these names."""
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.name in names else []):
            if name in producer and producer[name].op_type == "DequantizeLinear":
                node.input[index] = producer[producer[name].input[0]].input[0]
    return model


def _raw_colour_path(encoder: onnx.ModelProto) -> list[str]:
    """Names of the layers between raw colours and features that bypass the network: they stay float.

    Features of raw colours are compared by distance, and the differences that matter are smaller than one
    int8 step over the whole range of colours.
    """
    producer = {name: node for node in encoder.graph.node for name in node.output}

    def reads_colours(node: onnx.NodeProto) -> bool:
        source = producer.get(node.input[0])  # a grey encoder slices the lightness out of the colours first
        return LAB in (node.input if source is None else [*node.input, *source.input])

    names: list[str] = []
    pending = [output.name for output in encoder.graph.output]
    while pending:
        node = producer.get(pending.pop())
        if node is None or (node.op_type == "Conv" and not reads_colours(node)):
            continue
        if node.op_type in LAYERS:
            names.append(node.name)
        pending.extend(node.input)
    return names


def _replace_encoder(
    model: onnx.ModelProto, encoder: onnx.ModelProto, quantized: onnx.ModelProto
) -> onnx.ModelProto:
    """``model`` with the nodes and weights of ``encoder`` replaced by those of ``quantized``."""
    spliced = onnx.ModelProto()
    spliced.CopyFrom(model)
    graph = spliced.graph
    replaced = {tuple(node.output) for node in encoder.graph.node}
    nodes = [node for node in graph.node if tuple(node.output) not in replaced]
    place = next(index for index, node in enumerate(nodes) if LAB in node.output) + 1
    del graph.node[:]
    graph.node.extend([*nodes[:place], *quantized.graph.node, *nodes[place:]])
    old = {weight.name for weight in encoder.graph.initializer}
    still_read = {name for node in nodes for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name not in old or weight.name in still_read]
    names = {weight.name for weight in weights}
    del graph.initializer[:]
    graph.initializer.extend([*weights, *(w for w in quantized.graph.initializer if w.name not in names)])
    return spliced


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's log messages and progress prints off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
