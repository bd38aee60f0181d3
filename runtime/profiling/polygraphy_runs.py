"""Times of the bare file with polygraphy's runners: what other people measure of the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from ...common.errors import UnavailableError
from ...common.types import Array
from ...plugins.library import load as load_plugin
from ..backends.onnxrt.session import open_session
from ..backends.trt.module import load_for_polygraphy
from ..model.engine_file import ENGINE_SUFFIX, read_manifest
from .inputs import NEEDS_POLYGRAPHY
from .report import Latency


def time_with_polygraphy(model: Path, feeds: dict[str, Array], iterations: int, threads: int) -> Latency:
    """Time an ``.onnx`` with polygraphy's ``OnnxrtRunner``, an engine with its ``TrtRunner``.

    The memory read of an ``.onnx`` runs in standard operators.

    Raises:
        UnavailableError: when polygraphy is not installed.
    """
    if model.suffix == ENGINE_SUFFIX:
        return time_engine(model, feeds, iterations)
    try:
        from polygraphy.backend.onnxrt import OnnxrtRunner
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", NEEDS_POLYGRAPHY) from error
    graph = onnx.load_model_from_string(model.read_bytes())
    with OnnxrtRunner(lambda: open_session(graph, threads)) as runner:
        return Latency.of(_runs(runner, feeds, iterations))


def time_engine(engine: Path, feeds: dict[str, Array], iterations: int) -> Latency:
    """Time an engine with polygraphy's ``TrtRunner``.

    Raises:
        ModelError: when the engine's manifest is missing or damaged.
        UnavailableError: when polygraphy, TensorRT, the plugin or a GPU is missing, or TensorRT fails.
    """
    key = read_manifest(engine).key
    trt = load_for_polygraphy(key.runtime)
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner
    from polygraphy.exception import PolygraphyException

    if key.plugin_sha256:
        load_plugin(trt)
    try:
        with TrtRunner(EngineFromBytes(BytesFromPath(str(engine)))) as runner:
            return Latency.of(_runs(runner, feeds, iterations))
    except (PolygraphyException, TypeError, RuntimeError) as error:
        # The bindings raise nothing more specific where an object could not be made, as when CUDA fails.
        raise UnavailableError(
            f"polygraphy could not run {engine}: {' '.join(str(error).split())[:300].rstrip('. ')}",
            "read TensorRT's messages above, or skip this measurement with --runner-iterations 0",
        ) from error


def _runs(runner: Any, feeds: dict[str, Array], iterations: int) -> Iterator[float]:
    runner.infer(feeds)  # warm-up
    for _ in range(iterations):
        runner.infer(feeds, check_inputs=False)
        yield runner.last_inference_time()
