"""Finds the operator library for onnxruntime."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from ..common.errors import UnavailableError
from .library import installed_library

LIBRARY_VARIABLE = "MASKRING_ONNXRUNTIME_LIBRARY"
"""Environment variable with the path of a library to use instead of the installed one."""

LIBRARY_NAME = "libmaskring_onnxruntime.so"

THREADS_ENTRY = "maskring.threads"
"""Entry of a session's options with the threads of the CPU kernel, set before the library is registered.

The default is all cores that the process may use. The threads are the session's, so more than it has are of no use."""


def onnxruntime_library() -> Path:
    """The path of the library that gives onnxruntime 1.17 or newer a kernel for ``maskring::WindowedAffinity``.

    ``session_options.register_custom_ops_library(str(onnxruntime_library()))`` is all that a program needs.

    Raises:
        UnavailableError: if the library was not built, or ``MASKRING_ONNXRUNTIME_LIBRARY`` names no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        if not Path(override).is_file():
            raise UnavailableError(
                f"{LIBRARY_VARIABLE} is {override}, which does not exist",
                f"build the library (docs/onnxruntime.md) or unset {LIBRARY_VARIABLE}",
            )
        return Path(override).resolve()
    if (path := installed_library(LIBRARY_NAME)) is not None:
        return path
    raise UnavailableError(
        "this installation of maskring does not include the operator library for onnxruntime",
        f"reinstall maskring with a C++20 compiler, or set {LIBRARY_VARIABLE} to the path of the library",
    )


def has_cuda(library: Path) -> bool:
    """Whether the library also has the kernels of onnxruntime's CUDA provider.

    Raises:
        UnavailableError: if the file is not maskring's operator library for this machine.
    """
    try:
        return bool(ctypes.CDLL(str(library)).maskring_onnxruntime_has_cuda())
    except (OSError, AttributeError) as error:
        raise UnavailableError(
            f"{library} is not an operator library for this machine ({error})",
            "reinstall maskring from source on this machine",
        ) from error
