"""Models that consist of one memory read, and their inputs."""

from __future__ import annotations

from typing import Any

import onnx
from affinity_cases import Array, Inputs
from onnx import helper

from maskring.plugins.windowed_affinity import onnx_function, onnx_op


def named_inputs(data: Inputs) -> dict[str, Array]:
    """The arguments of a call by the names of the node's inputs."""
    given = {"query": data.query, "keys": data.keys, "values": data.values, "dilation": data.dilation}
    return given if data.offsets is None else {**given, "offsets": data.offsets}


def read_model(data: Inputs, *, functions: Any = (), **attributes: Any) -> onnx.ModelProto:
    """A model of the one node, for tensors of any size; without functions, only a kernel can run it."""
    given = named_inputs(data)
    kind = helper.np_dtype_to_tensor_dtype(data.values.dtype)
    node = helper.make_node(
        onnx_op.OP_TYPE,
        [*given],
        ["out"],
        domain=onnx_op.DOMAIN,
        **{"radius": data.radius, "scale": data.scale, "top_k": data.top_k, **attributes},
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in given.items()
    ]
    graph = helper.make_graph(
        [node], "affinity", inputs, [helper.make_tensor_value_info("out", kind, [None] * 4)]
    )
    versions = {"": onnx_function.BODY_OPSET, onnx_op.DOMAIN: onnx_op.OPSET_VERSION}
    opsets = [helper.make_opsetid(*entry) for entry in versions.items()]
    return helper.make_model(
        graph, functions=functions, opset_imports=opsets, ir_version=10 if functions else 8
    )
