"""Kernels that TensorRT-RTX compiled on this GPU, kept beside the engine for the next run."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from ....common.errors import OutputError
from ....common.files import atomic_path

log = logging.getLogger(__name__)

DIGEST = hashlib.sha256().digest_size


def kernels_path(engine: Path) -> Path:
    """``model.engine`` -> ``model.engine.kernels``."""
    return engine.with_name(engine.name + ".kernels")


class KernelCache:
    """The compiled kernels of one engine.

    TensorRT-RTX takes only what was compiled by its own version for the present GPU and driver. Before it is
    asked, a digest has to say that the file is whole and of this engine.

    Args:
        cache: TensorRT-RTX's, still empty.
        engine: the engine's file.
        engine_sha256: its digest.
    """

    def __init__(self, cache: Any, engine: Path, engine_sha256: str) -> None:
        self._path, self._engine = kernels_path(engine), engine_sha256.encode()
        self._cache = cache
        self._kept = self._read()
        if self._kept and not self._cache.deserialize(self._kept):
            self._kept = b""  # of another GPU, driver or version: will be replaced

    def keep(self) -> None:
        """Write what was compiled since; a folder that takes nothing costs the next run its time, no more."""
        found = self._cache.serialize()
        kernels = b"" if found is None else bytes(found)
        if not kernels or kernels == self._kept:
            return
        try:
            with atomic_path(self._path) as partial:
                partial.write_bytes(self._digest(kernels) + kernels)
        except OutputError as error:
            log.info("compiled kernels are not kept: %s", error)
        self._kept = kernels

    def _read(self) -> bytes:
        try:
            stored = self._path.read_bytes()
        except OSError:
            return b""
        kernels = stored[DIGEST:]
        return kernels if stored[:DIGEST] == self._digest(kernels) else b""

    def _digest(self, kernels: bytes) -> bytes:
        return hashlib.sha256(self._engine + kernels).digest()
