"""Quantized encoders the way onnxruntime's integer kernels on CPUs want them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

UNSIGNED_ZERO = "maskring_unsigned_zero_point"


def for_integer_kernels(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` as onnxruntime executes it best; one without Q/DQ is returned as it is, others as a copy."""
    return keep_float_layers(fold_rectifiers(model))


def keep_float_layers(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with float weights, instead of int8 behind a Q/DQ node, in each layer that gives floats out.

    Without a quantization behind it onnxruntime executes such a layer in floats whatever it is given, and
    only weights that are constants get its blocked layout. A model without Q/DQ is returned as it is;
    otherwise a copy is changed. Rectifiers must be folded: one between hides the quantization.
    """
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    if not quantized:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    restored = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and all(name in weights for name in node.input)
        and not any(weights[name].any() for name in node.input[2:])  # zero points: symmetric ones alone
    }
    for layer in graph.node:
        if layer.op_type != "Conv" or layer.output[0] in quantized or layer.input[1] not in restored:
            continue
        dequantize = restored.pop(layer.input[1])
        stored, scale = (weights[name] for name in dequantize.input[:2])
        floats = stored * scale.reshape(-1, *[1] * (stored.ndim - 1))
        graph.initializer.append(numpy_helper.from_array(floats.astype(scale.dtype), layer.input[1]))
        graph.node.remove(dequantize)
    return changed


def fold_rectifiers(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with each Relu between a layer and its symmetric int8 quantization folded into the latter.

    TensorRT takes int8 with zero point 0 alone. onnxruntime fuses layer, Relu and quantization only where the
    quantization itself cuts off what is negative. Unsigned bytes with the same scale do: 0 to 127 stay what
    they were, and what int8 would have clipped is kept up to twice the range. A model without Q/DQ is
    returned as it is; otherwise a copy is changed.
    """
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    zeros = {w.name for w in graph.initializer if not numpy_helper.to_array(w).any()}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    relus = {node.output[0]: node for node in graph.node if node.op_type == "Relu"}
    unsigned: set[str] = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or len(node.input) < 3 or node.input[2] not in zeros:
            continue
        relu = relus.get(node.input[0])
        if relu is not None and readers[relu.output[0]] == 1:
            node.input[0] = relu.input[0]
            node.input[2] = UNSIGNED_ZERO
            unsigned.add(node.output[0])
            graph.node.remove(relu)
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in unsigned:
            node.input[2] = UNSIGNED_ZERO
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.uint8), UNSIGNED_ZERO))
    return changed
