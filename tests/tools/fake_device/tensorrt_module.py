"""``tensorrt`` on the fake GPU: the calls that run an engine, which onnxruntime executes."""

from __future__ import annotations

import enum
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from maskring.runtime.backends.onnxrt.integer_encoder import fold_relu_into_quantize
from maskring.runtime.backends.onnxrt.session import open_session

from .engines import PROFILE
from .gpu import ALIGNMENT, FakeGpu

LAYERS = {"encoder": 2.0, "memory read": 3.0, "argmax": 0.5}
"""Milliseconds that the fake reports for each execution with a profiler."""


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    FLOAT = onnx.TensorProto.FLOAT
    HALF = onnx.TensorProto.FLOAT16
    INT32 = onnx.TensorProto.INT32
    UINT8 = onnx.TensorProto.UINT8


class Specialization(enum.Enum):
    """When TensorRT-RTX compiles kernels for shapes that it has not seen."""

    LAZY = 0
    EAGER = 1


Specialization.__name__ = "DynamicShapesKernelSpecializationStrategy"

NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT32: np.int32,
    DataType.UINT8: np.uint8,
}


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


def tensorrt_module(gpu: FakeGpu, version: str, rtx: bool) -> ModuleType:
    """The module ``tensorrt``, or ``tensorrt_rtx``."""
    module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    registry = SimpleNamespace(all_creators=[], load_library=lambda path: None)
    module.get_plugin_registry = lambda: registry  # type: ignore[attr-defined]
    for kind in (TensorIOMode, DataType, ILogger, IProfiler, *_classes(gpu, rtx)):
        setattr(module, kind.__name__, kind)
    return module


def _classes(gpu: FakeGpu, rtx: bool) -> list[type]:
    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger
            self.engine_host_code_allowed = False
            gpu.alive["runtime"] += 1

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            failing = gpu.called("deserialize_cuda_engine")
            try:
                model = onnx.load_model_from_string(serialized_engine)
                shapes = json.loads(next(p.value for p in model.metadata_props if p.key == PROFILE))
            except (DecodeError, StopIteration):
                failing = True
            if failing:
                self._logger.log(ILogger.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magic tag")
                self._logger.log(ILogger.ERROR, "a consequence of the first error")
                return None
            return ICudaEngine(self._logger, model, shapes)

        def __del__(self) -> None:
            gpu.dropped("runtime")

    class ICudaEngine:
        def __init__(self, logger: ILogger, model: Any, shapes: dict[str, Any]) -> None:
            gpu.alive["engine"] += 1
            self.logger, self.shapes = logger, shapes
            graph = model.graph
            self.tensors = {tensor.name: tensor for tensor in (*graph.input, *graph.output)}
            self.inputs = [tensor.name for tensor in graph.input]
            self.session = None if gpu.no_op else open_session(fold_relu_into_quantize(model), 1)
            self.stride = -(-shapes["frame"][2][1] // shapes["memory_keys"][2][3])

        @property
        def num_io_tensors(self) -> int:
            return len(self.tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self.tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType(self.tensors[name].type.tensor_type.elem_type)

        def create_execution_context(self) -> IExecutionContext | None:
            return self._new_context(IRuntimeConfig())

        def _new_context(self, config: IRuntimeConfig) -> IExecutionContext | None:
            if gpu.called("create_execution_context"):
                self.logger.log(ILogger.ERROR, "Error Code 2: OutOfMemory (no further information)")
                return None
            return IExecutionContext(self, config)

        def __del__(self) -> None:
            gpu.dropped("engine")

    class IRuntimeCache:
        """Names the shapes for which kernels are compiled."""

        def __init__(self) -> None:
            self._kernels: list[str] = []

        def serialize(self) -> bytes:
            return json.dumps(self._kernels).encode()

        def deserialize(self, blob: bytes) -> bool:
            if gpu.called("deserialize"):
                return False
            self._kernels[:] = json.loads(blob)
            return True

        def _compile(self, shapes: dict[str, tuple[int, ...]]) -> None:
            kernel = json.dumps(shapes)
            if kernel not in self._kernels:
                gpu.compiled += 1
                self._kernels.append(kernel)

    class IRuntimeConfig:
        dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        _cache: IRuntimeCache | None = None

        def create_runtime_cache(self) -> IRuntimeCache | None:
            return None if gpu.called("create_runtime_cache") else IRuntimeCache()

        def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
            self._cache = cache
            return True

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
            gpu.alive["execution context"] += 1
            self._engine = engine
            self._config = config
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            self._settled = False
            self.profiler: IProfiler | None = None

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            smallest, _, largest = self._engine.shapes[name]
            fits = len(shape) == len(smallest) and all(
                low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
            )
            if gpu.called("set_input_shape") or not fits:
                self._engine.logger.log(ILogger.ERROR, f"setInputShape: {name} does not satisfy the profile")
                return False
            self._settled = self._settled and self._shapes.get(name) == shape
            self._shapes[name] = shape
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if gpu.called("set_tensor_address") or name not in self._engine.tensors or memory % ALIGNMENT:
                self._engine.logger.log(ILogger.ERROR, f"setTensorAddress: {name}: misaligned or unknown")
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            stream = gpu.streams[stream_handle]
            missing = set(self._engine.tensors) - set(self._addresses)
            unsettled = stream.captured is not None and not self._settled
            if gpu.called("execute_async_v3") or missing or unsettled or gpu.broken:
                stream.capture_is_valid = False
                call = gpu.calls["execute_async_v3"]
                self._engine.logger.log(ILogger.ERROR, f"enqueueV3: call {call} failed {sorted(missing)}")
                return False
            self._settled = True
            if self._config._cache is not None:
                self._config._cache._compile(self._shapes)
            compiles_later = self._config.dynamic_shapes_kernel_specialization_strategy is Specialization.LAZY
            gpu.slow_graphs += rtx and compiles_later and stream.captured is not None
            addresses, shapes = dict(self._addresses), self._all_shapes()

            if self.profiler is not None:
                for layer, milliseconds in LAYERS.items():
                    self.profiler.report_layer_time(layer, milliseconds)

            def execute() -> None:
                gpu.executions += 1
                if self._engine.session is not None:
                    self._execute(addresses, shapes)

            gpu.give(stream, execute)
            return True

        def _all_shapes(self) -> dict[str, tuple[int, ...]]:
            _, height, width, _ = self._shapes["frame"]
            _, _, channels, *grid = self._shapes["memory_keys"]
            labels = self._shapes["memory_values"][2]
            return self._shapes | {
                "labels": (1, height, width),
                "probabilities": (1, labels, *grid),
                "value": (1, labels, *grid),
                "key": (1, channels, *grid),
            }

        def _execute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
            binding = onnxruntime.IOBinding(self._engine.session)
            for name, address in addresses.items():
                kind, shape = NUMPY[self._engine.get_tensor_dtype(name)], shapes[name]
                memory = gpu.memory_at(address, int(np.prod(shape)) * np.dtype(kind).itemsize)
                if gpu.scribbles and name not in self._engine.inputs:
                    memory[:] = 0xFF  # in floats, no number
                bind = binding.bind_input if name in self._engine.inputs else binding.bind_output
                bind(name, "cpu", 0, kind, shape, address)
            self._engine.session.run_with_iobinding(binding)

        def __del__(self) -> None:
            gpu.dropped("execution context")

    if rtx:

        def create_runtime_config(self: ICudaEngine) -> IRuntimeConfig | None:
            return None if gpu.called("create_runtime_config") else IRuntimeConfig()

        def create_execution_context(
            self: ICudaEngine, runtime_config: IRuntimeConfig
        ) -> IExecutionContext | None:
            return self._new_context(runtime_config)

        def is_stream_capturable(self: IExecutionContext, stream: int) -> bool:
            return not gpu.called("is_stream_capturable")

        ICudaEngine.create_execution_context = create_execution_context  # type: ignore[assignment,method-assign]
        ICudaEngine.create_runtime_config = create_runtime_config  # type: ignore[attr-defined]
        IExecutionContext.is_stream_capturable = is_stream_capturable  # type: ignore[attr-defined]
        return [Runtime, ICudaEngine, IExecutionContext, IRuntimeCache, IRuntimeConfig, Specialization]
    return [Runtime, ICudaEngine, IExecutionContext]
