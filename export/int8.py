"""From an exported model to one whose encoder computes in int8: calibrated on frames, no labels needed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ..common.errors import ModelError, SourceError
from ..common.files import atomic_path, make_directory
from ..runtime.model.metadata import EXPORT_AGAIN, QUANTIZATION_KEY, ModelMetadata
from ..runtime.model.step_graph import load_step_graph, memory_read, subgraph
from ..runtime.model.tensor_names import FRAME, LAB

Array = NDArray[Any]

PERCENTILE = 99.99
"""Share of a tensor's values, by magnitude, that its int8 range covers: outliers would coarsen the rest."""

LAYERS = ("Conv", "Add")
"""What computes in int8. Their inputs are quantized; a Relu behind them belongs to the next quantization."""


def quantize_onnx(model: Path, out: Path, frames: Iterable[Array]) -> int:
    """Write ``model`` with an int8 encoder: QuantizeLinear/DequantizeLinear pairs around its layers.

    Symmetric int8 with one scale per tensor and, for weights, one per output channel: what TensorRT takes as
    it is. Biases stay float. Colours, memory read and upsampling are those of ``model``, untouched; so are
    the features: the last layer reads int8 and writes float.

    Args:
        model: a float32 step graph as :func:`.export_onnx` writes it.
        out: the ``.onnx`` to write.
        frames: [H, W, 3] uint8 RGB to calibrate on, of any sizes that the model takes; all kept in memory.

    Returns:
        How many frames the calibration saw.

    Raises:
        ModelError: when the model is not ours, is quantized already or is not float32.
        SourceError: when there is no frame, or one does not fit the model.
        OutputError: when ``out`` cannot be written.
    """
    graph, metadata = load_step_graph(model)
    read = memory_read(graph)
    _require_quantizable(graph, metadata, read, model)
    assert read is not None
    make_directory(out.parent)
    reader = _Frames(graph, metadata, frames)
    encoder = subgraph(graph, [LAB], [read.input[0]])
    with tempfile.TemporaryDirectory(prefix="maskring-quantize-") as folder:
        quantized = _quantized(encoder, reader, Path(folder))
    spliced = _with_encoder(graph, encoder, quantized)
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
        raise ModelError(f"{origin} is quantized already", "quantize the float32 export it was made from")
    if metadata.dtype != "float32":
        raise ModelError(
            f"{origin} is a {metadata.dtype} export", "quantize a float32 export (--precision float32)"
        )
    if read is None or not any(LAB in node.output for node in graph.graph.node):
        raise ModelError(f"{origin} has no encoder that begins at its tensor {LAB}", EXPORT_AGAIN)


class _Frames(CalibrationDataReader):  # type: ignore[misc]
    """Hands onnxruntime's calibration one frame at a time, as the encoder sees it.

    The interface for ranges makes the calibration digest each frame before it asks for the next: histograms
    of all layers stay in memory, the layers' tensors of all frames would not fit.
    """

    def __init__(self, graph: onnx.ModelProto, metadata: ModelMetadata, frames: Iterable[Array]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        colours = subgraph(graph, [FRAME], [LAB])
        self._colours = onnxruntime.InferenceSession(
            colours.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._metadata = metadata
        # The calibration asks for the number of frames first: keep them, in bytes, and nothing made of them.
        self._frames = list(frames)
        self._pending: list[Array] = []
        if not self._frames:
            raise SourceError("there is no frame to calibrate on", "give a video that holds some frames")

    @property
    def count(self) -> int:
        """Frames given."""
        return len(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand out only these frames from now on."""
        self._pending = self._frames[start_index:end_index]

    def get_next(self) -> dict[str, Array] | None:
        """Normalised colours of the next frame, None after the last."""
        if not self._pending:
            return None
        frame = self._pending.pop(0)
        self._metadata.check_frame_size(*frame.shape[:2])
        (lab,) = self._colours.run([LAB], {FRAME: np.ascontiguousarray(frame[None])})
        return {LAB: lab}


def _quantized(encoder: onnx.ModelProto, reader: _Frames, folder: Path) -> onnx.ModelProto:
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
    return _reading_floats(onnx.load(result), excluded)


def _reading_floats(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """``model``, its nodes of these names back on the tensors that stood there before Q/DQ pairs."""
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.name in names else []):
            if name in producer and producer[name].op_type == "DequantizeLinear":
                node.input[index] = producer[producer[name].input[0]].input[0]
    return model


def _raw_colour_path(encoder: onnx.ModelProto) -> list[str]:
    """Layers between the colours and the features that lead past the network: they stay float.

    Features beside a patch of raw colours are compared by distance, and the differences that matter are
    smaller than a step of int8 over the whole range of the colours.
    """
    producer = {name: node for node in encoder.graph.node for name in node.output}

    def reads_colours(node: onnx.NodeProto) -> bool:
        source = producer.get(node.input[0])  # of a grey encoder: the lightness, cut out of the colours
        return LAB in (node.input if source is None else [*node.input, *source.input])

    found: list[str] = []
    pending = [output.name for output in encoder.graph.output]
    while pending:
        node = producer.get(pending.pop())
        if node is None or (node.op_type == "Conv" and not reads_colours(node)):
            continue
        if node.op_type in LAYERS:
            found.append(node.name)
        pending.extend(node.input)
    return found


def _with_encoder(
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
    kept = [weight for weight in graph.initializer if weight.name not in old or weight.name in still_read]
    names = {weight.name for weight in kept}
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(w for w in quantized.graph.initializer if w.name not in names)])
    return spliced


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice and progress prints off the user's terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
