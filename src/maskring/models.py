"""Opening MODEL: an exported model, a checkpoint, or the name of a shipped checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from .common.errors import ModelError, one_line
from .common.types import Device, Kernel
from .runtime.model.engine_file import ENGINE_SUFFIX
from .runtime.tracking.memory import MemoryPolicy
from .runtime.tracking.tracker import Tracker
from .training.weights import shipped_checkpoint, shipped_names

CHECKPOINT_SUFFIX = ".safetensors"
DEFAULT_CHECKPOINT = "pico"
"""Name of the shipped checkpoint that is used when the user names none."""


def resolve_model(model: Path | None) -> Path:
    """The exported model for MODEL; a checkpoint is exported to the cache unless it is there.

    Args:
        model: an exported ``.onnx``, an ``.engine``, a checkpoint, the name of a shipped checkpoint, or None
            for :data:`DEFAULT_CHECKPOINT`.

    Raises:
        ModelError: when the file does not exist or is not ours.
        UnavailableError: when a checkpoint that is not shipped must be exported and torch is not installed.
        OutputError: when the export cannot be written.
    """
    model = model_file(model)
    if model.suffix != CHECKPOINT_SUFFIX:
        return model
    from .export.export_cache import cached_onnx

    return cached_onnx(model)


def model_file(model: Path | None) -> Path:
    """The file behind MODEL.

    Args:
        model: a file, the name of a shipped checkpoint (``nano``, ``pico``, ``full``), or None for
            :data:`DEFAULT_CHECKPOINT`.

    Raises:
        ModelError: when there is no such file and no checkpoint of that name.
    """
    if model is None:
        return shipped_checkpoint(DEFAULT_CHECKPOINT)
    if os.path.isfile(model):  # noqa: PTH113 (Path.is_file raises on names that are too long)
        return model
    names = shipped_names()
    if str(model) not in names:
        raise ModelError(
            f"the model {model} does not exist",
            f"check the path, or name a shipped checkpoint ({', '.join(names)})",
        )
    return shipped_checkpoint(str(model))


def provenance(model: Path | None) -> str:
    """Where the weights behind MODEL come from, in one sentence for people."""
    file = model_file(model)
    if file.suffix != CHECKPOINT_SUFFIX:
        return "a TensorRT engine" if file.suffix == ENGINE_SUFFIX else "an exported model"
    from .training.checkpoint_header import read_provenance

    origin = read_provenance(file)
    name = str(model) if file == model else f"the shipped checkpoint {file.stem}"
    return one_line(
        f"{name}: recipe {origin.recipe or 'unknown'}, {origin.steps} steps, data: {origin.data or 'unknown'}"
    )


def open_tracker(
    model: Path | str | None = None,
    *,
    policy: MemoryPolicy | None = None,
    kernel: Kernel = "native",
    threads: int = 0,
    device: Device = "cpu",
) -> Tracker:
    """Open a tracker on ``model``.

    Args:
        model: see :func:`resolve_model`.
        policy: which past frames are read; None for the one stored in the model.
        kernel: of an ``.onnx``: ``native`` runs the CPU kernel of the memory read, ``function`` standard ONNX
            operators only.
        threads: CPU threads of an ``.onnx``, 0 for all that this process may use.
        device: where an ``.onnx`` runs: ``cuda`` is the first NVIDIA GPU, through onnxruntime-gpu. Engines always run
            on the GPU.

    Raises:
        UserError: when the model cannot be found, read or executed.
    """
    from .runtime.backends import open_backend

    path = resolve_model(None if model is None else Path(model))
    backend = open_backend(path, kernel=kernel, threads=threads, device=device)
    try:
        return Tracker(backend, policy=policy)
    except BaseException:
        backend.close()
        raise
