"""A Triton model repository: the step graph with its memory as implicit state of a sequence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from ...common.errors import ModelError
from ...common.files import atomic_path, make_directory
from ...runtime.model.metadata import (
    DEFAULT_LONG_TERM,
    DEFAULT_SHORT_TERM,
    METADATA_KEY,
    ModelMetadata,
)
from ...runtime.model.step_graph import load_step_graph
from ...runtime.tracking.memory import MemoryPolicy
from ..onnx_export import export_onnx

NAME = "maskring"
SLOTS_READ = len(DEFAULT_LONG_TERM) + len(DEFAULT_SHORT_TERM)
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
        settings: radius, scale, top_k, smooth and dtype of :func:`.export_onnx`.

    Returns:
        The folder of the model in the repository.

    Raises:
        ModelError, OutputError: as :func:`.export_onnx`.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-triton-") as scratch:
        plain = Path(scratch) / "step.onnx"
        export_onnx(
            checkpoint, plain, height=height, width=width, labels=labels, slots=SLOTS_READ, **settings
        )
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
    int32 [1]; the state ``keys``, ``values`` and ``clock`` int32 [1], frames since the first one. Outputs:
    ``labels`` and the next state, with ``_next`` behind their names. The first slots of the state hold the
    long-term frames, the others the latest frames, newest first. What is read, and with which windows, is the
    tracker's :class:`maskring.runtime.tracking.memory.MemoryPolicy`: see :func:`windows_read`.
    """
    if metadata.height is None or metadata.width is None or metadata.labels is None:
        raise ModelError(
            "a model for Triton needs fixed sizes", "give --height, --width and --objects to maskring export"
        )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(metadata.dtype))
    inner, winners = _inner_step(step)
    graph = helper.make_graph(
        [*_before(), *inner.node, *_after(metadata, kind, winners)],
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


def windows_read(metadata: ModelMetadata) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Window step [T, N] of each slot that is read at frame 0, 1, ..., T - 1 and from then on; 0 = not read.

    The slots are the long-term frames of the model's policy, then its ages. A frame that is both is read in
    the slot of the long-term one.
    """
    assert metadata.height is not None and metadata.width is not None
    policy = _policy(metadata)
    shorter = min(metadata.feature_size(metadata.height, metadata.width)) / max(1, metadata.radius)
    slots = [*policy.long_term, *(-age for age in policy.short_term)]
    # Beyond, every long-term frame is older than the recent ones and its window as large as it gets.
    settled = max(policy.long_term, default=0) + max(
        policy.oldest_age, policy.dilate_after * policy.max_dilation
    )
    table = np.zeros((settled + 2, len(slots)), np.int32)
    for clock, row in enumerate(table):
        for frame in policy.frames_read(clock):
            slot = frame if frame in policy.long_term else frame - clock
            row[slots.index(slot)] = policy.dilation(clock - frame, shorter)
    return table


def _policy(metadata: ModelMetadata) -> MemoryPolicy:
    return MemoryPolicy(metadata.long_term, metadata.short_term)


def _inner_step(step: onnx.ModelProto) -> tuple[onnx.GraphProto, str]:
    """The graph of ``step``, its tensors renamed, and which of them holds its labels as floats.

    TensorRT knows bytes at inputs and outputs only, each beside a cast from or to floats: the served model
    takes the frame where ``step`` does, and the labels before they become bytes.
    """
    inner = compose.add_prefix(step, "step/", rename_functions=False).graph
    for node in inner.node:
        node.input[:] = ["frame" if name == "step/frame" else name for name in node.input]
    (cast,) = (node for node in inner.node if node.output[0] == "step/labels")
    assert cast.op_type == "Cast"
    inner.node.remove(cast)
    return inner, cast.input[0]


def _before() -> list[onnx.NodeProto]:
    """The clock, which slots are read, and how."""
    return [
        helper.make_node("Cast", ["start"], ["starts"], to=onnx.TensorProto.BOOL),
        helper.make_node("Where", ["starts", "clock_zero", "clock"], ["now"]),
        helper.make_node("Gather", ["windows", "now"], ["step/memory_dilation"], axis=0),
        helper.make_node("Gather", ["keys", "slots_read"], ["step/memory_keys"], axis=1),
        helper.make_node("Gather", ["values", "slots_read"], ["step/memory_values"], axis=1),
        helper.make_node("Add", ["now", "clock_one"], ["later"]),
        helper.make_node("Min", ["later", "clock_last"], ["clock_next"]),
    ]


def _after(metadata: ModelMetadata, kind: int, winners: str) -> list[onnx.NodeProto]:
    """Labels or the mask, and the next state: frames take their long-term slots, the others move on."""
    nodes = [
        helper.make_node("Cast", ["mask"], ["given"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Where", ["starts", "given", winners], ["found"]),
        helper.make_node("Cast", ["found"], ["labels"], to=onnx.TensorProto.UINT8),
        helper.make_node("Slice", ["given", "corner", "far", "rows_columns", "stride"], ["sampled"]),
        helper.make_node("Unsqueeze", ["sampled", "axis_one"], ["sampled_channel"]),
        helper.make_node("Equal", ["sampled_channel", "channels"], ["is_channel"]),
        helper.make_node("Cast", ["is_channel"], ["given_value"], to=kind),
        helper.make_node("Where", ["starts", "given_value", "step/value"], ["new_value"]),
        helper.make_node("Unsqueeze", ["step/key", "axis_one"], ["keys_new"]),
        helper.make_node("Unsqueeze", ["new_value", "axis_one"], ["values_new"]),
        helper.make_node("Equal", ["now", "long_term"], ["is_long_term"]),
        helper.make_node("Reshape", ["is_long_term", "per_slot"], ["takes"]),
    ]
    for name in ("keys", "values"):
        nodes += [
            helper.make_node("Slice", [name, "zero", "recent", "axis_one"], [f"{name}_long_term"]),
            helper.make_node("Slice", [name, "recent", "last", "axis_one"], [f"{name}_moved"]),
            helper.make_node("Where", ["takes", f"{name}_new", f"{name}_long_term"], [f"{name}_kept"]),
            helper.make_node(
                "Concat", [f"{name}_kept", f"{name}_new", f"{name}_moved"], [f"{name}_next"], axis=1
            ),
        ]
    return nodes


def _constants(metadata: ModelMetadata) -> list[onnx.TensorProto]:
    labels = metadata.labels
    assert labels is not None
    far = np.iinfo(np.int64).max
    policy, windows = _policy(metadata), windows_read(metadata)
    recent = len(policy.long_term)
    arrays = {
        "windows": windows,
        "slots_read": np.array([*range(recent), *(recent + age - 1 for age in policy.short_term)]),
        "long_term": np.array(policy.long_term, np.int32),
        "clock_zero": np.zeros(1, np.int32),
        "clock_one": np.ones(1, np.int32),
        "clock_last": np.array([len(windows) - 1], np.int32),
        "per_slot": np.array([1, recent, 1, 1, 1]),
        "zero": np.array([0]),
        "recent": np.array([recent]),
        "last": np.array([-1]),
        "axis_one": np.array([1]),
        "corner": np.array([0, 0]),
        "far": np.array([far, far]),
        "rows_columns": np.array([1, 2]),
        "stride": np.array([metadata.stride] * 2),
        "channels": np.arange(labels, dtype=np.float32).reshape(1, labels, 1, 1),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _state(metadata: ModelMetadata) -> list[tuple[str, str, list[int]]]:
    """Name, Triton's type and dimensions of each tensor that a sequence remembers."""
    assert metadata.height is not None and metadata.width is not None and metadata.labels is not None
    grid = list(metadata.feature_size(metadata.height, metadata.width))
    kind = {"float32": "FP32", "float16": "FP16"}[metadata.dtype]
    policy = _policy(metadata)
    slots = len(policy.long_term) + policy.oldest_age
    return [
        ("keys", kind, [1, slots, metadata.channels, *grid]),
        ("values", kind, [1, slots, metadata.labels, *grid]),
        ("clock", "INT32", [1]),
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
# No backend is named: Triton executes model.plan with TensorRT where there is one, else model.onnx.
name: "{NAME}"
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
