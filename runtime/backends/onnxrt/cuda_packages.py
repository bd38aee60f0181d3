"""Which of onnxruntime's packages are installed; asked without importing any."""

from __future__ import annotations

import contextlib
from importlib import metadata

INSTALL = "run pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
"""From an environment with the CPU's onnxruntime, and from one where both overwrote each other."""


def installed_packages() -> dict[str, str]:
    """Versions of onnxruntime's distributions; with two, the files of one have overwritten those of the other."""
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
