"""A Triton model repository: the step graph with its memory as implicit state of a sequence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from ..plugins.errors import ModelError
from ..plugins.files import atomic_path, make_directory
from ..runtime.backends.step_graph_parts import load_step_graph
from ..runtime.model import METADATA_KEY, ModelMetadata
from .onnx_from_checkpoint import export_onnx

NAME = "maskring"
AGES = (1, 3, 5)
"""Ages of the frames that are read beside the first one; slot i of the memory holds the frame i ago."""

SLOTS = 1 + max(AGES)
IDLE_SECONDS = 30
"""After which Triton forgets a sequence that sends nothing and never said END."""


def write_triton_repository(
    checkpoint: Path, folder: Path, *, height: int, width: int, labels: int, **settings: Any
) -> Path:
    """Write a model repository that serves a tracker to any number of streams.

    Each stream is a sequence: its first request carries START and the mask, its last END. Sizes are fixed,
    for Triton allocates the state of a sequence before it sees a frame.

    Args:
        checkpoint: a maskring checkpoint.
        folder: the repository; files of the model in it are replaced.
        height, width: frame size in pixels.
        labels: O, background included.
        settings: radius, scale, top_k and dtype of :func:`.export_onnx`.

    Returns:
        The folder of the model in the repository.

    Raises:
        ModelError, OutputError: as :func:`.export_onnx`.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-triton-") as scratch:
        plain = Path(scratch) / "step.onnx"
        export_onnx(checkpoint, plain, height=height, width=width, labels=labels, slots=SLOTS, **settings)
        step, metadata = load_step_graph(plain)
    model = make_directory(folder / NAME)
    make_directory(model / "1")
    with atomic_path(model / "1" / "model.onnx") as partial:
        partial.write_bytes(served_model(step, metadata).SerializeToString(deterministic=True))
    with atomic_path(model / "config.pbtxt") as partial:
        partial.write_text(model_config(metadata), encoding="utf-8")
    with atomic_path(folder / "client.py") as partial:
        partial.write_text(CLIENT, encoding="utf-8")
    return model


def served_model(step: onnx.ModelProto, metadata: ModelMetadata) -> onnx.ModelProto:
    """``step`` between the state of a sequence and its next state.

    Inputs beside the frame: ``mask`` uint8 [1, H, W], channels of the first frame, unread later; ``start``
    int32 [1]; the state ``keys``, ``values`` and ``filled`` int32 [1, N]. Outputs: ``labels`` and the next
    state, with ``_next`` behind their names. Slot 0 holds the first frame, slot i the one i frames ago.
    """
    if metadata.height is None or metadata.width is None or metadata.labels is None:
        raise ModelError(
            "a model for Triton needs fixed sizes", "give --height, --width and --objects to maskring export"
        )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(metadata.dtype))
    renamed = compose.add_prefix(step, "step/", rename_functions=False)
    inner = renamed.graph
    graph = helper.make_graph(
        [*_before(), *inner.node, *_after(kind)],
        "maskring_served_step",
        [
            _tensor("frame", "UINT8", [1, metadata.height, metadata.width, 3]),
            _tensor("mask", "UINT8", [1, metadata.height, metadata.width]),
            _tensor("start", "INT32", [1]),
            *(_tensor(name, kind, dims) for name, kind, dims in _state(metadata)),
        ],
        [
            _tensor("labels", "UINT8", [1, metadata.height, metadata.width]),
            *(_tensor(f"{name}_next", kind, dims) for name, kind, dims in _state(metadata)),
        ],
        [*inner.initializer, *_constants(metadata)],
    )
    model = helper.make_model(
        graph, opset_imports=step.opset_import, functions=step.functions, ir_version=step.ir_version
    )
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _before() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Identity", ["frame"], ["step/frame"]),
        helper.make_node("Identity", ["keys"], ["step/memory_keys"]),
        helper.make_node("Identity", ["values"], ["step/memory_values"]),
        helper.make_node("Mul", ["filled", "ages_read"], ["step/memory_dilation"]),
        helper.make_node("Cast", ["start"], ["starts"], to=onnx.TensorProto.BOOL),
    ]


def _after(kind: int) -> list[onnx.NodeProto]:
    """Labels or the mask, and the next state: the first frame stays, the others move on by one slot."""
    nodes = [
        helper.make_node("Where", ["starts", "mask", "step/labels"], ["labels"]),
        helper.make_node("Slice", ["mask", "corner", "far", "rows_columns", "stride"], ["sampled"]),
        helper.make_node("Unsqueeze", ["sampled", "axis_one"], ["sampled_channel"]),
        helper.make_node("Cast", ["sampled_channel"], ["sampled_index"], to=onnx.TensorProto.INT64),
        helper.make_node("Equal", ["sampled_index", "channels"], ["is_channel"]),
        helper.make_node("Cast", ["is_channel"], ["given_value"], to=kind),
        helper.make_node("Where", ["starts", "given_value", "step/value"], ["new_value"]),
        helper.make_node("Unsqueeze", ["step/key", "axis_one"], ["keys_new"]),
        helper.make_node("Unsqueeze", ["new_value", "axis_one"], ["values_new"]),
        helper.make_node("Identity", ["one_filled"], ["filled_new"]),
    ]
    for name in ("keys", "values", "filled"):
        nodes += [
            helper.make_node("Slice", [name, "zero", "one", "axis_one"], [f"{name}_first"]),
            helper.make_node("Slice", [name, "one", "last", "axis_one"], [f"{name}_recent"]),
            helper.make_node("Slice", [name, "one", "end", "axis_one"], [f"{name}_rest"]),
            helper.make_node("Sub", [f"{name}_rest", f"{name}_rest"], [f"{name}_empty"]),
            helper.make_node(
                "Concat", [f"{name}_first", f"{name}_new", f"{name}_recent"], [f"{name}_moved"], axis=1
            ),
            helper.make_node("Concat", [f"{name}_new", f"{name}_empty"], [f"{name}_begun"], axis=1),
            helper.make_node("Where", ["starts", f"{name}_begun", f"{name}_moved"], [f"{name}_next"]),
        ]
    return nodes


def _constants(metadata: ModelMetadata) -> list[onnx.TensorProto]:
    labels = metadata.labels
    assert labels is not None
    far = np.iinfo(np.int64).max
    arrays = {
        "ages_read": np.array([[slot == 0 or slot in AGES for slot in range(SLOTS)]], np.int32),
        "one_filled": np.ones((1, 1), np.int32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([-1]),
        "end": np.array([far]),
        "axis_one": np.array([1]),
        "corner": np.array([0, 0]),
        "far": np.array([far, far]),
        "rows_columns": np.array([1, 2]),
        "stride": np.array([metadata.stride] * 2),
        "channels": np.arange(labels).reshape(1, labels, 1, 1),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _state(metadata: ModelMetadata) -> list[tuple[str, str, list[int]]]:
    """Name, Triton's type and dimensions of each tensor that a sequence remembers."""
    assert metadata.height is not None and metadata.width is not None and metadata.labels is not None
    grid = list(metadata.feature_size(metadata.height, metadata.width))
    kind = {"float32": "FP32", "float16": "FP16"}[metadata.dtype]
    return [
        ("keys", kind, [1, SLOTS, metadata.channels, *grid]),
        ("values", kind, [1, SLOTS, metadata.labels, *grid]),
        ("filled", "INT32", [1, SLOTS]),
    ]


ONNX_TYPES = {
    "UINT8": onnx.TensorProto.UINT8,
    "INT32": onnx.TensorProto.INT32,
    "FP32": onnx.TensorProto.FLOAT,
    "FP16": onnx.TensorProto.FLOAT16,
}


def _tensor(name: str, kind: str, dims: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[kind], dims)


def model_config(metadata: ModelMetadata) -> str:
    """``config.pbtxt`` of the served model."""
    size = f"1, {metadata.height}, {metadata.width}"
    states = ",\n".join(_state_config(*described) for described in _state(metadata))
    return f"""# The first request of a sequence carries START and the mask, the last one END.
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 0
input [
  {{ name: "frame" data_type: TYPE_UINT8 dims: [ {size}, 3 ] }},
  {{ name: "mask" data_type: TYPE_UINT8 dims: [ {size} ] }}
]
output [
  {{ name: "labels" data_type: TYPE_UINT8 dims: [ {size} ] }}
]
sequence_batching {{
  direct {{ }}
  max_sequence_idle_microseconds: {IDLE_SECONDS * 10**6}
  control_input [
    {{
      name: "start"
      control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ]
    }}
  ]
  state [
{states}
  ]
}}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
"""


def _state_config(name: str, kind: str, dims: list[int]) -> str:
    sizes = ", ".join(map(str, dims))
    return f"""    {{
      input_name: "{name}"
      output_name: "{name}_next"
      data_type: TYPE_{kind}
      dims: [ {sizes} ]
      initial_state: {{
        name: "{name} of a new sequence"
        data_type: TYPE_{kind}
        dims: [ {sizes} ]
        zero_data: true
      }}
    }}"""


CLIENT = '''"""Track a video on a Triton server: python client.py VIDEO MASK.png [localhost:8001]

Needs numpy, opencv-python and tritonclient[grpc]. The mask's pixels are 0 for background, then 1, 2, ... for
the objects; frames and mask must have the size that the model was exported for.
"""

import sys

import cv2
import numpy as np
import tritonclient.grpc as triton


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    """An input of the request."""
    declared = triton.InferInput(name, list(array.shape), "UINT8")
    declared.set_data_from_numpy(np.ascontiguousarray(array))
    return declared


def main(video: str, mask_file: str, address: str = "localhost:8001") -> None:
    client = triton.InferenceServerClient(address)
    mask = cv2.imread(mask_file, cv2.IMREAD_GRAYSCALE)
    capture = cv2.VideoCapture(video)
    found, frame = capture.read()
    index = 0
    while found:
        following, next_frame = capture.read()
        inputs = [
            tensor("frame", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None]),
            tensor("mask", (mask if index == 0 else np.zeros_like(mask))[None]),
        ]
        answer = client.infer(
            "maskring", inputs, sequence_id=1, sequence_start=index == 0, sequence_end=not following
        )
        labels = answer.as_numpy("labels")[0]
        areas = np.bincount(labels.ravel())
        seen = [f"object {label}: {area} pixels" for label, area in enumerate(areas) if label and area]
        print(index, *seen)
        found, frame, index = following, next_frame, index + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
'''
