"""Read exported step graphs, and cut them at their memory read so that a native kernel can take its place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from ...common.errors import ModelError
from ...plugins.windowed_affinity.onnx_op import DOMAIN, OP_TYPE, OPSET_VERSION, is_memory_read
from .metadata import EXPORT_AGAIN, MAX_SETTING, METADATA_KEY, ModelMetadata
from .tensor_names import DILATION, FRAME, INPUTS, KEY, KEYS, LAB, OUTPUTS, PROBABILITIES, VALUES


@dataclass(frozen=True)
class StepGraphHead:
    """The part of a step graph before its memory read, and the attributes of the read.

    Attributes:
        model: ``frame`` or ``lab`` -> ``key`` and ``query``.
        query: name of the tensor that is compared with memory; it may be ``key``.
        radius, scale, top_k: attributes of the memory read.
        smoothing: radius and scale of the smoothing read, which reads the frame's own ``key``; None when
            there is none.
    """

    model: onnx.ModelProto
    query: str
    radius: int
    scale: float
    top_k: int
    smoothing: tuple[int, float] | None


def read_export(path: Path) -> tuple[onnx.ModelProto, ModelMetadata]:
    """Read a file that maskring exported: a step graph, or the model of a Triton repository.

    Raises:
        ModelError: when the file is missing, damaged or not exported by maskring.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"the model {path} does not exist", "check the path") from error
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read ({error.strerror})", "check the path") from error
    except (DecodeError, UnicodeDecodeError) as error:  # the latter from protobuf's Python implementation
        raise ModelError(f"{path} is not an ONNX file, or is truncated", EXPORT_AGAIN) from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in properties:
        if any(is_memory_read(node) for node in model.graph.node):
            raise ModelError(
                f"{path} has lost the metadata that maskring wrote; the tool that rewrote the file dropped it",
                "track with the file that maskring export wrote",
            )
        raise ModelError(f"{path} was not exported by maskring", EXPORT_AGAIN)
    return model, ModelMetadata.from_json(properties[METADATA_KEY], str(path))


def load_step_graph(path: Path, *, allow_inlined: bool = False) -> tuple[onnx.ModelProto, ModelMetadata]:
    """Read an exported step graph.

    Args:
        path: the file.
        allow_inlined: accept a file in which another tool has replaced every memory read by the standard
            operators of its function body; :func:`memory_read` finds none in it.

    Raises:
        ModelError: when the file is missing, damaged, not exported by maskring or of another version.
    """
    model, metadata = read_export(path)
    if allow_inlined and _is_inlined(model, metadata):
        return model, metadata
    versions = {entry.domain: entry.version for entry in model.opset_import}
    reads = [read for read in (memory_read(model), smoothing_read(model)) if read is not None]
    if (
        memory_read(model) is None
        or len(reads) != (2 if metadata.smoothing_radius else 1)
        or (reads[-1].output[0] != PROBABILITIES and not (metadata.confidence_exponent and len(reads) == 1))
        or versions.get(DOMAIN) != OPSET_VERSION
        or not all(map(_valid_attributes, reads))
        or _declared_channels(model) not in (0, metadata.channels)
    ):
        raise ModelError(f"{path} does not contain the step graph that its metadata describes", EXPORT_AGAIN)
    return model, metadata


def _is_inlined(model: onnx.ModelProto, metadata: ModelMetadata) -> bool:
    """Whether ``model`` has the tensors of a step graph, in the types of ``metadata``, and no operator of maskring."""
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    }
    memory = helper.np_dtype_to_tensor_dtype(np.dtype(metadata.dtype))
    return (
        set(kinds) == {*INPUTS, *OUTPUTS}
        and kinds[KEYS] == kinds[VALUES] == memory
        and _declared_channels(model) in (0, metadata.channels)
        and not any(node.domain == DOMAIN for node in model.graph.node)
    )


def _valid_attributes(read: onnx.NodeProto) -> bool:
    """Whether a memory read has a usable radius and scale, and ``top_k`` if it has one."""
    kinds = onnx.AttributeProto
    stored = {attribute.name: attribute for attribute in read.attribute}
    if not {"radius", "scale"} <= set(stored) or stored["scale"].type != kinds.FLOAT:
        return False
    whole = [stored[name] for name in ("radius", "top_k") if name in stored]
    if any(attribute.type != kinds.INT or attribute.i < 0 for attribute in whole):
        return False
    largest = stored["top_k"].i if "top_k" in stored else 0
    return stored["radius"].i <= MAX_SETTING and largest < 2**31 and 0 <= stored["scale"].f < math.inf


def _declared_channels(model: onnx.ModelProto) -> int:
    """C of the graph's keys; 0 when it is dynamic."""
    key = next(value for value in model.graph.output if value.name == KEY)
    shape = key.type.tensor_type.shape.dim
    return int(shape[1].dim_value) if len(shape) == 4 else -1


def memory_read(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The node that reads label maps from memory; None when ``model`` is not a step graph.

    A step graph may have two more nodes of the same operator: the search for window centres reads
    coordinates, and smoothing reads the frame itself.
    """
    names = {value.name for value in (*model.graph.input, *model.graph.output)}
    reads: list[onnx.NodeProto] = [
        node for node in model.graph.node if is_memory_read(node) and list(node.input[1:3]) == [KEYS, VALUES]
    ]
    if names != {*INPUTS, *OUTPUTS} or len(reads) != 1:
        return None
    localised = len(reads[0].input) > 4
    return reads[0] if localised or reads[0].input[3] == DILATION else None


def smoothing_read(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The node that smooths the probabilities by a read of the frame itself; None when ``model`` has none."""
    return next(
        (
            node
            for node in model.graph.node
            if is_memory_read(node) and node.output[0] == PROBABILITIES and node.input[1] != KEYS
        ),
        None,
    )


def cut_at_memory_read(model: onnx.ModelProto, read: onnx.NodeProto, begin: str = FRAME) -> StepGraphHead:
    """The part of ``model`` before its memory read.

    Args:
        model: a step graph.
        read: its memory read.
        begin: input of the part: :data:`FRAME`, or :data:`LAB` in a graph that has that tensor.
    """
    attributes, smoothing = _attributes(read), smoothing_read(model)
    return StepGraphHead(
        model=subgraph(model, [begin], dict.fromkeys((KEY, read.input[0]))),
        query=read.input[0],
        radius=attributes["radius"],
        scale=attributes["scale"],
        top_k=attributes.get("top_k", 0),
        smoothing=smoothing and itemgetter("radius", "scale")(_attributes(smoothing)),
    )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def subgraph(model: onnx.ModelProto, inputs: Iterable[str], outputs: Iterable[str]) -> onnx.ModelProto:
    """The part of ``model`` that computes ``outputs`` from ``inputs``; unused inputs are left out.

    Inner tensors that become inputs or outputs are declared as [1, ?, ?, ?] of the memory's type; ``lab`` as
    float32.
    """
    graph = model.graph
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output}
    boundary, outputs = set(inputs), list(outputs)
    used: set[int] = set()
    reached: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        if name not in boundary and name in producer:
            used.add(producer[name])
            pending.extend(_tensors_read(graph.node[producer[name]]))
    interface = {value.name: value for value in (*graph.input, *graph.output)}
    inner_type = interface[KEY].type.tensor_type.elem_type

    def describe(name: str) -> onnx.ValueInfoProto:
        kind = onnx.TensorProto.FLOAT if name == LAB else inner_type
        return interface.get(name) or helper.make_tensor_value_info(name, kind, [1, None, None, None])

    part = helper.make_graph(
        [graph.node[index] for index in sorted(used)],
        graph.name,
        [describe(name) for name in inputs if name in reached],
        [describe(name) for name in outputs],
        [weight for weight in graph.initializer if weight.name in reached],
    )
    functions = [
        function for function in model.functions if (function.domain, function.name) != (DOMAIN, OP_TYPE)
    ]
    return helper.make_model(
        part, opset_imports=model.opset_import, functions=functions, ir_version=model.ir_version
    )


def _tensors_read(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, including those in the bodies of its branches and loops."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names.extend(name for inner in body.node for name in _tensors_read(inner))
    return names
