"""TensorRT's ONNX parser and builder, through polygraphy's loaders; their messages become errors."""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..common.errors import ModelError, UnavailableError
from ..common.files import atomic_path
from ..common.interrupts import signals_to_handle
from ..runtime.backends.trt.module import tensorrt_logger
from ..runtime.model.engine_file import HARDWARE_COMPATIBILITY, TENSORRT_RTX, EngineKey
from ..runtime.pipeline.progress import Progress

_MEMORY = {
    "scratch": r"Max Scratch Memory: (\d+) bytes",
    "activation": r"Total Activation Memory: (\d+) bytes",
    "weights": r"Total Weights Memory: (\d+) bytes",
}


@dataclass
class BuildLog:
    """What TensorRT logged during one build.

    Attributes:
        errors: its errors in order.
        memory: bytes by name, see :attr:`maskring.runtime.model.engine_file.EngineManifest.memory`.
    """

    errors: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)

    def add(self, message: str, is_error: bool) -> None:
        """Record an error, and the memory that a message reports."""
        if is_error:
            self.errors.append(message)
        for name, pattern in _MEMORY.items():
            if match := re.search(pattern, message):
                self.memory[name] = max(self.memory.get(name, 0), int(match.group(1)))

    def first_error(self, default: object) -> str:
        """The first error on one line, because later ones follow from it; ``default`` if there is none."""
        text = " ".join((self.errors or [str(default)])[0].split())
        return text[:300].rstrip(". ")


def build(
    trt: Any, onnx_bytes: bytes, key: EngineKey, timing_cache: Path | None, progress: Progress
) -> tuple[bytes, BuildLog]:
    """Parse and build a strongly typed engine with one optimization profile.

    Args:
        trt: the module from :func:`maskring.runtime.backends.trt.module.load_for_polygraphy`.
        onnx_bytes: the model for the parser.
        key: shapes and options.
        timing_cache: file with timings of earlier builds, which is read and extended.
        progress: called with each phase of the build, its steps that are done, and their number.

    Returns:
        The serialized engine and what TensorRT logged.

    Raises:
        ModelError: when TensorRT refuses the model, with its own message; or when the timing cache does not
        fit.
        UnavailableError: when this TensorRT does not support an option.
        OutputError: when the timing cache cannot be written.
        KeyboardInterrupt: when the user interrupted the build.
    """
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes
    from polygraphy.exception import PolygraphyException

    monitor = _monitor(trt, progress)
    with (
        _listening(trt) as log,
        _interrupts(monitor),
        _timings(timing_cache) as timings,
        tempfile.TemporaryFile() as new_timings,
    ):
        try:
            network = NetworkFromOnnxBytes(onnx_bytes, strongly_typed=True)
            config = _config(trt, key, timings, monitor)
            # Open files instead of names, because polygraphy would leave lock files next to named ones.
            save = None if timing_cache is None else new_timings
            engine = EngineBytesFromNetwork(network, config, save_timing_cache=save)()
        except (PolygraphyException, TypeError, RuntimeError) as error:
            # TypeError: the bindings raise it when a builder cannot be created, for example without CUDA.
            if monitor.interrupted:
                raise KeyboardInterrupt from error
            raise ModelError(
                f"{key.runtime} {key.tensorrt_version} could not build the engine: {log.first_error(error)}",
                "change what the message names; if that is part of the model, export it again",
            ) from error
        if monitor.interrupted:
            raise KeyboardInterrupt
        if timing_cache is not None:
            new_timings.seek(0)
            with atomic_path(timing_cache) as partial:
                partial.write_bytes(new_timings.read())
        return bytes(engine), log


def _timings(timing_cache: Path | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    """The open file with timings of earlier builds; None when there is none yet."""
    if timing_cache is None or not timing_cache.exists():
        return contextlib.nullcontext()
    try:
        return timing_cache.open("rb")
    except OSError as error:
        raise ModelError(
            f"the timing cache {timing_cache} cannot be read ({error.strerror})", "check the path"
        ) from error


def _config(trt: Any, key: EngineKey, timings: BinaryIO | None, monitor: Any) -> Any:
    from polygraphy.backend.trt import PostprocessConfig, Profile

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
        return PostprocessConfig(
            CreateConfigRTX(compute_capabilities=targets, **options),
            lambda builder, network, config: _set_flags(trt, config),
        )
    from polygraphy.backend.trt import CreateConfig

    config = CreateConfig(
        load_timing_cache=timings,
        version_compatible=key.version_compatible,
        hardware_compatibility_level=_hardware_compatibility(trt, key.hardware_compatibility),
        **options,
    )
    return PostprocessConfig(config, lambda builder, network, config: _require_cache_used(config, timings))


def _set_flags(trt: Any, config: Any) -> None:
    """Set the flags of TensorRT-RTX that polygraphy has no option for."""
    config.clear_flag(trt.BuilderFlag.TF32)
    # Otherwise an engine with large tensors may allocate during execution, which CUDA graphs cannot capture.
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


def _hardware_compatibility(trt: Any, asked: str) -> Any:
    """TensorRT's value for the option, None when it is empty."""
    if not asked:
        return None
    name = asked.upper().replace("-", "_")
    level = getattr(trt.HardwareCompatibilityLevel, name, None)
    if level is None:
        others = [name for name in HARDWARE_COMPATIBILITY if name != asked]
        raise UnavailableError(
            f"TensorRT {trt.__version__} does not support the hardware compatibility {asked}",
            f"choose {' or '.join(others)}, or leave --hardware-compatibility out",
        )
    return level


def _require_cache_used(config: Any, timings: BinaryIO | None) -> None:
    """Refuse a timing cache that the builder ignored, because it would be overwritten with an empty one.

    TensorRT does not attach the cache of another GPU model, and turns bytes that it cannot read into an empty
    cache.
    """
    if timings is None:
        return
    timings.seek(0)
    stored, attached = timings.read(), config.get_timing_cache()
    empty = bytes(config.create_timing_cache(b"").serialize())
    if attached is None or (bytes(attached.serialize()) == empty != stored):
        raise ModelError(
            f"the timing cache {timings.name} is damaged, or of another GPU or version of TensorRT",
            "give another file with --timing-cache, or delete this one",
        )


def _monitor(trt: Any, progress: Progress) -> Any:
    """A progress monitor. Setting its ``interrupted`` ends the build after the current step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self._steps.get(phase_name, 0))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not self.interrupted

        def _report(self, phase: str, done: int) -> None:
            # TensorRT calls this from C++, which an exception must not reach.
            try:
                progress(phase, done, self._steps.get(phase, 0))
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()


@contextlib.contextmanager
def _interrupts(monitor: Any) -> Iterator[None]:
    """Let a stop signal end the build after its current step; a second one exits immediately.

    Raising in a callback of TensorRT does not work: its bindings print the exception and drop it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals_to_handle()}

    def interrupt(*_: Any) -> None:
        monitor.interrupted = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # None: the handler was not set by Python
                signal.signal(number, handler)

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


@contextlib.contextmanager
def _listening(trt: Any) -> Iterator[BuildLog]:
    """Collect what TensorRT logs; keep polygraphy off the terminal."""
    from polygraphy.backend.trt import util
    from polygraphy.logger import G_LOGGER

    log, logger = BuildLog(), tensorrt_logger(trt)
    util.TRT_LOGGER, logger.listener = logger, log.add
    severity = G_LOGGER.module_severity
    G_LOGGER.module_severity = G_LOGGER.CRITICAL + 1
    try:
        yield log
    finally:
        G_LOGGER.module_severity = severity
        logger.listener = None
