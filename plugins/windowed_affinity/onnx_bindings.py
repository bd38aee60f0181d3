"""Replaces the operator's function body in a model by the TensorRT plugin."""

from __future__ import annotations

import onnx
from onnx import helper

from .onnx_op import DOMAIN, OPSET_VERSION, is_function_body, is_memory_read

_PLUGIN_ATTRIBUTES = ("plugin_version", "plugin_namespace")


def use_tensorrt_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let TensorRT run the memory reads of ``model`` with maskring's plugin (:func:`maskring.plugins.load`).

    The nodes get the plugin's version and namespace, and the function body is dropped: TensorRT's parser
    prefers a function body to a plugin (10.3 always, newer versions if the node names no namespace).

    Args:
        model: any model with :data:`~.onnx_op.OP_TYPE` nodes in its main graph; it is not changed.
    """
    bound = _without_bodies(model)
    for node in filter(is_memory_read, bound.graph.node):
        others = [a for a in node.attribute if a.name not in _PLUGIN_ATTRIBUTES]
        del node.attribute[:]
        node.attribute.extend(others)
        for name, value in zip(_PLUGIN_ATTRIBUTES, (str(OPSET_VERSION), DOMAIN), strict=True):
            node.attribute.append(helper.make_attribute(name, value))
    return bound


def _without_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without the operator's function bodies."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]
    copy.functions.extend(function for function in model.functions if not is_function_body(function))
    return copy
