"""From a checkpoint to one ONNX file that holds a whole tracking step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor

from ..common.errors import ModelError
from ..common.files import atomic_path, make_directory
from ..plugins.windowed_affinity.onnx_op import (
    DOMAIN,
    OP_TYPE,
    OPSET_VERSION,
    body_needed,
    function_body,
    is_memory_read,
    op_schema,
)
from ..runtime.model.metadata import (
    DILATION,
    FRAME,
    INPUTS,
    KEY,
    KEYS,
    LAB,
    LABELS,
    MAX_LABELS,
    METADATA_KEY,
    MOST,
    OUTPUTS,
    PROBABILITIES,
    VALUE,
    VALUES,
    ModelMetadata,
)
from ..training.checkpoint import Checkpoint, load_checkpoint
from ..training.network.colour import LAB_MEAN, LAB_STD
from ..training.network.encoder import STRIDE
from .step_module import StepGraph
from .torch_export import ONNX_OPSET, quiet, strip_provenance

IR_WITH_OVERLOADS = 10

DTYPES = {"float32": torch.float32, "float16": torch.float16}

# Sizes to trace dynamic axes with: all different, none 0 or 1, for which tracing would take a special path.
TRACED_HEIGHT, TRACED_WIDTH, TRACED_LABELS, TRACED_SLOTS = 50, 70, 4, 5


def export_onnx(
    checkpoint: Path,
    out: Path,
    *,
    height: int | None = None,
    width: int | None = None,
    labels: int | None = None,
    slots: int | None = None,
    radius: int | None = None,
    scale: float | None = None,
    top_k: int | None = None,
    localise: int | None = None,
    smooth: int | None = None,
    dtype: str = "float32",
) -> None:
    """Write the step graph of ``checkpoint`` to ``out``; same checkpoint and settings, same bytes.

    Args:
        checkpoint: a maskring checkpoint.
        out: the ``.onnx`` to write.
        height, width: frame size in pixels; None for any.
        labels: O, background included; None for any.
        slots: N, frames in memory; None for any.
        radius, scale, top_k, localise, smooth: settings of the memory read
            (:class:`maskring.runtime.model.metadata.ModelMetadata`); None for the checkpoint's own.
        dtype: ``float32`` or ``float16``: type of features and label maps.

    Raises:
        ModelError: when the checkpoint cannot be used, or a size makes no sense.
        OutputError: when ``out`` cannot be written.
    """
    loaded = load_checkpoint(checkpoint)
    own = loaded.tracking
    metadata = ModelMetadata(
        stride=STRIDE,
        channels=loaded.config.channels,
        radius=own.radius if radius is None else radius,
        scale=own.scale if scale is None else scale,
        top_k=own.top_k if top_k is None else top_k,
        localise=own.localise if localise is None else localise,
        smooth=own.smooth if smooth is None else smooth,
        slots=slots,
        height=height,
        width=width,
        labels=labels,
        dtype=dtype,
        lab_mean=LAB_MEAN,
        lab_std=LAB_STD,
        checkpoint=checkpoint.stem,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    )
    _check_sizes(metadata)
    model = step_model(loaded, metadata)
    make_directory(out.parent)
    with atomic_path(out) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


def step_graph(checkpoint: Checkpoint, metadata: ModelMetadata) -> StepGraph:
    """The torch module of which ``metadata`` describes the export."""
    return StepGraph(
        checkpoint.query_encoder(),
        radius=metadata.radius,
        scale=metadata.scale,
        top_k=metadata.top_k,
        localise=metadata.localise,
        smooth=metadata.smooth,
        dtype=DTYPES[metadata.dtype],
    ).eval()


def step_model(checkpoint: Checkpoint, metadata: ModelMetadata) -> onnx.ModelProto:
    """The step graph as an ONNX model, function body attached, checked."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            step_graph(checkpoint, metadata),
            _example(metadata),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(metadata),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=ONNX_OPSET,
            custom_translation_table={
                torch.ops.maskring.windowed_affinity.default: _memory_read,
                torch.ops.maskring.upsample_like.default: _upsample_like,
            },
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _describe_interface(model, metadata)
    _read_bytes_once(model.graph)
    _name_lab(model.graph)
    strip_provenance(model, "maskring_step")
    if not any(entry.domain == DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET_VERSION))
    _attach_bodies(model)
    model.producer_name = "maskring"
    model.producer_version = ""  # the package's version alone must not change the bytes
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _attach_bodies(model: onnx.ModelProto) -> None:
    """Give the file the bodies that its reads need; where they are several, as overloads of the function."""
    reads = [node for node in model.graph.node if is_memory_read(node)]
    bodies: dict[str, onnx.FunctionProto] = {}
    for node in reads:
        needed = body_needed(node)
        node.overload = "_".join(name for name, is_needed in needed.items() if is_needed)
        bodies[node.overload] = function_body(**needed)
    if len(bodies) > 1:
        model.ir_version = max(model.ir_version, IR_WITH_OVERLOADS)
        for name, body in bodies.items():
            body.overload = name
    else:  # TensorRT's parser knows no overloads
        for node in reads:
            node.overload = ""
    model.functions.extend(bodies[name] for name in sorted(bodies))


def _memory_read(
    query: Any,
    keys: Any,
    values: Any,
    dilation: Any,
    offsets: Any = None,
    radius: int = 0,
    scale: float = 1.0,
    top_k: int = 0,
) -> Any:
    """The exporter's translation of the torch operator into our ONNX operator."""
    domain = onnxscript.values.Opset(DOMAIN, OPSET_VERSION)
    node = onnxscript.values.Op(domain, OP_TYPE, op_schema())
    memory = (query, keys, values, dilation) if offsets is None else (query, keys, values, dilation, offsets)
    return node(*memory, radius=radius, scale=scale, top_k=top_k)


def _upsample_like(coarse: Any, fine: Any, factor: int) -> Any:
    """The exporter's translation of :func:`..training.upsampling.upsample_like`."""
    op = onnxscript.values.Opset("", ONNX_OPSET)
    scales = [1.0, 1.0, float(factor), float(factor)]
    large = op.Resize(coarse, None, scales, coordinate_transformation_mode="asymmetric", mode="linear")
    return op.Slice(large, [0, 0], op.Shape(fine, start=2), [2, 3])


def _is_scale(value: float) -> bool:
    """Whether a float32 of the graph holds it without becoming nothing, infinite or nan."""
    return 2.0**-126 <= value <= 2.0**127


def _check_sizes(metadata: ModelMetadata) -> None:
    sizes = {
        "height": metadata.height,
        "width": metadata.width,
        "number of labels": metadata.labels,
        "number of slots": metadata.slots,
    }
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ModelError(
                f"a {name} of {size} cannot be exported", "give a positive number, or none for any"
            )
    if (metadata.height is None) != (metadata.width is None):
        raise ModelError(
            "only one of height and width is fixed", "give both --height and --width, or neither"
        )
    if metadata.localise < 0:
        raise ModelError(
            f"a search for window centres on every {metadata.localise}th feature cannot be exported",
            "give a step of at least 1, or 0 for no search",
        )
    if min(metadata.radius, metadata.smooth, metadata.top_k) < 0 or not _is_scale(metadata.scale):
        raise ModelError(
            f"radius {metadata.radius}, smoothing {metadata.smooth}, scale {metadata.scale} and top-k "
            f"{metadata.top_k} cannot be exported",
            "give radius, smoothing and top-k of at least 0 and a positive scale",
        )
    if metadata.dtype not in DTYPES:
        raise ModelError(f"there is no export in {metadata.dtype}", f"choose {' or '.join(DTYPES)}")
    try:
        ModelMetadata.from_json(metadata.to_json(), "the model")
    except ModelError as error:
        raise ModelError(
            "a size or setting is one that the runtime would refuse",
            f"give 2 to {MAX_LABELS} labels, and at most {MOST} of everything else",
        ) from error


def _example(metadata: ModelMetadata) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = metadata.height or TRACED_HEIGHT, metadata.width or TRACED_WIDTH
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    slots, labels = metadata.slots or TRACED_SLOTS, metadata.labels or TRACED_LABELS
    dtype = DTYPES[metadata.dtype]
    return (
        torch.zeros(1, height, width, 3, dtype=torch.uint8),
        torch.zeros(1, slots, metadata.channels, rows, columns, dtype=dtype),
        torch.zeros(1, slots, labels, rows, columns, dtype=dtype),
        torch.ones(1, slots, dtype=torch.int32),
    )


def _dynamic_shapes(metadata: ModelMetadata) -> tuple[dict[int, Any], ...]:
    """Which axes of each input may change from call to call."""
    free = torch.export.Dim.AUTO
    pixels = metadata.height is None
    slots = {1: free} if metadata.slots is None else {}
    labels = {2: free} if metadata.labels is None else {}
    grid = {3: free, 4: free} if pixels else {}
    return ({1: free, 2: free} if pixels else {}, slots | grid, slots | labels | grid, slots)


def _describe_interface(model: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Name the axes of inputs and outputs as the documentation does, where they are not fixed."""
    rows: str | int = "h"
    columns: str | int = "w"
    if metadata.height is not None and metadata.width is not None:
        rows, columns = metadata.feature_size(metadata.height, metadata.width)
    height, width = metadata.height or "H", metadata.width or "W"
    slots, labels, channels = metadata.slots or "N", metadata.labels or "O", metadata.channels
    shapes: dict[str, list[str | int]] = {
        FRAME: [1, height, width, 3],
        KEYS: [1, slots, channels, rows, columns],
        VALUES: [1, slots, labels, rows, columns],
        DILATION: [1, slots],
        LABELS: [1, height, width],
        PROBABILITIES: [1, labels, rows, columns],
        VALUE: [1, labels, rows, columns],
        KEY: [1, channels, rows, columns],
    }
    for tensor in (*model.graph.input, *model.graph.output):
        kind = tensor.type.tensor_type.elem_type
        tensor.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, kind, shapes[tensor.name]))


def _read_bytes_once(graph: onnx.GraphProto) -> None:
    """Ask the frame's copy in floats for its shape: TensorRT takes bytes in conversions alone."""
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == FRAME)
    graph.node.remove(cast)
    graph.node.insert(0, cast)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == FRAME:
            node.input[0] = cast.output[0]


def _name_lab(graph: onnx.GraphProto) -> None:
    """Call the encoder's input ``lab``, so that a runtime may compute the colours by itself."""
    producers = {name: node for node in graph.node for name in node.output}
    name = next(node for node in graph.node if node.op_type == "Conv").input[0]
    # Behind it: the cast of a half model, and the cut to what an encoder of grey images looks at.
    while producers[name].op_type in ("Cast", "Slice"):
        name = producers[name].input[0]
    for node in graph.node:
        for names in (node.input, node.output):
            for index, other in enumerate(names):
                if other == name:
                    names[index] = LAB
