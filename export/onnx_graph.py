"""What torch's exporter leaves to do: our operators, tensor names, and the limits of TensorRT's parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxscript
import torch

from ..plugins.windowed_affinity.onnx_function import body_options, function_body
from ..plugins.windowed_affinity.onnx_op import (
    DOMAIN,
    OP_TYPE,
    OPSET_VERSION,
    is_memory_read,
    op_schema,
)
from ..runtime.model.metadata import ModelMetadata
from ..runtime.model.tensor_names import DILATION, FRAME, KEY, KEYS, LAB, LABELS, PROBABILITIES, VALUE, VALUES
from .torch_export import ONNX_OPSET

IR_WITH_OVERLOADS = 10
"""First version of ONNX's file format in which functions have overloads."""


def translations() -> dict[Any, Callable[..., Any]]:
    """Torch operators of ours -> functions that write their ONNX nodes."""
    return {
        torch.ops.maskring.windowed_affinity.default: _memory_read,
        torch.ops.maskring.upsample_like.default: _upsample_like,
    }


def _memory_read(
    query: Any,
    keys: Any,
    values: Any,
    dilation: Any,
    offsets: Any = None,
    radius: int = 0,
    scale: float = 1.0,
    top_k: int = 0,
) -> Any:
    domain = onnxscript.values.Opset(DOMAIN, OPSET_VERSION)
    node = onnxscript.values.Op(domain, OP_TYPE, op_schema())
    memory = (query, keys, values, dilation) if offsets is None else (query, keys, values, dilation, offsets)
    return node(*memory, radius=radius, scale=scale, top_k=top_k)


def _upsample_like(coarse: Any, fine: Any, factor: int) -> Any:
    op = onnxscript.values.Opset("", ONNX_OPSET)
    scales = [1.0, 1.0, float(factor), float(factor)]
    large = op.Resize(coarse, None, scales, coordinate_transformation_mode="asymmetric", mode="linear")
    return op.Slice(large, [0, 0], op.Shape(fine, start=2), [2, 3])


def attach_bodies(model: onnx.ModelProto) -> None:
    """Add the function bodies that the memory reads need; several bodies become overloads of one function."""
    reads = [node for node in model.graph.node if is_memory_read(node)]
    bodies: dict[str, onnx.FunctionProto] = {}
    for node in reads:
        needed = body_options(node)
        node.overload = "_".join(name for name, is_needed in needed.items() if is_needed)
        bodies[node.overload] = function_body(**needed)
    if len(bodies) > 1:
        model.ir_version = max(model.ir_version, IR_WITH_OVERLOADS)
        for name, body in bodies.items():
            body.overload = name
    else:  # TensorRT's parser does not support overloads
        for node in reads:
            node.overload = ""
    model.functions.extend(bodies[name] for name in sorted(bodies))


def declare_interface(model: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Declare the shapes of inputs and outputs: numbers for fixed axes, letters for dynamic ones."""
    rows: str | int = "h"
    columns: str | int = "w"
    if metadata.height is not None and metadata.width is not None:
        rows, columns = metadata.feature_size(metadata.height, metadata.width)
    height, width = metadata.height or "H", metadata.width or "W"
    slots, labels, channels = metadata.num_slots or "N", metadata.num_labels or "O", metadata.channels
    shapes: dict[str, list[str | int]] = {
        FRAME: [1, height, width, 3],
        KEYS: [1, slots, channels, rows, columns],
        VALUES: [1, slots, labels, rows, columns],
        DILATION: [1, slots],
        LABELS: [1, height, width],
        PROBABILITIES: [1, labels, rows, columns],
        VALUE: [1, labels, rows, columns],
        KEY: [1, channels, rows, columns],
    }
    for tensor in (*model.graph.input, *model.graph.output):
        kind = tensor.type.tensor_type.elem_type
        tensor.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, kind, shapes[tensor.name]))


def cast_frame_first(graph: onnx.GraphProto) -> None:
    """Let only one Cast read the uint8 frame, because TensorRT takes uint8 inputs into nothing else."""
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == FRAME)
    graph.node.remove(cast)
    graph.node.insert(0, cast)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == FRAME:
            node.input[0] = cast.output[0]


def name_lab(graph: onnx.GraphProto) -> None:
    """Name the encoder's input ``lab``, so that a runtime may compute the colours itself."""
    producers = {name: node for node in graph.node for name in node.output}
    name = next(node for node in graph.node if node.op_type == "Conv").input[0]
    # A float16 model casts the colours, and an encoder of grey images slices them: lab is in front of both.
    while producers[name].op_type in ("Cast", "Slice"):
        name = producers[name].input[0]
    for node in graph.node:
        for names in (node.input, node.output):
            for index, other in enumerate(names):
                if other == name:
                    names[index] = LAB
