"""Windowed memory affinity in ONNX: the operator, its body in standard operators, its CPU binding.

A model carries the body as a model-local function, so that any ONNX runtime can execute it; a runtime that
owns a kernel (TensorRT with our plugin, onnxruntime with :func:`use_native_kernel`) uses that instead.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, parser

if TYPE_CHECKING:
    import onnxruntime

DOMAIN = "maskring"
OP_TYPE = "WindowedAffinity"
OPSET_VERSION = 1

EXTENSIONS_DOMAIN = "ai.onnx.contrib"

BODY_OPSET = 18
"""Version of the standard operators that the body is written in."""

HIDDEN = "-1e30"
"""Added to the logits of positions that take no part: finite, and far below every logit."""


def op_schema() -> onnx.defs.OpSchema:
    """Inputs, output, types and attributes of the operator; shapes as in ``reference.py``."""
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
            attribute("top_k", schema.AttrType.INT, "logits kept per pixel, 0 for all", required=False),
        ],
    )


def function_body(
    *, offsets: bool = False, top_k: bool = False, matrix_products: bool = True
) -> onnx.FunctionProto:
    """The operator in standard ONNX operators, to be added to ``ModelProto.functions``.

    One row of queries at a time (``Scan``): the pixels that its windows may meet are gathered, matrix
    products compare each query with them, what lies outside a window is hidden, and a softmax and another
    product read the values. Products are taken per slot and row of memory: where these are joined into one
    matrix, TensorRT-RTX needs more scratch memory (``tests/export/test_engine.py`` holds the limit).
    Scratch memory is that of one row of queries, whatever the height of the frame. The row's number is the
    loop's state, since TensorRT's parser refuses a ``Scan`` that has none; half queries become float32
    inside the loop, since TensorRT's compiler fails on a float32 copy of an input of the loop.

    Args:
        offsets: the body for nodes with a fifth input.
        top_k: the body for nodes whose ``top_k`` is above 0; the other keeps all logits.
        matrix_products: False multiplies and sums without them, see :func:`without_matrix_products`.
    """
    if offsets and not matrix_products:
        raise ValueError("the body with offsets has matrix products")
    inputs = "query, keys, values, dilation" + (", offsets" if offsets else "")
    text = f"""
        <domain: "{DOMAIN}", opset_import: ["" : {BODY_OPSET}]>
        {OP_TYPE} <radius, scale, top_k> ({inputs}) => (out) {{
          {_COMMON}
          {_AROUND_OFFSETS if offsets else _AROUND_PIXELS}
        }}"""
    text = text.replace("PRODUCTS;", _MATRIX_PRODUCTS if matrix_products else _SUMMED_PRODUCTS)
    text = text.replace("READ;", _MATRIX_READ if matrix_products else _SUMMED_READ)
    text = text.replace("SELECT;", _LARGEST if top_k else _ALL).replace("HIDDEN", HIDDEN)
    function: onnx.FunctionProto = parser.parse_function(text)
    return function


# In the comments: B batch, C channels, N slots, O labels, H and W the frame, P = 2 * radius + 1.

_COMMON = """
  zero = Constant <value_int: int = 0> ()
  one = Constant <value_int: int = 1> ()
  two = Constant <value_int: int = 2> ()
  three = Constant <value_int: int = 3> ()
  r = Constant <value_int: int = @radius> ()
  k = Constant <value_int: int = @top_k> ()
  factor = Constant <value_float: float = @scale> ()
  zero_f = Constant <value_float: float = 0.0> ()
  hidden = Constant <value_float: float = HIDDEN> ()
  axis_0 = Constant <value_ints: ints = [0]> ()
  axis_1 = Constant <value_ints: ints = [1]> ()
  axis_2 = Constant <value_ints: ints = [2]> ()
  axis_3 = Constant <value_ints: ints = [3]> ()
  axis_4 = Constant <value_ints: ints = [4]> ()
  axes_12 = Constant <value_ints: ints = [1, 2]> ()
  axes_23 = Constant <value_ints: ints = [2, 3]> ()

  shape = Shape (query)
  height = Gather <axis: int = 0> (shape, two)
  width = Gather <axis: int = 0> (shape, three)
  last_row = Sub (height, one)
  last_column = Sub (width, one)
  columns = Range (zero, width, one)
  minus_r = Neg (r)
  after_r = Add (r, one)
  walk = Range (minus_r, after_r, one)

  given = Cast <to: int = 7> (dilation)
  filled = Greater (given, zero)
  step = Max (given, one)
  steps = Unsqueeze (step, axis_2)
  way = Mul (steps, walk)
  queries = Transpose <perm: ints = [0, 2, 3, 1]> (query)
"""

# Candidates of a row of queries: all pixels of the P rows that its windows meet, in each slot.
_AROUND_PIXELS = """
  keys_by_row = Transpose <perm: ints = [0, 1, 3, 4, 2]> (keys)
  values_by_row = Transpose <perm: ints = [0, 1, 3, 4, 2]> (values)

  column = Unsqueeze (columns, axis_1)
  apart = Sub (columns, column)
  distance = Abs (apart)
  wide_step = Unsqueeze (step, axes_23)
  reach = Mul (wide_step, r)
  near = LessOrEqual (distance, reach)
  rest = Mod (distance, wide_step)
  on_step = Equal (rest, zero)
  in_band = And (near, on_step)
  band_slots = Where (in_band, zero_f, hidden)
  band_first = Transpose <perm: ints = [0, 2, 1, 3]> (band_slots)
  band = Unsqueeze (band_first, axis_3)

  full = Cast <to: int = 1> (filled)
  any_full = ReduceMax <keepdims: int = 1> (full, axis_1)
  reachable = Unsqueeze (any_full, axis_2)

  rows_read, out_rows = Scan <num_scan_inputs: int = 1, scan_input_axes: ints = [1],
    scan_output_axes: ints = [1],
    body: graph = read_row (int64 y, given_row) => (int64 next_y, float[b, w, o] out_row) {
      next_y = Add (y, one)
      query_row = Cast <to: int = 1> (given_row)
      wanted = Add (way, y)
      not_above = GreaterOrEqual (wanted, zero)
      not_below = Less (wanted, height)
      in_frame = And (not_above, not_below)
      filled_slot = Unsqueeze (filled, axis_2)
      seen = And (in_frame, filled_slot)
      bias_slots = Where (seen, zero_f, hidden)
      bias_flat = Unsqueeze (bias_slots, axis_1)
      bias = Unsqueeze (bias_flat, axis_4)
      clipped = Clip (wanted, zero, last_row)
      index = Unsqueeze (clipped, axis_3)

      key_rows = GatherND <batch_dims: int = 2> (keys_by_row, index)
      value_rows = GatherND <batch_dims: int = 2> (values_by_row, index)
      labels = Shape <start: int = 2, end: int = 3> (values)
      open = Constant <value_ints: ints = [0, -1]> ()
      values_shape = Concat <axis: int = 0> (open, labels)
      key_rows_32 = Cast <to: int = 1> (key_rows)
      value_rows_32 = Cast <to: int = 1> (value_rows)
      values_32 = Reshape (value_rows_32, values_shape)

      PRODUCTS;
      by_query = Transpose <perm: ints = [0, 3, 1, 2, 4]> (products)
      logits = Mul (by_query, factor)
      in_window = Add (logits, band)
      hidden_logits = Add (in_window, bias)
      joint_shape = Constant <value_ints: ints = [0, 0, -1]> ()
      joint = Reshape (hidden_logits, joint_shape)
      SELECT;
      weights = Softmax <axis: int = -1> (selected)
      READ;
      out_row = Mul (read, reachable)
    }> (zero, queries)
  out_32 = Transpose <perm: ints = [0, 3, 1, 2]> (out_rows)
  out = CastLike (out_32, values)
"""

# Candidates of a query: the P * P pixels of its own window, in each slot, one by one.
_AROUND_OFFSETS = """
  flat_frame = Constant <value_ints: ints = [0, 0, 0, -1]> ()
  keys_flat = Reshape (keys, flat_frame)
  values_flat = Reshape (values, flat_frame)
  keys_by_pixel = Transpose <perm: ints = [0, 1, 3, 2]> (keys_flat)
  values_by_pixel = Transpose <perm: ints = [0, 1, 3, 2]> (values_flat)
  way_up = Unsqueeze (way, axis_3)
  axes_234 = Constant <value_ints: ints = [2, 3, 4]> ()
  filled_slot = Unsqueeze (filled, axes_234)

  rows_read, out_rows = Scan <num_scan_inputs: int = 2, scan_input_axes: ints = [3, 1],
    scan_output_axes: ints = [1],
    body: graph = read_row (int64 y, int32[b, n, two, w] moved, given_row)
      => (int64 next_y, float[b, w, o] out_row) {
      next_y = Add (y, one)
      query_row = Cast <to: int = 1> (given_row)
      moved_64 = Cast <to: int = 7> (moved)
      moved_y = Gather <axis: int = 2> (moved_64, zero)
      moved_x = Gather <axis: int = 2> (moved_64, one)
      centre_y = Add (moved_y, y)
      centre_x = Add (moved_x, columns)
      centre_y_up = Unsqueeze (centre_y, axis_2)
      centre_x_up = Unsqueeze (centre_x, axis_2)
      wanted_y = Add (centre_y_up, way_up)
      wanted_x = Add (centre_x_up, way_up)
      y_low = GreaterOrEqual (wanted_y, zero)
      y_high = Less (wanted_y, height)
      x_low = GreaterOrEqual (wanted_x, zero)
      x_high = Less (wanted_x, width)
      in_y = And (y_low, y_high)
      in_x = And (x_low, x_high)
      in_y_up = Unsqueeze (in_y, axis_3)
      in_x_up = Unsqueeze (in_x, axis_2)
      in_frame = And (in_y_up, in_x_up)
      seen = And (in_frame, filled_slot)
      seen_f = Cast <to: int = 1> (seen)
      window_axes = Constant <value_ints: ints = [1, 2, 3]> ()
      reachable_row = ReduceMax <keepdims: int = 0> (seen_f, window_axes)
      reachable = Unsqueeze (reachable_row, axis_2)
      bias = Where (seen, zero_f, hidden)

      clipped_y = Clip (wanted_y, zero, last_row)
      clipped_x = Clip (wanted_x, zero, last_column)
      row_start = Mul (clipped_y, width)
      row_start_up = Unsqueeze (row_start, axis_3)
      clipped_x_up = Unsqueeze (clipped_x, axis_2)
      pixel = Add (row_start_up, clipped_x_up)
      window_shape = Shape (pixel)
      index_shape = Constant <value_ints: ints = [0, 0, -1, 1]> ()
      index = Reshape (pixel, index_shape)
      key_pixels = GatherND <batch_dims: int = 2> (keys_by_pixel, index)
      value_pixels = GatherND <batch_dims: int = 2> (values_by_pixel, index)
      channels = Shape <start: int = 2, end: int = 3> (query_row)
      labels = Shape <start: int = 2, end: int = 3> (values)
      keys_shape = Concat <axis: int = 0> (window_shape, channels)
      values_shape = Concat <axis: int = 0> (window_shape, labels)
      keys_seen = Reshape (key_pixels, keys_shape)
      values_seen = Reshape (value_pixels, values_shape)
      keys_32 = Cast <to: int = 1> (keys_seen)
      values_32 = Cast <to: int = 1> (values_seen)

      query_wide = Unsqueeze (query_row, window_axes)
      pairs = Mul (keys_32, query_wide)
      channel_axis = Constant <value_ints: ints = [5]> ()
      products = ReduceSum <keepdims: int = 0> (pairs, channel_axis)
      logits = Mul (products, factor)
      hidden_logits = Add (logits, bias)
      by_column = Transpose <perm: ints = [0, 4, 1, 2, 3]> (hidden_logits)
      joint_shape = Constant <value_ints: ints = [0, 0, -1]> ()
      joint = Reshape (by_column, joint_shape)
      SELECT;
      weights = Softmax <axis: int = -1> (selected)
      weights_up = Unsqueeze (weights, axis_2)
      values_by_column = Transpose <perm: ints = [0, 4, 1, 2, 3, 5]> (values_32)
      open = Constant <value_ints: ints = [0, 0, -1]> ()
      column_shape = Concat <axis: int = 0> (open, labels)
      values_joint = Reshape (values_by_column, column_shape)
      read_up = MatMul (weights_up, values_joint)
      read = Squeeze (read_up, axis_2)
      out_row = Mul (read, reachable)
    }> (zero, offsets, queries)
  out_32 = Transpose <perm: ints = [0, 3, 1, 2]> (out_rows)
  out = CastLike (out_32, values)
"""

_MATRIX_PRODUCTS = """
      keys_across = Transpose <perm: ints = [0, 1, 2, 4, 3]> (key_rows_32)
      query_wide = Unsqueeze (query_row, axes_12)
      products = MatMul (query_wide, keys_across)
"""

_SUMMED_PRODUCTS = """
      keys_across = Unsqueeze (key_rows_32, axis_3)
      axes_124 = Constant <value_ints: ints = [1, 2, 4]> ()
      query_wide = Unsqueeze (query_row, axes_124)
      pairs = Mul (query_wide, keys_across)
      axis_5 = Constant <value_ints: ints = [5]> ()
      products = ReduceSum <keepdims: int = 0> (pairs, axis_5)
"""

_MATRIX_READ = "read = MatMul (weights, values_32)"

_SUMMED_READ = """
      weights_up = Unsqueeze (weights, axis_2)
      values_across = Transpose <perm: ints = [0, 2, 1]> (values_32)
      values_up = Unsqueeze (values_across, axis_1)
      shares = Mul (weights_up, values_up)
      read = ReduceSum <keepdims: int = 0> (shares, axis_3)
"""

_ALL = "selected = Identity (joint)"

_LARGEST = """
      candidates = Shape <start: int = -1> (joint)
      k_1 = Unsqueeze (k, axis_0)
      kept = Min (k_1, candidates)
      largest, _places = TopK <axis: int = -1> (joint, kept)
      floor = ReduceMin <keepdims: int = 1> (largest, axis_2)
      below = Less (joint, floor)
      selected = Where (below, hidden, joint)
"""


def use_native_kernel(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnx.ModelProto:
    """Bind the memory reads of ``model`` to the native CPU kernel, for a session made with ``options``.

    The nodes move to onnxruntime-extensions' domain, where a Python operator hands their tensors to
    :func:`.cpu_op.windowed_affinity`; the function body is dropped. Python operators know no float16, so half
    tensors are cast on the way. They are also handed copies: a program that holds the memory itself does
    better to call the kernel between two sessions, as
    :class:`maskring.runtime.backends.onnxrt.backend.OnnxRuntimeBackend` does.

    Args:
        model: any model with :data:`OP_TYPE` nodes in its main graph; it is not changed.
        options: gets the operator library registered.
    """
    options.register_custom_ops_library(_register_operators())
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    types = _element_types(model)
    del bound.graph.node[:], bound.functions[:]
    for node in model.graph.node:
        bound.graph.node.extend(_bound_nodes(node, types) if is_memory_read(node) else [node])
    bound.functions.extend(f for f in model.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE))
    bound.opset_import.append(helper.make_opsetid(EXTENSIONS_DOMAIN, 1))
    return bound


def use_tensorrt_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bind the memory reads of ``model`` to the TensorRT plugin (``maskring.plugins.load()`` registers it).

    The nodes name the plugin's version and namespace, and the function body is dropped: TensorRT's parser
    prefers a body to a plugin (in TensorRT 10.3 always, today where a node names no namespace).

    Args:
        model: any model with :data:`OP_TYPE` nodes in its main graph; it is not changed.
    """
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    for node in filter(is_memory_read, bound.graph.node):
        kept = [a for a in node.attribute if a.name not in ("plugin_version", "plugin_namespace")]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(helper.make_attribute("plugin_version", str(OPSET_VERSION)))
        node.attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
    del bound.functions[:]
    bound.functions.extend(f for f in model.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE))
    return bound


def without_matrix_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the memory reads of ``model`` the body that multiplies and sums without matrix products.

    TensorRT-RTX has no float32 matrix products for GPUs of the Turing architecture. Sums and types are those
    of the other body. A read with offsets keeps the body it has.

    Args:
        model: any model with :data:`OP_TYPE` nodes in its main graph; it is not changed.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    reads = [node for node in model.graph.node if is_memory_read(node)]
    for index, function in enumerate(model.functions):
        if (function.domain, function.name) == (DOMAIN, OP_TYPE) and len(function.input) == 4:
            top_k = any(body_needed(node)["top_k"] for node in reads if node.overload == function.overload)
            changed.functions[index].CopyFrom(function_body(top_k=top_k, matrix_products=False))
            changed.functions[index].overload = function.overload
    return changed


def is_memory_read(node: onnx.NodeProto) -> bool:
    """Whether a node is one of the operator."""
    return (node.domain, node.op_type) == (DOMAIN, OP_TYPE)


def body_needed(node: onnx.NodeProto) -> dict[str, bool]:
    """Which body of :func:`function_body` computes what a node of the operator asks for."""
    top_k = any(attribute.name == "top_k" and attribute.i > 0 for attribute in node.attribute)
    return {"offsets": len(node.input) > 4, "top_k": top_k}


def _bound_nodes(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    """The nodes that take the place of a memory read."""
    inputs = [name for name in node.input if name]
    attributes = {"top_k": 0} | {a.name: helper.get_attribute_value(a) for a in node.attribute}
    result = node.output[0]

    def operator(names: list[str], out: str) -> onnx.NodeProto:
        kind = _operator_name(len(names) > 4)
        return helper.make_node(kind, names, [out], node.name, domain=EXTENSIONS_DOMAIN, **attributes)

    if types[inputs[2]] == onnx.TensorProto.FLOAT:
        return [operator(inputs, result)]
    single = [f"{result}_{name}_float32" for name in inputs[:3]]
    casts = [
        helper.make_node("Cast", [half], [wide], to=onnx.TensorProto.FLOAT)
        for half, wide in zip(inputs[:3], single, strict=True)
    ]
    back = helper.make_node("Cast", [f"{result}_float32"], [result], to=types[inputs[2]])
    return [*casts, operator([*single, *inputs[3:]], f"{result}_float32"), back]


def _operator_name(offsets: bool) -> str:
    return f"Maskring{OP_TYPE}{'Offsets' if offsets else ''}"


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of the main graph that shape inference knows."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    described = (*graph.input, *graph.value_info, *graph.output)
    types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in described}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@functools.cache
def _register_operators() -> str:
    """Make the Python operators known to onnxruntime-extensions, which keeps them for the whole process.

    Returns:
        the path of its library.
    """
    with _same_environment():  # importing it makes protobuf slow in every process that is started later
        from onnxruntime_extensions import PyCustomOpDef, get_library_path, onnx_op

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
def _same_environment() -> Iterator[None]:
    """Environment variables are afterwards what they were."""
    before = os.environ.copy()
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _run_native(*arrays: NDArray[Any], radius: int, scale: float, top_k: int) -> NDArray[Any]:
    from . import cpu_op as native

    return native.windowed_affinity(
        *map(np.ascontiguousarray, arrays), radius=radius, scale=scale, top_k=top_k
    )
