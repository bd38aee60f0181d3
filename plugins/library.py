"""The TensorRT plugin library: where it is, and how TensorRT gets to know it."""

from __future__ import annotations

import ctypes
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..common.errors import UnavailableError

LIBRARY_VARIABLE = "MASKRING_PLUGINS_LIBRARY"
"""Environment variable that names the library to use instead of the one beside the package."""

LIBRARY_NAME = "libmaskring_plugins.so"

PLUGIN = ("WindowedAffinity", "1", "maskring")
"""Name, version and namespace under which TensorRT's registry lists the plugin."""

_MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_rtx")


def library_path() -> Path:
    """The plugin library: what ``MASKRING_PLUGINS_LIBRARY`` names, else what was built with the package.

    Raises:
        UnavailableError: when it was not built, or is not where the variable says.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UnavailableError(
                f"{LIBRARY_VARIABLE} names {named}, and there is no such file",
                f"build the library (docs/plugin.md) or unset {LIBRARY_VARIABLE}",
            )
        return Path(named).resolve()
    # An editable install keeps built files apart from the sources: both folders belong to the package.
    package = import_module(__package__ or "")
    for folder in package.__path__:
        path = Path(folder) / LIBRARY_NAME
        if path.is_file():
            return path.resolve()
    raise UnavailableError(
        "the TensorRT plugin was not built with this installation",
        "install a CUDA toolkit, set TENSORRT_ROOT to the folder of TensorRT 10.3 or newer and install "
        f"maskring from source again (docs/plugin.md), or name a library of yours in {LIBRARY_VARIABLE}",
    )


def load(trt: ModuleType | None = None) -> Path:
    """Register the plugin in TensorRT's registry, once per process and module; returns the library's path.

    Args:
        trt: the TensorRT module to use: ``tensorrt``, ``tensorrt_lean``, ``tensorrt_rtx`` or one with the
            same interface; None takes the first of these that is installed.

    Raises:
        UnavailableError: when TensorRT or the library is missing, or the library was built for another major
            version of TensorRT or for another machine.
    """
    trt = trt or _installed_tensorrt()
    path = library_path()
    registry = trt.get_plugin_registry()
    if _is_registered(registry):
        return path
    _check_version(trt, path)
    if registry.load_library(str(path)) is None or not _is_registered(registry):
        raise UnavailableError(
            f"TensorRT {trt.__version__} could not load {path}",
            "read TensorRT's log for the reason, and build the library for this TensorRT (docs/plugin.md)",
        )
    return path


def _installed_tensorrt() -> Any:
    for name in _MODULES:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UnavailableError(
        f"none of the Python modules {', '.join(_MODULES)} can be imported",
        "pip install 'maskring[gpu]', or use the TensorRT that JetPack brings",
    )


def _is_registered(registry: Any) -> bool:
    name, version, namespace = PLUGIN
    # Asking for one creator by name logs an error where there is none.
    return any(
        (getattr(c, "name", ""), getattr(c, "plugin_version", ""), getattr(c, "plugin_namespace", ""))
        == (name, version, namespace)
        for c in registry.all_creators
    )


def _check_version(trt: Any, path: Path) -> None:
    """TensorRT 11 changed the binary interface of loggers: a library of another major version would crash."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be loaded ({error})", "build the library on this machine (docs/plugin.md)"
        ) from error
    if not hasattr(library, "maskring_tensorrt_major"):
        raise UnavailableError(f"{path} is not a plugin library of maskring", f"check {LIBRARY_VARIABLE}")
    built = int(library.maskring_tensorrt_major())
    running = _major_version(trt)
    if built != running:
        raise UnavailableError(
            f"{path} was built for TensorRT {built} and TensorRT {running} is running",
            f"build it with the headers of TensorRT {running} (docs/plugin.md)",
        )


def _major_version(trt: Any) -> int:
    """TensorRT-RTX counts by itself: its loggers are those of TensorRT 10 in 1.4, of 11 from 1.5 on."""
    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    if major > 1:
        return major
    return 11 if minor >= 5 else 10
