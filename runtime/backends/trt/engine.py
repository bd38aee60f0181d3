"""A TensorRT engine and its execution context: shapes, addresses, execution, TensorRT's error messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....common.errors import ModelError, UnavailableError
from ...model.engine_file import BUILD_AGAIN, EngineManifest
from ...model.tensor_names import DILATION, FRAME, INPUTS, LABELS, OUTPUTS
from .kernel_cache import KernelCache
from .module import tensorrt_logger

_TYPES = {FRAME: "UINT8", DILATION: "INT32", LABELS: "UINT8"}
_FLOAT_TYPES = {"float32": "FLOAT", "float16": "HALF"}


class Engine:
    """A step graph that TensorRT executes.

    Args:
        trt: the Python module of TensorRT or TensorRT-RTX.
        content: bytes of the engine file.
        manifest: the engine's manifest.
        origin: the engine file, for error messages.

    Raises:
        ModelError: when TensorRT cannot load the engine, or it is not the engine of a step graph.
        UnavailableError: when the GPU has too little memory for it.
    """

    def __init__(self, trt: Any, content: bytes, manifest: EngineManifest, origin: Path) -> None:
        self._log = tensorrt_logger(trt)
        self._log.errors.clear()
        self._origin = origin
        self._trt = trt
        self._profiler: Any = None  # TensorRT keeps no reference to it
        self._runtime: Any = trt.Runtime(self._log)
        self._engine: Any = None
        self._config: Any = None
        self._context: Any = None
        self._kernels: KernelCache | None = None
        try:
            self._load(content, manifest)
        except BaseException:
            # Now: the exception keeps this object alive, and the GPU's context must outlive its contents.
            self.close()
            raise

    def _load(self, content: bytes, manifest: EngineManifest) -> None:
        if manifest.key.version_compatible:
            # Such an engine contains the runtime of the version that built it, as code for the host.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            version = self._trt.__version__
            raise ModelError(f"TensorRT {version} cannot load {self._origin}: {self._reason()}", BUILD_AGAIN)
        self._check_tensors(manifest.metadata.dtype)
        self._context = self._new_context(manifest)
        if self._context is None:
            raise UnavailableError(
                f"TensorRT could not prepare {self._origin} for execution: {self._reason()}",
                "free memory of the GPU, or build the engine for smaller frames",
            )

    def _new_context(self, manifest: EngineManifest) -> Any:
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:
            return self._engine.create_execution_context()
        # TensorRT-RTX compiles kernels for new shapes in the background, and uses slower ones until then. A
        # CUDA graph would keep the slower ones for good: compile now, while the engine is warmed up.
        self._config = self._engine.create_runtime_config()
        if self._config is None:
            return None
        cache = self._config.create_runtime_cache()
        if cache is None:
            return None
        self._kernels = KernelCache(cache, self._origin, manifest.engine_sha256)
        self._config.set_runtime_cache(cache)
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return self._engine.create_execution_context(runtime_config=self._config)

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Set the shapes of all inputs.

        Raises:
            ModelError: when the engine was not built for them.
        """
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise ModelError(
                    f"{self._origin} was not built for {name} of shape {list(shape)}", BUILD_AGAIN
                )

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Set addresses of tensors by name.

        Raises:
            ModelError: when TensorRT rejects an address.
        """
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise ModelError(
                    f"TensorRT rejects the address {address:#x} of {name}: {self._reason()}", BUILD_AGAIN
                )

    def start(self, stream: int) -> None:
        """Start one execution.

        Args:
            stream: handle of the CUDA stream.

        Raises:
            ModelError: when TensorRT could not.
        """
        self._log.errors.clear()
        if not self._context.execute_async_v3(stream):
            raise ModelError(
                f"TensorRT could not execute {self._origin}: {self._reason()}",
                f"give the frame again; if that does not help, {BUILD_AGAIN}",
            )

    def capturable(self, stream: int) -> bool:
        """Whether the work can be captured in a CUDA graph; only TensorRT-RTX can tell."""
        is_capturable = getattr(self._context, "is_stream_capturable", None)
        return is_capturable is None or bool(is_capturable(stream))

    def report_layers(self) -> dict[str, float]:
        """Milliseconds by layer, summed over all executions from now on; each then waits for its end."""
        milliseconds: dict[str, float] = {}

        class Profiler(self._trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self, module: Any) -> None:
                module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                milliseconds[layer_name] = milliseconds.get(layer_name, 0.0) + ms

        self._profiler = Profiler(self._trt)
        self._context.profiler = self._profiler
        return milliseconds

    def save_kernels(self) -> None:
        """Save the kernels that were compiled, for the next run."""
        if self._kernels is not None:
            self._kernels.save()

    def close(self) -> None:
        """Release the engine. Closing twice does nothing."""
        self._context = None
        self._profiler = None
        self._config = None
        self._kernels = None
        self._engine = None
        self._runtime = None

    def _check_tensors(self, dtype: str) -> None:
        """Check that names, directions and types are those of the step graph."""
        expected = {
            name: (way, _TYPES.get(name, _FLOAT_TYPES[dtype]))
            for names, way in ((INPUTS, "INPUT"), (OUTPUTS, "OUTPUT"))
            for name in names
        }
        actual = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            actual[name] = self._engine.get_tensor_mode(name).name, self._engine.get_tensor_dtype(name).name
        if actual != expected:
            wrong = sorted(name for name in {*actual, *expected} if actual.get(name) != expected.get(name))
            raise ModelError(
                f"{self._origin} is not the engine of a step graph (wrong: {', '.join(wrong)})", BUILD_AGAIN
            )

    def _reason(self) -> str:
        """The first error since the latest call began; later ones are its consequences."""
        text = " ".join(next(iter(self._log.errors), "it gives no reason").split())
        return text[:300].rstrip(". ")
