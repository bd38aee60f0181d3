"""The ONNX model that Triton serves: the step graph between the state of a sequence and its next state."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from ...runtime.model.metadata import METADATA_KEY, ModelMetadata
from ...runtime.model.tensor_names import DILATION, FRAME, KEY, KEYS, LABELS, VALUE, VALUES
from ...runtime.tracking.memory import MemoryPolicy
from .state import MASK, START, dilation_table, fixed_sizes, slots_read, state_tensors

STEP = "step/"
"""Prefix of the step graph's tensors inside the served model."""

ONNX_TYPES = {
    "UINT8": onnx.TensorProto.UINT8,
    "INT32": onnx.TensorProto.INT32,
    "FP32": onnx.TensorProto.FLOAT,
    "FP16": onnx.TensorProto.FLOAT16,
}


def served_model(step: onnx.ModelProto, metadata: ModelMetadata) -> onnx.ModelProto:
    """``step`` with the memory of a sequence around it.

    Inputs: ``frame``; ``mask`` uint8 [1, H, W], the labels of the first frame, ignored later; ``start`` int32
    [1], 1 at the first frame; and the state (:func:`.state.state_tensors`). Outputs: ``labels`` and the next
    state, whose names end in ``_next``.

    Raises:
        ModelError: when ``metadata`` leaves a size open.
    """
    height, width, _ = fixed_sizes(metadata)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(metadata.dtype))
    inner, winners = _inner_step(step)
    graph = helper.make_graph(
        [*_read_nodes(), *inner.node, *_update_nodes(kind, winners)],
        "maskring_served_step",
        [
            _tensor(FRAME, "UINT8", [1, height, width, 3]),
            _tensor(MASK, "UINT8", [1, height, width]),
            _tensor(START, "INT32", [1]),
            *(_tensor(name, kind, dims) for name, kind, dims in state_tensors(metadata)),
        ],
        [
            _tensor(LABELS, "UINT8", [1, height, width]),
            *(_tensor(f"{name}_next", kind, dims) for name, kind, dims in state_tensors(metadata)),
        ],
        [*inner.initializer, *_constants(metadata)],
    )
    model = helper.make_model(
        graph, opset_imports=step.opset_import, functions=step.functions, ir_version=step.ir_version
    )
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _inner_step(step: onnx.ModelProto) -> tuple[onnx.GraphProto, str]:
    """The graph of ``step`` with prefixed tensor names, and the name of its labels as floats.

    TensorRT has uint8 at inputs and outputs only, so the cast of the labels to uint8 is removed here: the
    served model casts after it has put in the mask.
    """
    inner = compose.add_prefix(step, STEP, rename_functions=False).graph
    for node in inner.node:
        node.input[:] = [FRAME if name == STEP + FRAME else name for name in node.input]
    (cast,) = (node for node in inner.node if node.output[0] == STEP + LABELS)
    assert cast.op_type == "Cast"
    inner.node.remove(cast)
    return inner, cast.input[0]


def _read_nodes() -> list[onnx.NodeProto]:
    """Advance the clock; gather the slots to read and their window steps."""
    return [
        helper.make_node("Cast", [START], ["starts"], to=onnx.TensorProto.BOOL),
        helper.make_node("Where", ["starts", "clock_zero", "clock"], ["now"]),
        helper.make_node("Gather", ["dilation_table", "now"], [STEP + DILATION], axis=0),
        helper.make_node("Gather", ["keys", "slots_read"], [STEP + KEYS], axis=1),
        helper.make_node("Gather", ["values", "slots_read"], [STEP + VALUES], axis=1),
        helper.make_node("Add", ["now", "clock_one"], ["later"]),
        helper.make_node("Min", ["later", "clock_last"], ["clock_next"]),
    ]


def _update_nodes(kind: int, winners: str) -> list[onnx.NodeProto]:
    """Output the labels, or the mask at the first frame; write the frame into the state."""
    nodes = [
        helper.make_node("Cast", [MASK], ["mask_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Where", ["starts", "mask_float", winners], ["labels_float"]),
        helper.make_node("Cast", ["labels_float"], [LABELS], to=onnx.TensorProto.UINT8),
        helper.make_node(
            "Slice", ["mask_float", "corner", "far", "rows_columns", "stride"], ["mask_sampled"]
        ),
        helper.make_node("Unsqueeze", ["mask_sampled", "axis_one"], ["mask_channel"]),
        helper.make_node("Equal", ["mask_channel", "channels"], ["is_channel"]),
        helper.make_node("Cast", ["is_channel"], ["mask_value"], to=kind),
        helper.make_node("Where", ["starts", "mask_value", STEP + VALUE], ["new_value"]),
        helper.make_node("Unsqueeze", [STEP + KEY, "axis_one"], ["keys_new"]),
        helper.make_node("Unsqueeze", ["new_value", "axis_one"], ["values_new"]),
        helper.make_node("Equal", ["now", "long_term"], ["is_long_term"]),
        helper.make_node("Reshape", ["is_long_term", "per_slot"], ["is_written"]),
    ]
    for name in ("keys", "values"):
        nodes += [
            helper.make_node("Slice", [name, "zero", "recent", "axis_one"], [f"{name}_long_term"]),
            helper.make_node("Slice", [name, "recent", "last", "axis_one"], [f"{name}_shifted"]),
            helper.make_node("Where", ["is_written", f"{name}_new", f"{name}_long_term"], [f"{name}_first"]),
            helper.make_node(
                "Concat", [f"{name}_first", f"{name}_new", f"{name}_shifted"], [f"{name}_next"], axis=1
            ),
        ]
    return nodes


def _constants(metadata: ModelMetadata) -> list[onnx.TensorProto]:
    *_, labels = fixed_sizes(metadata)
    far = np.iinfo(np.int64).max
    policy, table = MemoryPolicy.of_model(metadata), dilation_table(metadata)
    recent = len(policy.long_term)
    arrays = {
        "dilation_table": table,
        "slots_read": np.array(slots_read(policy)),
        "long_term": np.array(policy.long_term, np.int32),
        "clock_zero": np.zeros(1, np.int32),
        "clock_one": np.ones(1, np.int32),
        "clock_last": np.array([len(table) - 1], np.int32),
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


def _tensor(name: str, kind: str, dims: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[kind], dims)
