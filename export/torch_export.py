"""What all exports through torch's ONNX exporter have in common."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx

ONNX_OPSET = 18

IR_WITH_FUNCTIONS = 8
"""First version of ONNX's file format that has functions. Old runtimes refuse newer versions."""


def strip_provenance(model: onnx.ModelProto, name: str) -> None:
    """Remove the exporter's notes, and lower the version of the file format to what the graph needs.

    The notes have stack traces with local paths. Inner shapes can be inferred.

    Args:
        model: changed in place.
        name: the new name of its graph.
    """
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    model.ir_version = IR_WITH_FUNCTIONS  # nothing that torch exports here needs a newer one
    model.graph.name = name
    model.doc_string = model.graph.doc_string = ""
    for node in _nodes(model.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's log messages off the terminal; errors still raise exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
