"""Replaces the operator's function body in a model by the native CPU kernel or by the TensorRT plugin."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ...common.errors import UnavailableError
from . import cpu_op
from .onnx_op import DOMAIN, OP_TYPE, OPSET_VERSION, is_function_body, is_memory_read

if TYPE_CHECKING:
    import onnxruntime

EXTENSIONS_DOMAIN = "ai.onnx.contrib"
"""Domain of onnxruntime-extensions' Python operators."""

_PLUGIN_ATTRIBUTES = ("plugin_version", "plugin_namespace")


def use_native_kernel(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnx.ModelProto:
    """Let onnxruntime run the memory reads of ``model`` with the native CPU kernel.

    The nodes become Python operators of onnxruntime-extensions, which call
    :func:`.cpu_op.windowed_affinity`; the function body is dropped. These operators do not support float16,
    so such tensors are cast, and they get copies of their inputs. A program that owns the memory avoids both
    by calling the kernel between two sessions, as
    :class:`maskring.runtime.backends.onnxrt.backend.OnnxRuntimeBackend` does.

    Args:
        model: any model with :data:`~.onnx_op.OP_TYPE` nodes in its main graph; it is not changed.
        options: of the session that will run the result; the operator library is registered with them.

    Raises:
        UnavailableError: without onnxruntime-extensions.
    """
    options.register_custom_ops_library(_register_operators())
    bound = _without_bodies(model)
    types = _element_types(model)
    del bound.graph.node[:]
    for node in model.graph.node:
        bound.graph.node.extend(_bound_nodes(node, types) if is_memory_read(node) else [node])
    bound.opset_import.append(helper.make_opsetid(EXTENSIONS_DOMAIN, 1))
    return bound


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


def _bound_nodes(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    """The nodes that replace a memory read: the Python operator, between casts if the tensors are float16."""
    inputs = [name for name in node.input if name]
    attributes = {"top_k": 0} | {a.name: helper.get_attribute_value(a) for a in node.attribute}
    result = node.output[0]

    def operator(names: list[str], out: str) -> onnx.NodeProto:
        kind = _operator_name(len(names) > 4)
        return helper.make_node(kind, names, [out], node.name, domain=EXTENSIONS_DOMAIN, **attributes)

    if types[inputs[2]] == onnx.TensorProto.FLOAT:
        return [operator(inputs, result)]
    float32_names = [f"{result}_{name}_float32" for name in inputs[:3]]
    casts = [
        helper.make_node("Cast", [source], [target], to=onnx.TensorProto.FLOAT)
        for source, target in zip(inputs[:3], float32_names, strict=True)
    ]
    cast_back = helper.make_node("Cast", [f"{result}_float32"], [result], to=types[inputs[2]])
    return [*casts, operator([*float32_names, *inputs[3:]], f"{result}_float32"), cast_back]


def _operator_name(offsets: bool) -> str:
    return f"Maskring{OP_TYPE}{'Offsets' if offsets else ''}"


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the tensors in the main graph, as far as shape inference can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    described = (*graph.input, *graph.value_info, *graph.output)
    types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in described}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@functools.cache
def _register_operators() -> str:
    """Register the Python operators with onnxruntime-extensions, for the whole process.

    Returns:
        the path of its operator library.
    """
    try:
        # The import sets a variable that makes protobuf slow in every process started later.
        with _restored_environment():
            from onnxruntime_extensions import PyCustomOpDef, get_library_path, onnx_op
    except ImportError as error:
        raise UnavailableError(
            "the Python package onnxruntime-extensions is not installed", "run pip install 'maskring[train]'"
        ) from error

    for offsets in (False, True):
        onnx_op(
            op_type=_operator_name(offsets),
            domain=EXTENSIONS_DOMAIN,
            inputs=[PyCustomOpDef.dt_float] * 3 + [PyCustomOpDef.dt_int32] * (2 if offsets else 1),
            outputs=[PyCustomOpDef.dt_float],
            attrs={
                "radius": PyCustomOpDef.dt_int64,
                "scale": PyCustomOpDef.dt_float,
                "top_k": PyCustomOpDef.dt_int64,
            },
        )(_run_native)
    path: str = get_library_path()
    return path


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore all environment variables at the end."""
    before = os.environ.copy()
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _run_native(*arrays: NDArray[Any], radius: int, scale: float, top_k: int) -> NDArray[Any]:
    return cpu_op.windowed_affinity(
        *map(np.ascontiguousarray, arrays), radius=radius, scale=scale, top_k=top_k
    )
