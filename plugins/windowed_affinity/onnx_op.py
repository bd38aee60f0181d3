"""The ONNX operator ``maskring::WindowedAffinity``: its names, its schema and its nodes.

A model also carries the operator as a function of standard operators (:mod:`.onnx_function`), so that any
ONNX runtime can run it. In onnxruntime, the operator library (:mod:`maskring.plugins.operator_library`) takes its
place, in TensorRT the plugin (:mod:`.onnx_bindings`).
"""

from __future__ import annotations

import onnx

DOMAIN = "maskring"
OP_TYPE = "WindowedAffinity"
OPSET_VERSION = 1


def op_schema() -> onnx.defs.OpSchema:
    """The operator's inputs, output, types and attributes; ``reference.py`` documents the shapes."""
    schema = onnx.defs.OpSchema
    parameter, attribute = schema.FormalParameter, schema.Attribute
    optional = schema.FormalParameterOption.Optional
    return schema(
        OP_TYPE,
        DOMAIN,
        OPSET_VERSION,
        inputs=[
            parameter("query", "T"),
            parameter("keys", "T"),
            parameter("values", "T"),
            parameter("dilation", "tensor(int32)"),
            parameter("offsets", "tensor(int32)", param_option=optional),
        ],
        outputs=[parameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "features and label maps")],
        attributes=[
            attribute("radius", schema.AttrType.INT, "window positions per side"),
            attribute("scale", schema.AttrType.FLOAT, "factor on inner products"),
            attribute(
                "top_k", schema.AttrType.INT, "number of largest logits to use, 0 for all", required=False
            ),
        ],
    )


def is_memory_read(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is a node of the operator."""
    return (node.domain, node.op_type) == (DOMAIN, OP_TYPE)


def is_function_body(function: onnx.FunctionProto) -> bool:
    """Whether ``function`` is a body of the operator."""
    return (function.domain, function.name) == (DOMAIN, OP_TYPE)
