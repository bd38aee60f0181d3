"""The operator as an ONNX function of standard operators, which any ONNX runtime can run."""

from __future__ import annotations

import onnx
from onnx import parser

from .onnx_op import DOMAIN, OP_TYPE, is_function_body, is_memory_read

BODY_OPSET = 18
"""Opset of the standard operators in the body."""

MASK_VALUE = "-1e30"
"""Added to the logits of masked positions: finite, and far below every real logit."""


def function_body(
    *, offsets: bool = False, top_k: bool = False, matrix_products: bool = True
) -> onnx.FunctionProto:
    """Write the operator in standard ONNX operators, for ``ModelProto.functions``.

    A ``Scan`` takes one row of queries at a time. It gathers the key rows inside the row's windows,
    multiplies queries and keys, masks what lies outside each window, takes the softmax and multiplies with
    the values. So scratch memory depends on the width of the frame, not on its height.

    Constants are tensors, because ONNX GraphSurgeon, and so onnxslim and Polygraphy, reads the attribute
    ``value_float`` as double. Only references to the node's attributes have no tensor form.

    Three choices work around limits of TensorRT:

    * Products are taken per slot and key row. Joining these into one matrix makes TensorRT-RTX use more
      scratch memory (``tests/export/test_engine.py`` checks the limit).
    * The row number is the loop's state, because TensorRT's parser rejects a ``Scan`` without a state.
    * float16 queries are cast to float32 inside the loop, because TensorRT's compiler fails if an input of
      the loop is the result of such a cast.

    Args:
        offsets: the body for nodes with a fifth input.
        top_k: the body for nodes with ``top_k`` above 0; otherwise all logits are used.
        matrix_products: False avoids ``MatMul``, see :func:`without_matrix_products`.

    Raises:
        ValueError: for ``offsets`` without ``matrix_products``, which has no body.
    """
    if offsets and not matrix_products:
        raise ValueError("there is no body with offsets=True and matrix_products=False")
    inputs = "query, keys, values, dilation" + (", offsets" if offsets else "")
    text = f"""
        <domain: "{DOMAIN}", opset_import: ["" : {BODY_OPSET}]>
        {OP_TYPE} <radius, scale, top_k> ({inputs}) => (out) {{
          {_COMMON}
          {_WITH_OFFSETS if offsets else _WITHOUT_OFFSETS}
        }}"""
    text = text.replace("PRODUCTS;", _MATRIX_PRODUCTS if matrix_products else _SUMMED_PRODUCTS)
    text = text.replace("READ;", _MATRIX_READ if matrix_products else _SUMMED_READ)
    text = text.replace("SELECT;", _TOP_K_LOGITS if top_k else _ALL_LOGITS).replace("MASK_VALUE", MASK_VALUE)
    function: onnx.FunctionProto = parser.parse_function(text)
    return function


def body_options(node: onnx.NodeProto) -> dict[str, bool]:
    """The arguments of :func:`function_body` that give the body for ``node``."""
    top_k = any(attribute.name == "top_k" and attribute.i > 0 for attribute in node.attribute)
    return {"offsets": len(node.input) > 4, "top_k": top_k}


def without_matrix_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the function bodies of ``model`` by bodies without ``MatMul``.

    TensorRT-RTX has no float32 matrix products for GPUs of the Turing architecture. The new bodies multiply
    and sum instead, in the same types. A body with offsets is left as it is.

    Args:
        model: any model with :data:`~.onnx_op.OP_TYPE` nodes in its main graph; it is not changed.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    reads = [node for node in model.graph.node if is_memory_read(node)]
    for index, function in enumerate(model.functions):
        if is_function_body(function) and len(function.input) == 4:
            top_k = any(body_options(node)["top_k"] for node in reads if node.overload == function.overload)
            changed.functions[index].CopyFrom(function_body(top_k=top_k, matrix_products=False))
            changed.functions[index].overload = function.overload
    return changed


# Sizes in the comments: B batch, C channels, N slots, O labels, H x W frame, P = 2 * radius + 1.

_COMMON = """
  zero = Constant <value: tensor = int64 {0}> ()
  one = Constant <value: tensor = int64 {1}> ()
  two = Constant <value: tensor = int64 {2}> ()
  three = Constant <value: tensor = int64 {3}> ()
  radius = Constant <value_int: int = @radius> ()
  top_k = Constant <value_int: int = @top_k> ()
  factor = Constant <value_float: float = @scale> ()
  zero_f = Constant <value: tensor = float {0.0}> ()
  mask_value = Constant <value: tensor = float {MASK_VALUE}> ()
  axis_0 = Constant <value: tensor = int64[1] {0}> ()
  axis_1 = Constant <value: tensor = int64[1] {1}> ()
  axis_2 = Constant <value: tensor = int64[1] {2}> ()
  axis_3 = Constant <value: tensor = int64[1] {3}> ()
  axis_4 = Constant <value: tensor = int64[1] {4}> ()
  axes_12 = Constant <value: tensor = int64[2] {1, 2}> ()
  axes_23 = Constant <value: tensor = int64[2] {2, 3}> ()

  shape = Shape (query)
  height = Gather <axis: int = 0> (shape, two)
  width = Gather <axis: int = 0> (shape, three)
  last_row = Sub (height, one)
  last_column = Sub (width, one)
  columns = Range (zero, width, one)
  minus_radius = Neg (radius)
  radius_end = Add (radius, one)
  window_steps = Range (minus_radius, radius_end, one)

  dilation_64 = Cast <to: int = 7> (dilation)
  in_use = Greater (dilation_64, zero)
  step = Max (dilation_64, one)
  steps = Unsqueeze (step, axis_2)
  displacement = Mul (steps, window_steps)
  queries = Transpose <perm: ints = [0, 2, 3, 1]> (query)
"""

# Without offsets, the queries of a row share candidates: in each slot, the pixels of P rows.
_WITHOUT_OFFSETS = """
  keys_by_row = Transpose <perm: ints = [0, 1, 3, 4, 2]> (keys)
  values_by_row = Transpose <perm: ints = [0, 1, 3, 4, 2]> (values)

  column = Unsqueeze (columns, axis_1)
  column_difference = Sub (columns, column)
  distance = Abs (column_difference)
  wide_step = Unsqueeze (step, axes_23)
  reach = Mul (wide_step, radius)
  within_reach = LessOrEqual (distance, reach)
  remainder = Mod (distance, wide_step)
  on_step = Equal (remainder, zero)
  in_columns = And (within_reach, on_step)
  column_bias = Where (in_columns, zero_f, mask_value)
  column_bias_first = Transpose <perm: ints = [0, 2, 1, 3]> (column_bias)
  column_bias_wide = Unsqueeze (column_bias_first, axis_3)

  in_use_f = Cast <to: int = 1> (in_use)
  any_in_use = ReduceMax <keepdims: int = 1> (in_use_f, axis_1)
  reachable = Unsqueeze (any_in_use, axis_2)

  last_row_number, out_rows = Scan <num_scan_inputs: int = 1, scan_input_axes: ints = [1],
    scan_output_axes: ints = [1],
    body: graph = read_row (int64 y, scanned_row) => (int64 next_y, float[b, w, o] out_row) {
      next_y = Add (y, one)
      query_row = Cast <to: int = 1> (scanned_row)
      key_row = Add (displacement, y)
      not_above = GreaterOrEqual (key_row, zero)
      not_below = Less (key_row, height)
      in_frame = And (not_above, not_below)
      slot_in_use = Unsqueeze (in_use, axis_2)
      valid = And (in_frame, slot_in_use)
      slot_bias = Where (valid, zero_f, mask_value)
      bias_by_query = Unsqueeze (slot_bias, axis_1)
      bias = Unsqueeze (bias_by_query, axis_4)
      clamped = Clip (key_row, zero, last_row)
      index = Unsqueeze (clamped, axis_3)

      key_rows = GatherND <batch_dims: int = 2> (keys_by_row, index)
      value_rows = GatherND <batch_dims: int = 2> (values_by_row, index)
      labels = Shape <start: int = 2, end: int = 3> (values)
      inferred_size = Constant <value: tensor = int64[2] {0, -1}> ()
      values_shape = Concat <axis: int = 0> (inferred_size, labels)
      key_rows_32 = Cast <to: int = 1> (key_rows)
      value_rows_32 = Cast <to: int = 1> (value_rows)
      values_32 = Reshape (value_rows_32, values_shape)

      PRODUCTS;
      by_query = Transpose <perm: ints = [0, 3, 1, 2, 4]> (products)
      logits = Mul (by_query, factor)
      in_window_logits = Add (logits, column_bias_wide)
      masked_logits = Add (in_window_logits, bias)
      candidates_shape = Constant <value: tensor = int64[3] {0, 0, -1}> ()
      candidate_logits = Reshape (masked_logits, candidates_shape)
      SELECT;
      weights = Softmax <axis: int = -1> (selected)
      READ;
      out_row = Mul (read, reachable)
    }> (zero, queries)
  out_32 = Transpose <perm: ints = [0, 3, 1, 2]> (out_rows)
  out = CastLike (out_32, values)
"""

# With offsets, each query has candidates of its own: in each slot, the P * P pixels of its window.
_WITH_OFFSETS = """
  flat_frame = Constant <value: tensor = int64[4] {0, 0, 0, -1}> ()
  keys_flat = Reshape (keys, flat_frame)
  values_flat = Reshape (values, flat_frame)
  keys_by_pixel = Transpose <perm: ints = [0, 1, 3, 2]> (keys_flat)
  values_by_pixel = Transpose <perm: ints = [0, 1, 3, 2]> (values_flat)
  displacement_up = Unsqueeze (displacement, axis_3)
  axes_234 = Constant <value: tensor = int64[3] {2, 3, 4}> ()
  slot_in_use = Unsqueeze (in_use, axes_234)

  last_row_number, out_rows = Scan <num_scan_inputs: int = 2, scan_input_axes: ints = [3, 1],
    scan_output_axes: ints = [1],
    body: graph = read_row (int64 y, int32[b, n, two, w] row_offsets, scanned_row)
      => (int64 next_y, float[b, w, o] out_row) {
      next_y = Add (y, one)
      query_row = Cast <to: int = 1> (scanned_row)
      row_offsets_64 = Cast <to: int = 7> (row_offsets)
      offset_y = Gather <axis: int = 2> (row_offsets_64, zero)
      offset_x = Gather <axis: int = 2> (row_offsets_64, one)
      centre_y = Add (offset_y, y)
      centre_x = Add (offset_x, columns)
      centre_y_up = Unsqueeze (centre_y, axis_2)
      centre_x_up = Unsqueeze (centre_x, axis_2)
      key_y = Add (centre_y_up, displacement_up)
      key_x = Add (centre_x_up, displacement_up)
      y_low = GreaterOrEqual (key_y, zero)
      y_high = Less (key_y, height)
      x_low = GreaterOrEqual (key_x, zero)
      x_high = Less (key_x, width)
      in_y = And (y_low, y_high)
      in_x = And (x_low, x_high)
      in_y_up = Unsqueeze (in_y, axis_3)
      in_x_up = Unsqueeze (in_x, axis_2)
      in_frame = And (in_y_up, in_x_up)
      valid = And (in_frame, slot_in_use)
      valid_f = Cast <to: int = 1> (valid)
      window_axes = Constant <value: tensor = int64[3] {1, 2, 3}> ()
      reachable_row = ReduceMax <keepdims: int = 0> (valid_f, window_axes)
      reachable = Unsqueeze (reachable_row, axis_2)
      bias = Where (valid, zero_f, mask_value)

      clamped_y = Clip (key_y, zero, last_row)
      clamped_x = Clip (key_x, zero, last_column)
      row_start = Mul (clamped_y, width)
      row_start_up = Unsqueeze (row_start, axis_3)
      clamped_x_up = Unsqueeze (clamped_x, axis_2)
      pixel = Add (row_start_up, clamped_x_up)
      window_shape = Shape (pixel)
      index_shape = Constant <value: tensor = int64[4] {0, 0, -1, 1}> ()
      index = Reshape (pixel, index_shape)
      key_pixels = GatherND <batch_dims: int = 2> (keys_by_pixel, index)
      value_pixels = GatherND <batch_dims: int = 2> (values_by_pixel, index)
      channels = Shape <start: int = 2, end: int = 3> (query_row)
      labels = Shape <start: int = 2, end: int = 3> (values)
      keys_shape = Concat <axis: int = 0> (window_shape, channels)
      values_shape = Concat <axis: int = 0> (window_shape, labels)
      window_keys = Reshape (key_pixels, keys_shape)
      window_values = Reshape (value_pixels, values_shape)
      keys_32 = Cast <to: int = 1> (window_keys)
      values_32 = Cast <to: int = 1> (window_values)

      query_wide = Unsqueeze (query_row, window_axes)
      channel_products = Mul (keys_32, query_wide)
      channel_axis = Constant <value: tensor = int64[1] {5}> ()
      products = ReduceSum <keepdims: int = 0> (channel_products, channel_axis)
      logits = Mul (products, factor)
      masked_logits = Add (logits, bias)
      by_column = Transpose <perm: ints = [0, 4, 1, 2, 3]> (masked_logits)
      candidates_shape = Constant <value: tensor = int64[3] {0, 0, -1}> ()
      candidate_logits = Reshape (by_column, candidates_shape)
      SELECT;
      weights = Softmax <axis: int = -1> (selected)
      weights_up = Unsqueeze (weights, axis_2)
      values_by_column = Transpose <perm: ints = [0, 4, 1, 2, 3, 5]> (values_32)
      inferred_size = Constant <value: tensor = int64[3] {0, 0, -1}> ()
      column_shape = Concat <axis: int = 0> (inferred_size, labels)
      candidate_values = Reshape (values_by_column, column_shape)
      read_up = MatMul (weights_up, candidate_values)
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
      axes_124 = Constant <value: tensor = int64[3] {1, 2, 4}> ()
      query_wide = Unsqueeze (query_row, axes_124)
      channel_products = Mul (query_wide, keys_across)
      axis_5 = Constant <value: tensor = int64[1] {5}> ()
      products = ReduceSum <keepdims: int = 0> (channel_products, axis_5)
"""

_MATRIX_READ = "read = MatMul (weights, values_32)"

_SUMMED_READ = """
      weights_up = Unsqueeze (weights, axis_2)
      values_across = Transpose <perm: ints = [0, 2, 1]> (values_32)
      values_up = Unsqueeze (values_across, axis_1)
      weighted_values = Mul (weights_up, values_up)
      read = ReduceSum <keepdims: int = 0> (weighted_values, axis_3)
"""

_ALL_LOGITS = "selected = Identity (candidate_logits)"

_TOP_K_LOGITS = """
      candidates = Shape <start: int = -1> (candidate_logits)
      top_k_1d = Unsqueeze (top_k, axis_0)
      k_limited = Min (top_k_1d, candidates)
      top_logits, _places = TopK <axis: int = -1> (candidate_logits, k_limited)
      threshold = ReduceMin <keepdims: int = 1> (top_logits, axis_2)
      below_threshold = Less (candidate_logits, threshold)
      selected = Where (below_threshold, mask_value, candidate_logits)
"""
