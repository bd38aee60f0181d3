"""Calls of NVIDIA's driver that pycuda does not have, and what failing ones raise."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ....common.errors import UnavailableError
from ....common.machine import NEEDS_PYCUDA, driver_words


class DriverError(Exception):
    """A call of the driver that goes past pycuda failed; the message says which one and why."""


class GraphError(DriverError):
    """The driver could not capture a CUDA graph."""


def check_call(library: Any, name: str, *arguments: Any, kind: type[DriverError] = DriverError) -> None:
    """Call the driver; an error code becomes an exception with the driver's message."""
    result = getattr(library, name)(*arguments)
    if result:
        raise kind(f"{name} failed: {driver_words(library, result)}")


def error_text(error: Exception) -> str:
    """An error's message on one line, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__


def import_pycuda() -> Any:
    """The module ``pycuda.driver``.

    Raises:
        UnavailableError: when it is not installed, or finds no driver.
    """
    try:
        return import_module("pycuda.driver")
    except ImportError as error:
        raise UnavailableError(
            f"engines run through pycuda, which cannot be imported ({error_text(error)})",
            f"{NEEDS_PYCUDA}, or give an .onnx as the model",
        ) from error
