"""The step graph of :class:`pixel_backend.PixelBackend` as an ONNX file, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import helper, parser
from pixel_backend import pixel_metadata

from maskring.plugins.windowed_affinity.onnx_function import function_body
from maskring.plugins.windowed_affinity.onnx_op import OPSET_VERSION
from maskring.runtime.model.metadata import METADATA_KEY, ModelMetadata

GRAPH = """
<ir_version: 10, opset_import: ["" : 18, "maskring" : {version}]>
step (uint8[1,H,W,3] frame, {type}[1,N,4,h,w] memory_keys, {type}[1,N,O,h,w] memory_values,
      int32[1,N] memory_dilation)
  => (uint8[1,H,W] labels, {type}[1,O,h,w] probabilities, {type}[1,O,h,w] value, {type}[1,4,h,w] key)
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}},
 int64[1] three = {{3}}, int64[1] axis = {{1}},
 int64[2] space = {{2, 3}}, int64[2] begin = {{0, 0}}, int64[2] end = {{1000000, 1000000}},
 int64[2] stride = {{4, 4}}, float[1] white = {{255}}, float[1] double = {{2}}, float[1] unit = {{1}},
 int64 first = {{0}}, int64 following = {{1}}, float[0] roi = {{}}, int64[4] column = {{1, -1, 1, 1}}>
{{
  pixels = Cast <to: int = 1> (frame)
  planes = Transpose <perm: ints = [0, 3, 1, 2]> (pixels)
  scaled = Div (planes, white)
  colour = Slice (scaled, begin, end, space, stride)
  squares = Mul (colour, colour)
  square = ReduceSum <keepdims: int = 1> (squares, axis)
  nothing = Sub (square, square)
  minus = Sub (nothing, unit)
  twice = Mul (colour, double)
  query32 = Concat <axis: int = 1> (twice, minus)
  key32 = Concat <axis: int = 1> (colour, square)
  query = Cast <to: int = {to}> (query32)
  key = Cast <to: int = {to}> (key32)
  probabilities = maskring.WindowedAffinity <radius: int = 3, scale: float = 200.0, top_k: int = 0>
    (query, memory_keys, memory_values, memory_dilation)
  smooth = Cast <to: int = 1> (probabilities)
  winner = ArgMax <axis: int = 1, keepdims: int = 1> (smooth)
  shape = Shape (memory_values)
  count = Gather <axis: int = 0> (shape, two)
  many = Squeeze (count)
  numbers = Range (first, many, following)
  channels = Reshape (numbers, column)
  is_winner = Equal (winner, channels)
  value = Cast <to: int = {to}> (is_winner)
  factors = Constant <value_floats: floats = [1.0, 1.0, 4.0, 4.0]> ()
  large = Resize <mode: string = "linear", coordinate_transformation_mode: string = "asymmetric">
    (smooth, roi, factors)
  size = Shape <start: int = 1, end: int = 3> (frame)
  cropped = Slice (large, begin, size, space)
  index = ArgMax <axis: int = 1, keepdims: int = 0> (cropped)
  index32 = Cast <to: int = 1> (index)
  labels = Cast <to: int = 2> (index32)
}}
"""

READ = "  probabilities = maskring.WindowedAffinity <radius: int = 3, scale: float = 200.0, top_k: int = 0>"
SMOOTHED_READ = """
  memory_keys_up = Unsqueeze (key, axis)
  read_up = Unsqueeze (read, axis)
  one_slot = Constant <value = int32[1,1] {{1}}> ()
  probabilities = maskring.WindowedAffinity <radius: int = {smooth}, scale: float = 10.0, top_k: int = 0>
    (query, memory_keys_up, read_up, one_slot)
  smooth = """


def pixel_model(metadata: ModelMetadata | None = None) -> onnx.ModelProto:
    """The model in memory, as ``export`` would write it."""
    metadata = metadata or pixel_metadata()
    half = metadata.dtype == "float16"
    text = GRAPH
    if metadata.smoothing_radius:
        text = text.replace(READ, READ.replace("probabilities", "read"))
        text = text.replace("\n  smooth = ", SMOOTHED_READ)
    settings = {"type": "float16" if half else "float", "to": 10 if half else 1}
    settings["smooth"] = metadata.smoothing_radius
    model = parser.parse_model(text.format(version=OPSET_VERSION, **settings))
    model.functions.append(function_body())
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model)
    return model


def write_pixel_model(path: Path, **metadata: Any) -> Path:
    """Write the model with the given changes to its metadata."""
    onnx.save(pixel_model(pixel_metadata(**metadata)), path)
    return path
