"""Quantized encoders the way onnxruntime's integer kernels on CPUs want them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

UNSIGNED_ZERO = "maskring_unsigned_zero_point"


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
