"""TensorRT's builder and ONNX parser through polygraphy's loaders, with what they say kept for the user."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ..plugins.errors import ModelError, UnavailableError
from ..runtime.engine_file import ANY_AMPERE, INSTALL, TENSORRT_RTX, EngineKey, import_tensorrt

Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, the steps of it that are done, and all its steps."""

_MEMORY = {
    "scratch": r"Max Scratch Memory: (\d+) bytes",
    "activation": r"Total Activation Memory: (\d+) bytes",
    "weights": r"Total Weights Memory: (\d+) bytes",
}


@dataclass
class BuildLog:
    """What TensorRT said during one build.

    Attributes:
        errors: its errors, first one first.
        memory: bytes by name, see :attr:`maskring.runtime.engine_file.EngineManifest.memory`.
    """

    errors: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)

    def hear(self, message: str, is_error: bool) -> None:
        """Keep what matters of a message."""
        if is_error:
            self.errors.append(message)
        for name, pattern in _MEMORY.items():
            if found := re.search(pattern, message):
                self.memory[name] = max(self.memory.get(name, 0), int(found.group(1)))

    def reason(self, otherwise: object) -> str:
        """The first error, on one line: the later ones follow from it."""
        text = " ".join((self.errors or [str(otherwise)])[0].split())
        return text[:300].rstrip(". ")


def load_tensorrt(runtime: str) -> Any:
    """The TensorRT module of ``runtime``, with polygraphy set to it.

    Raises:
        UnavailableError: when TensorRT or polygraphy is not installed, is too old or too new, or when this
            process has built for the other runtime.
    """
    trt = import_tensorrt(runtime)
    try:
        config: Any = import_module("polygraphy.config")
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", INSTALL[runtime]) from error
    rtx = runtime == TENSORRT_RTX
    if "polygraphy.backend.trt" in sys.modules and rtx != config.USE_TENSORRT_RTX:
        raise UnavailableError(
            "this process has already built or profiled engines of the other TensorRT",
            "build each runtime's engines in a process of their own",
        )
    if rtx:
        sys.modules.setdefault(
            "tensorrt_rtx", trt
        )  # the bindings alone bring the same module by another name
    config.USE_TENSORRT_RTX = rtx
    return trt


def build(
    trt: Any, onnx_bytes: bytes, key: EngineKey, timing_cache: Path | None, progress: Progress | None
) -> tuple[bytes, BuildLog]:
    """Parse and build, strongly typed, with one optimization profile.

    Args:
        trt: the module from :func:`load_tensorrt`.
        onnx_bytes: the model as the parser shall see it.
        key: shapes and options.
        timing_cache: file with timings of earlier builds, read and added to.
        progress: told of the build's phases.

    Returns:
        the serialized engine and what TensorRT said.

    Raises:
        ModelError: with TensorRT's words when it refuses the model.
        KeyboardInterrupt: when the user interrupted the build.
    """
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes
    from polygraphy.exception import PolygraphyException

    monitor = _monitor(trt, progress)
    with _listening(trt) as log:
        try:
            network = NetworkFromOnnxBytes(onnx_bytes, strongly_typed=True)
            engine = EngineBytesFromNetwork(
                network, _config(trt, key, timing_cache, monitor), save_timing_cache=_text(timing_cache)
            )()
        except PolygraphyException as error:
            if monitor.interrupted:
                raise KeyboardInterrupt from error
            raise ModelError(
                f"{key.runtime} {key.tensorrt_version} could not build the engine: {log.reason(error)}",
                "change what it names, and export the model again where that is the model's",
            ) from error
        return bytes(engine), log


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _config(trt: Any, key: EngineKey, timing_cache: Path | None, monitor: Any) -> Any:
    from polygraphy.backend.trt import Profile

    profile = Profile()
    for name, (smallest, best, largest) in key.shapes.items():
        profile.add(name, min=tuple(smallest), opt=tuple(best), max=tuple(largest))
    options: dict[str, Any] = {
        "profiles": [profile],
        "progress_monitor": monitor,
        "builder_optimization_level": key.optimization_level,
    }
    if key.workspace_mb is not None:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: key.workspace_mb << 20}
    if key.runtime == TENSORRT_RTX:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        targets = [divmod(int(name.removeprefix("sm")), 10) for name in key.compute_capability]
        return CreateConfigRTX(compute_capabilities=targets, **options)
    from polygraphy.backend.trt import CreateConfig

    if key.hardware_compatibility:
        level = "AMPERE_PLUS" if key.hardware_compatibility == ANY_AMPERE else "SAME_COMPUTE_CAPABILITY"
        options["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, level)
    return CreateConfig(
        load_timing_cache=_text(timing_cache if timing_cache and timing_cache.is_file() else None),
        version_compatible=key.version_compatible,
        **options,
    )


def _monitor(trt: Any, progress: Progress | None) -> Any:
    """A progress monitor; Ctrl-C ends the build between two of its steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.get(phase_name, 0))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not self.interrupted

        def _tell(self, phase: str, done: int) -> None:
            # TensorRT calls from C++, where no exception may arrive.
            try:
                if progress is not None:
                    progress(phase, done, self._steps.get(phase, 0))
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()


@contextlib.contextmanager
def _listening(trt: Any) -> Iterator[BuildLog]:
    """Collect what TensorRT logs; keep polygraphy off the terminal.

    TensorRT keeps the first logger of a process for good, so there is one, and it speaks to whoever listens.
    """
    from polygraphy.backend.trt import util
    from polygraphy.logger import G_LOGGER

    log = BuildLog()
    _logger(trt, util).listener = log
    severity = G_LOGGER.module_severity
    G_LOGGER.module_severity = G_LOGGER.CRITICAL + 1
    try:
        yield log
    finally:
        G_LOGGER.module_severity = severity
        util.TRT_LOGGER.listener = None


def _logger(trt: Any, util: Any) -> Any:
    if hasattr(util.TRT_LOGGER, "listener"):
        return util.TRT_LOGGER

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listener: BuildLog | None = None

        def log(self, severity: Any, msg: str) -> None:
            if self.listener is not None:
                self.listener.hear(msg, severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR))

    util.TRT_LOGGER = Logger()
    return util.TRT_LOGGER
