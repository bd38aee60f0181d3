"""Writing a Triton model repository."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ...common.files import atomic_path, make_directory
from ...runtime.model.metadata import DEFAULT_LONG_TERM, DEFAULT_SHORT_TERM
from ...runtime.model.step_graph import load_step_graph
from ..onnx_export import export_onnx
from .config import DEFAULT_STREAMS, MODEL_NAME, model_config
from .graph import served_model

NUM_SLOTS_READ = len(DEFAULT_LONG_TERM) + len(DEFAULT_SHORT_TERM)

CLIENT = Path(__file__).with_name("client.py")
"""An example client; a copy is written into the repository."""


def write_triton_repository(
    checkpoint: Path,
    folder: Path,
    *,
    height: int,
    width: int,
    num_labels: int,
    streams: int = DEFAULT_STREAMS,
    **settings: Any,
) -> Path:
    """Write a model repository that serves a tracker to several streams at once.

    Each stream is a sequence: its first request carries START and the mask, its last END. Sizes are fixed,
    because Triton allocates the state of a sequence before it sees a frame.

    Args:
        checkpoint: a maskring checkpoint.
        folder: the repository; existing files of the model are replaced.
        height, width: frame size in pixels.
        num_labels: O, background included.
        streams: streams tracked at once; the server lets further ones wait until one ends.
        settings: those of :func:`.export_onnx` that are not named here.

    Returns:
        The folder of the model in the repository.

    Raises:
        ModelError, OutputError: as :func:`.export_onnx`.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-triton-") as scratch:
        plain = Path(scratch) / "step.onnx"
        export_onnx(
            checkpoint,
            plain,
            height=height,
            width=width,
            num_labels=num_labels,
            num_slots=NUM_SLOTS_READ,
            **settings,
        )
        step, metadata = load_step_graph(plain)
    model = make_directory(folder / MODEL_NAME)
    make_directory(model / "1")
    with atomic_path(model / "1" / "model.onnx") as partial:
        partial.write_bytes(served_model(step, metadata).SerializeToString(deterministic=True))
    with atomic_path(model / "config.pbtxt") as partial:
        partial.write_text(model_config(metadata, streams), encoding="utf-8")
    with atomic_path(folder / "client.py") as partial:
        partial.write_text(CLIENT.read_text(encoding="utf-8"), encoding="utf-8")
    return model
