"""Kernels that TensorRT-RTX compiled on this GPU, saved in the engine's folder for the next run."""

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

    A digest protects against damaged files and those of other engines. TensorRT-RTX itself rejects kernels
    of another version, GPU or driver.

    Args:
        cache: an empty runtime cache of TensorRT-RTX.
        engine: the engine file.
        engine_sha256: digest of the engine file.
    """

    def __init__(self, cache: Any, engine: Path, engine_sha256: str) -> None:
        self._path, self._engine = kernels_path(engine), engine_sha256.encode()
        self._cache = cache
        self._saved = self._read()
        if self._saved and not self._cache.deserialize(self._saved):
            self._saved = b""  # of another GPU, driver or version: will be replaced

    def save(self) -> None:
        """Write the compiled kernels. When that fails, the next run compiles them again."""
        serialized = self._cache.serialize()
        kernels = b"" if serialized is None else bytes(serialized)
        if not kernels or kernels == self._saved:
            return
        try:
            with atomic_path(self._path) as partial:
                partial.write_bytes(self._digest(kernels) + kernels)
        except OutputError as error:
            log.info("compiled kernels were not saved: %s", error)
        self._saved = kernels

    def _read(self) -> bytes:
        try:
            stored = self._path.read_bytes()
        except OSError:
            return b""
        kernels = stored[DIGEST:]
        return kernels if stored[:DIGEST] == self._digest(kernels) else b""

    def _digest(self, kernels: bytes) -> bytes:
        return hashlib.sha256(self._engine + kernels).digest()
