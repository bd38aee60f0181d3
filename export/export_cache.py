"""Exports on demand: a checkpoint that is given as a model is exported once, into a cache.

Finding a cached export imports neither torch nor onnx, so a tracker opens as lightly by name as by file. The exports of
shipped checkpoints are filled, not made (:mod:`.shipped_graph`), which needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from glob import escape as glob_escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..common.errors import ModelError, UnavailableError
from ..common.files import cache_directory, caching
from ..training.checkpoint_header import open_checkpoint
from .shipped_graph import fill, shipped_graph

PACKAGE = Path(__file__).resolve().parents[1]

SOURCES = (
    "export",
    "plugins",
    "runtime/arrays/votes.py",
    "runtime/model",
    "training/network",
    "training/checkpoint.py",
    "training/checkpoint_header.py",
    "training/torch_files.py",
)
"""Folders, at any depth, and files whose Python code decides what an export holds."""

EXPORTERS = ("torch", "onnx", "onnxscript")
"""Distributions whose version decides what an export holds."""


def cached_onnx(checkpoint: Path, **options: Any) -> Path:
    """The export of ``checkpoint`` with ``options`` (:func:`.onnx_export.export_onnx`), made if necessary.

    The name of the file holds a digest of everything that decides its content: the bytes of the checkpoint,
    the options, this version's code and the versions of the exporters. Where no exporter is installed, a
    cached export by any version of them is taken. Without options, a shipped checkpoint needs no exporter. Several
    processes may ask at once: each writes a file of its own and renames it.

    Raises:
        ModelError: as :func:`.onnx_export.export_onnx`.
        OutputError: when the cache cannot be written.
        UnavailableError: when the export is not in the cache and torch is not installed.
    """
    try:
        content = checkpoint.read_bytes()
    except OSError as error:
        raise ModelError(f"the checkpoint {checkpoint} cannot be read", "check the path") from error
    graph = None if options else shipped_graph(checkpoint, content)
    settings = json.dumps([options, _source_digest()], sort_keys=True)
    digest = hashlib.sha256((graph or content) + settings.encode()).hexdigest()[:32]
    name = f"{checkpoint.stem}-{digest}"
    if graph is not None:
        model = cache_directory() / f"{name}.onnx"
        if not os.access(model, os.R_OK):
            with caching(model):
                fill(graph, checkpoint, model)
        return model
    with open_checkpoint(checkpoint, "numpy"):
        pass  # what is no checkpoint is refused before the exporter is looked for and imported, which takes seconds
    exporters = _exporters_digest()
    if exporters is None:
        cached = sorted(cache_directory().glob(f"{glob_escape(name)}-*.onnx"))
        if readable := [model for model in cached if os.access(model, os.R_OK)]:
            return readable[-1]
        raise UnavailableError(
            f"the checkpoint {checkpoint} must be exported first and torch is not installed",
            "run pip install 'maskring[train]', or export on another machine (maskring export CHECKPOINT "
            "--out model.onnx) and give that file as --model",
        )
    model = cache_directory() / f"{name}-{exporters}.onnx"
    if not os.access(model, os.R_OK):  # there is none, or another user made it for himself
        from .onnx_export import export_onnx

        with caching(model):
            export_onnx(checkpoint, model, **options)
    return model


def _source_digest() -> str:
    digest = hashlib.sha256()
    for source in source_files():
        digest.update(source.relative_to(PACKAGE).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()


def source_files() -> list[Path]:
    """The files that :data:`SOURCES` names, in a fixed order."""
    files = []
    for name in SOURCES:
        path = PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return files


def _exporters_digest() -> str | None:
    """A digest of the exporters' versions; None when one is not installed."""
    try:
        versions = [version(name) for name in EXPORTERS]
    except PackageNotFoundError:
        return None
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:8]
