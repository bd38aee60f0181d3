"""The Python module of TensorRT or TensorRT-RTX, polygraphy set to it, and the one logger of the process."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from ....common.errors import UnavailableError
from ....common.libraries import import_failure
from ...model.engine_file import TENSORRT, TENSORRT_RTX

INSTALL = {
    TENSORRT: "run pip install 'maskring[gpu]', or use the TensorRT that JetPack brings (python -m venv "
    "--system-site-packages sees it)",
    TENSORRT_RTX: "run pip install 'maskring[rtx]'",
}
"""How to get each runtime."""

OLDEST, NEWEST = (10, 3), (11, 99)
"""Versions of TensorRT that build strongly typed networks, take the plugin and have the same calls."""

_MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}

_ERRORS_REMEMBERED = 16


def import_tensorrt(runtime: str) -> Any:
    """Import the Python module of a runtime.

    Args:
        runtime: one of :data:`maskring.runtime.model.engine_file.RUNTIMES`.

    Raises:
        UnavailableError: when it is not installed, lacks a system library, or its TensorRT is too old or new.
    """
    for name in _MODULES[runtime]:
        try:
            trt = import_module(name)
            break
        except ImportError as error:
            if failure := import_failure(error):
                raise failure from error
    else:
        raise UnavailableError(f"the Python module of {runtime} cannot be imported", INSTALL[runtime])
    version = tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2])
    if runtime == TENSORRT and not OLDEST <= version <= NEWEST:
        raise UnavailableError(
            f"TensorRT {trt.__version__} is installed, and maskring needs 10.3 to 11", INSTALL[runtime]
        )
    return trt


def load_for_polygraphy(runtime: str) -> Any:
    """Import the TensorRT module of a runtime and make polygraphy use it.

    Raises:
        UnavailableError: when TensorRT or polygraphy is not installed, TensorRT is too old or too new, or
            polygraphy already uses the other runtime in this process.
    """
    trt = import_tensorrt(runtime)
    try:
        config: Any = import_module("polygraphy.config")
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", "run pip install polygraphy") from error
    rtx = runtime == TENSORRT_RTX
    if "polygraphy.backend.trt" in sys.modules and rtx != config.USE_TENSORRT_RTX:
        raise UnavailableError(
            "this process has already built or profiled engines of the other TensorRT",
            "use one process per runtime",
        )
    if rtx:
        # Polygraphy imports this name; the bindings package has the same module under another one.
        sys.modules.setdefault("tensorrt_rtx", trt)
    config.USE_TENSORRT_RTX = rtx
    return trt


@cache
def tensorrt_logger(trt: Any) -> Any:
    """The logger of this process: TensorRT keeps the first one that it is given, so there must be one alone.

    Attributes of the logger:
        errors: the latest errors, oldest first; clear it before a call whose errors matter.
        listener: called with each message and whether it is an error; None for nobody.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_ERRORS_REMEMBERED)
            self.listener: Callable[[str, bool], None] | None = None

        def log(self, severity: Any, msg: str) -> None:
            is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            if is_error:
                self.errors.append(msg)
            if self.listener is not None:
                self.listener(msg, is_error)

    return Logger()
