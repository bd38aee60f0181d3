"""Finds the TensorRT plugin library and registers it with TensorRT."""

from __future__ import annotations

import ctypes
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..common.errors import UnavailableError

LIBRARY_VARIABLE = "MASKRING_PLUGINS_LIBRARY"
"""Environment variable with the path of a library to use instead of the installed one."""

LIBRARY_NAME = "libmaskring_plugins.so"

PLUGIN = ("WindowedAffinity", "1", "maskring")
"""Name, version and namespace of the plugin in TensorRT's registry."""

_MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_rtx")


def library_path() -> Path:
    """The path of the plugin library: ``MASKRING_PLUGINS_LIBRARY`` if set, else the installed one.

    Raises:
        UnavailableError: if the library was not built, or the variable names no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        if not Path(override).is_file():
            raise UnavailableError(
                f"{LIBRARY_VARIABLE} is {override}, which does not exist",
                f"build the library (docs/plugin.md) or unset {LIBRARY_VARIABLE}",
            )
        return Path(override).resolve()
    if (path := installed_library(LIBRARY_NAME)) is not None:
        return path
    raise UnavailableError(
        "this installation of maskring does not include the TensorRT plugin",
        "install a CUDA toolkit, set TENSORRT_ROOT to the folder of TensorRT 10.3 or newer and reinstall "
        f"maskring from source (docs/plugin.md), or set {LIBRARY_VARIABLE} to the path of the library",
    )


def installed_library(name: str) -> Path | None:
    """The path of a library that was built with the package; None when it was not built."""
    # In an editable install, the package has one folder for sources and one for built files.
    package = import_module(__package__ or "")
    paths = [Path(folder) / name for folder in package.__path__]
    return next((path.resolve() for path in paths if path.is_file()), None)


def cuda_runtime(library: Path) -> tuple[int, int] | None:
    """The version of the CUDA runtime in a library of maskring, as (13, 0); None without CUDA kernels.

    A driver runs it that knows the same major version or a newer one.
    """
    try:
        version = int(ctypes.CDLL(str(library)).maskring_cuda_runtime())
    except (OSError, AttributeError):
        return None
    return version // 1000, version % 1000 // 10


def load(trt: ModuleType | None = None) -> Path:
    """Register the plugin with TensorRT, unless it is registered already.

    Args:
        trt: the TensorRT module: ``tensorrt``, ``tensorrt_lean``, ``tensorrt_rtx`` or one with the same
            interface; None for the first of these that is installed.

    Returns:
        the path of the library.

    Raises:
        UnavailableError: if TensorRT or the library is missing, or the library was built for another major
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
        "pip install 'maskring[gpu]', or use the TensorRT of JetPack",
    )


def _is_registered(registry: Any) -> bool:
    name, version, namespace = PLUGIN
    # get_creator would log an error if there is none of that name.
    return any(
        (getattr(c, "name", ""), getattr(c, "plugin_version", ""), getattr(c, "plugin_namespace", ""))
        == (name, version, namespace)
        for c in registry.all_creators
    )


def _check_version(trt: Any, path: Path) -> None:
    """Refuse a library of another major version, which would crash: TensorRT 11 changed the logger's ABI."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be loaded ({error})", "build the library on this machine (docs/plugin.md)"
        ) from error
    if not hasattr(library, "maskring_tensorrt_major"):
        raise UnavailableError(f"{path} is not maskring's plugin library", f"check {LIBRARY_VARIABLE}")
    built = int(library.maskring_tensorrt_major())
    running = _major_version(trt)
    if built != running:
        raise UnavailableError(
            f"{path} was built for TensorRT {built}, but TensorRT {running} is running",
            f"build it with the headers of TensorRT {running} (docs/plugin.md)",
        )


def _major_version(trt: Any) -> int:
    """The major version whose ABI a module has: TensorRT-RTX has that of 10 up to 1.4, of 11 since 1.5."""
    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    if major > 1:
        return major
    return 11 if minor >= 5 else 10
