"""Exports of the shipped checkpoints without torch.

The graph of a shipped checkpoint's export is stored beside its weights, without them. :func:`fill` adds the weights
and writes the same bytes as :func:`.onnx_export.export_onnx`. ``make graphs`` writes the graphs again, which needs
torch.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

import numpy as np

from ..common.errors import ModelError
from ..common.files import atomic_path
from ..common.types import Floats
from ..training.checkpoint_header import COPY_AGAIN, open_checkpoint
from ..training.weights import shipped_checkpoint, shipped_names

GRAPH_SUFFIX = ".graph"

BATCH_NORM_EPSILON = np.float32(1e-5)
"""Default of ``torch.nn.BatchNorm2d``."""


def shipped_graph(checkpoint: Path, content: bytes) -> bytes | None:
    """The graph of a shipped checkpoint; None for any other checkpoint.

    Args:
        checkpoint: its file, wherever it lies.
        content: the bytes of that file; the graph's metadata has their digest.
    """
    if checkpoint.stem not in shipped_names():
        return None
    try:
        graph = graph_file(checkpoint.stem).read_bytes()
    except OSError:
        return None
    return graph if hashlib.sha256(content).hexdigest().encode() in graph else None


def fill(graph: bytes, checkpoint: Path, out: Path) -> None:
    """Write the export that consists of a graph and the weights of its checkpoint.

    Args:
        graph: what :func:`shipped_graph` gave for ``checkpoint``.
        checkpoint: the file with the weights.
        out: the ``.onnx`` to write.

    Raises:
        ModelError: when the weights cannot be read.
        OutputError: when ``out`` cannot be written.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    weights = _exported_weights(checkpoint)
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.raw_data = _bytes(weights[tensor.name])
    with atomic_path(out) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


def graph_of(exported: Path, checkpoint: Path) -> bytes:
    """The export of a checkpoint without the weights that :func:`fill` can add."""
    import onnx

    model = onnx.load(exported)
    weights = {name: _bytes(weight) for name, weight in _exported_weights(checkpoint).items()}
    for tensor in model.graph.initializer:
        if tensor.raw_data == weights.get(tensor.name):
            tensor.ClearField("raw_data")
    return bytes(model.SerializeToString(deterministic=True))


def graph_file(name: str) -> Path:
    """Where the graph of a shipped checkpoint lies."""
    return shipped_checkpoint(name).with_suffix(GRAPH_SUFFIX)


def _exported_weights(checkpoint: Path) -> dict[str, Floats]:
    """Initializers of the export by name: the query encoder's weights, batch norms folded into convolutions.

    The arithmetic is that of ``torch.nn.utils.fusion.fuse_conv_bn_weights``, in float32 and in its order.
    """
    with open_checkpoint(checkpoint, "numpy") as (file, _):
        names = [name for name in file.keys() if name.startswith("query.")]  # noqa: SIM118 (not a dict)
        state = {name.removeprefix("query."): file.get_tensor(name).astype(np.float32) for name in names}
    weights = {f"encoder.{name}": weight for name, weight in state.items()}
    for name, weight in state.items():
        place = re.fullmatch(r"(.+\.)([0-9]+)\.weight", name)
        norm = place and f"{place[1]}{int(place[2]) + 1}"
        if not place or weight.ndim != 4 or f"{norm}.running_var" not in state:
            continue
        gain, bias = state[f"{norm}.weight"], state[f"{norm}.bias"]
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        steepness = np.float32(1) / np.sqrt(variance + BATCH_NORM_EPSILON)
        weights[f"encoder.{name}"] = weight * (gain * steepness).reshape(-1, 1, 1, 1)
        weights[f"encoder.{place[1]}{place[2]}.bias"] = (-mean) * steepness * gain + bias
    if any(not np.isfinite(weight).all() for weight in weights.values()):
        raise ModelError(f"{checkpoint} holds values that are not finite", COPY_AGAIN)
    return weights


def _bytes(weight: Floats) -> bytes:
    """As ONNX stores it."""
    return np.ascontiguousarray(weight, "<f4").tobytes()


def main() -> None:
    """Write the graphs of all shipped checkpoints."""
    from .onnx_export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        for name in shipped_names():
            checkpoint, exported = shipped_checkpoint(name), Path(folder) / f"{name}.onnx"
            export_onnx(checkpoint, exported)
            with atomic_path(graph_file(name)) as partial:
                partial.write_bytes(graph_of(exported, checkpoint))
            print(graph_file(name))


if __name__ == "__main__":
    main()
