"""A checkpoint given where a model is wanted is exported once, into a cache that serves no wrong file."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch

from ..common.errors import ModelError
from ..common.files import cache_directory
from ..plugins.windowed_affinity import onnx_op, torch_localisation
from ..runtime.model import metadata as model_file
from ..training import checkpoint as checkpoint_file
from ..training.network import colour, encoder, upsampling
from .onnx_export import export_onnx

DECIDING = (onnx_op, torch_localisation, model_file, checkpoint_file, colour, encoder, upsampling)
"""Modules beside this folder's that decide what an export holds."""


def cached_onnx(checkpoint: Path, **options: Any) -> Path:
    """The export of ``checkpoint`` with ``options`` (:func:`.export_onnx`), made now if it is not there.

    The file's name holds a digest of everything that decides its content: the checkpoint's bytes, the
    options, the exporter's source and its torch. Two processes may ask at once: each writes a
    file of its own and renames it.

    Raises:
        ModelError, OutputError: as :func:`.export_onnx`.
    """
    try:
        content = checkpoint.read_bytes()
    except OSError as error:
        raise ModelError(f"the checkpoint {checkpoint} cannot be read", "check the path") from error
    settings = json.dumps([options, torch.__version__, _source_digest()], sort_keys=True)
    digest = hashlib.sha256(content + settings.encode()).hexdigest()[:32]
    model = cache_directory() / f"{checkpoint.stem}-{digest}.onnx"
    if not model.is_file():
        export_onnx(checkpoint, model, **options)
    return model


def _source_digest() -> str:
    """A digest of the code that decides what an export holds, so that an upgrade never serves an old file."""
    sources = [
        *Path(__file__).parent.glob("*.py"),
        *(Path(inspect.getfile(module)) for module in DECIDING),
    ]
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()
