"""Rewrite quantized encoders so that onnxruntime's integer kernels for CPUs execute them fast."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

UNSIGNED_ZERO = "maskring_unsigned_zero_point"


def for_integer_kernels(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` in the form that onnxruntime executes fastest.

    A model without Q/DQ nodes is returned as it is, others as a changed copy.
    """
    return restore_float_layers(fold_relu_into_quantize(model))


def restore_float_layers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace int8 weights by float ones in each layer whose output is not quantized.

    onnxruntime executes such a layer in floats anyway, and only constant weights get its blocked layout. Call
    :func:`fold_relu_into_quantize` first: a Relu in between hides the quantization. A model without Q/DQ
    nodes is returned as it is, others as a changed copy.
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
        and not any(weights[name].any() for name in node.input[2:])  # symmetric: zero point 0
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


def fold_relu_into_quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold each Relu into the symmetric int8 quantization behind it.

    Exports have zero point 0, because TensorRT takes no other. onnxruntime fuses layer, Relu and quantization
    only when the quantization itself clips negative values. uint8 with the same scale does: 0 to 127 mean the
    same, and values that int8 would clip fit up to twice the range. A model without Q/DQ nodes is returned as
    it is, others as a changed copy.
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
