"""The classes of ``tensorrt`` that polygraphy's loaders use to build an engine."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import onnx
from fake_device.engines import PROFILE
from fake_device.tensorrt_module import DataType, ILogger

from maskring.plugins.windowed_affinity.onnx_function import function_body
from maskring.plugins.windowed_affinity.onnx_op import DOMAIN, OP_TYPE

if TYPE_CHECKING:
    from . import FakeBuilder

PHASES = {"Building Engine": 3, "Tactic Selection": 2}
"""Steps of the outer phase and of the one inside it."""

MEMORY = ("Max Scratch Memory: 4096 bytes", "Total Activation Memory: 8192 bytes")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    """Of TensorRT 11; 10 has ``EXPLICIT_BATCH`` before it."""

    STRONGLY_TYPED = 0


class BuilderFlag(enum.IntEnum):
    TF32 = 0
    VERSION_COMPATIBLE = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class DeviceType(enum.IntEnum):
    GPU = 0
    DLA = 1


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class OldHardwareCompatibilityLevel(enum.IntEnum):
    """Of TensorRT 10.3."""

    NONE = 0
    AMPERE_PLUS = 1


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Memory of TensorRT's; the real one has the buffer interface, as bytes have."""

    @property
    def nbytes(self) -> int:
        return len(self)

    def __enter__(self) -> IHostMemory:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class ITensor:
    __slots__ = ("dtype", "is_shape_tensor", "name", "shape")

    def __init__(self, described: onnx.ValueInfoProto) -> None:
        kind = described.type.tensor_type
        self.name = described.name
        self.dtype = DataType(kind.elem_type)
        self.shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim)
        self.is_shape_tensor = False


class INetworkDefinition:
    __slots__ = ("_flags", "model")

    def __init__(self, flags: int) -> None:
        self._flags, self.model = flags, onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self.model.graph.input[index])

    def get_flag(self, flag: NetworkDefinitionCreationFlag) -> bool:
        return bool(self._flags & 1 << flag)

    def __len__(self) -> int:
        return len(self.model.graph.node)

    def __getitem__(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name=self.model.graph.node[index].name)


class IOptimizationProfile:
    __slots__ = ("shapes",)

    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = [list(min), list(opt), list(max)]

    def __bool__(self) -> bool:
        rows = (zip(*shapes, strict=True) for shapes in self.shapes.values())
        return all(0 < low <= best <= high for extents in rows for low, best, high in extents)


class ITimingCache:
    """Timings of layers on one kind of GPU.

    Attributes:
        device: the kind of GPU.
        layers: digests of the layers that were timed.
    """

    __slots__ = ("device", "layers")

    def __init__(self, device: str, layers: set[str]) -> None:
        self.device, self.layers = device, layers

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps(["timings", self.device, sorted(self.layers)]).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self.layers |= input_cache.layers
        return ignore_mismatch or input_cache.device == self.device


class IBuilderConfig:
    """The settings that polygraphy makes; setting any other name fails."""

    __slots__ = (
        "DLA_core",
        "_cache",
        "_nvidia",
        "builder_optimization_level",
        "default_device_type",
        "flags",
        "hardware_compatibility_level",
        "pools",
        "profiles",
        "profiling_verbosity",
        "progress_monitor",
    )

    def __init__(self, nvidia: FakeBuilder) -> None:
        self._nvidia = nvidia
        self._cache: ITimingCache | None = None
        self.flags = {BuilderFlag.TF32}
        self.profiles: list[IOptimizationProfile] = []
        self.pools: dict[MemoryPoolType, int] = {}
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level: Any = HardwareCompatibilityLevel.NONE
        self.progress_monitor: Any = None
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        assert profile, "polygraphy asks first"
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self.flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self.pools.get(pool, 0)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        """Like the real one, it logs what it cannot read and continues with an empty cache."""
        try:
            kind, device, layers = json.loads(serialized_timing_cache)
            assert kind == "timings"
        except (ValueError, AssertionError):
            if serialized_timing_cache:
                self._nvidia.say(ILogger.WARNING, "Failed to deserialize timing cache.")
            return ITimingCache(self._nvidia.capability, set())
        return ITimingCache(device, set(layers))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.device != self._nvidia.capability and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class OnnxParser:
    """Inlines a node's function body if there is one, and otherwise creates the plugin that it names."""

    __slots__ = ("_errors", "_network", "_nvidia")

    def __init__(self, network: INetworkDefinition, logger: Any, nvidia: FakeBuilder) -> None:
        self._network, self._nvidia, self._errors = network, nvidia, list[str]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> str:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        self._network.model.ParseFromString(model)
        inlined = {(function.domain, function.name) for function in self._network.model.functions}
        for node in self._network.model.graph.node:
            if (node.domain, node.op_type) in inlined:
                self._nvidia.inlined.append(node.op_type)
            elif node.domain:
                named = {a.name: a.s.decode() for a in node.attribute if a.name.startswith("plugin_")}
                asked = (node.op_type, named.get("plugin_version", "1"), named.get("plugin_namespace", ""))
                if asked in self._nvidia.creators():
                    self._nvidia.plugins.append(asked)
                else:
                    self._refuse(f"Plugin not found, are name, version and namespace correct? {asked}")
        if self._nvidia.fails("parse"):
            self._refuse("In node 7 with name: and operator: Conv: UNSUPPORTED_NODE:\n Attribute")
        return not self._errors

    def _refuse(self, message: str) -> None:
        self._errors.append(message)
        self._nvidia.say(ILogger.ERROR, message)


class Builder:
    __slots__ = ("_nvidia",)

    def __init__(self, logger: Any, nvidia: FakeBuilder) -> None:
        self._nvidia = nvidia
        nvidia.logger = logger
        if nvidia.fails("Builder"):
            nvidia.say(ILogger.ERROR, "CUDA initialization failure with error: 35. Please check\nyour setup")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        self._nvidia.network = INetworkDefinition(flags)
        return self._nvidia.network

    def create_builder_config(self) -> IBuilderConfig:
        self._nvidia.config = IBuilderConfig(self._nvidia)
        return self._nvidia.config

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        (profile,) = config.profiles
        if self._nvidia.fails("build_serialized_network"):
            self._nvidia.say(ILogger.ERROR, "Error Code 10: Could not find any implementation")
            return None
        for tensor in network.model.graph.input:
            declared = ITensor(tensor).shape
            for shape in profile.shapes[tensor.name]:
                if any(fixed not in (-1, size) for fixed, size in zip(declared, shape, strict=True)):
                    self._nvidia.say(ILogger.ERROR, f"{tensor.name}: static dimension mismatch in profile")
                    return None
        self._time_layers(network, config)
        if not self._report(config.progress_monitor):
            self._nvidia.say(ILogger.ERROR, "Error Code 1: build was cancelled")
            return None
        for line in MEMORY:
            self._nvidia.say(ILogger.Severity.INFO, line)
        return _engine(network.model, profile)

    def _time_layers(self, network: INetworkDefinition, config: IBuilderConfig) -> None:
        cache = config.get_timing_cache()
        assert cache is not None
        (profile,) = config.profiles
        shapes = json.dumps(profile.shapes).encode()
        for node in network.model.graph.node:
            layer = hashlib.sha256(node.SerializeToString(deterministic=True) + shapes).hexdigest()
            if layer not in cache.layers:
                cache.layers.add(layer)
                self._nvidia.timed += 1

    def _report(self, monitor: IProgressMonitor | None) -> bool:
        """Whether the build may continue to its end."""
        if monitor is None:
            return True
        (outer, steps), (inner, inner_steps) = PHASES.items()
        _called(monitor.phase_start, outer, None, steps)
        for step in range(steps):
            _called(monitor.phase_start, inner, outer, inner_steps)
            for inner_step in range(inner_steps):
                _called(self._nvidia.between_steps)
                if not _called(monitor.step_complete, inner, inner_step):
                    return False
            _called(monitor.phase_finish, inner)
            if not _called(monitor.step_complete, outer, step):
                return False
        _called(monitor.phase_finish, outer)
        return True


def _called(callback: Callable[..., Any], *given: Any) -> Any:
    """A callback's return value. Exceptions are dropped, as NVIDIA's bindings do, because C++ calls it."""
    try:
        return callback(*given)
    except BaseException:
        return False


def _engine(model: onnx.ModelProto, profile: IOptimizationProfile) -> IHostMemory:
    engine = onnx.ModelProto()
    engine.CopyFrom(model)
    for node in engine.graph.node:
        kept = [attribute for attribute in node.attribute if not attribute.name.startswith("plugin_")]
        if (node.domain, node.op_type) == (DOMAIN, OP_TYPE):
            del node.attribute[:]
            node.attribute.extend(kept)
    if not any((function.domain, function.name) == (DOMAIN, OP_TYPE) for function in engine.functions):
        engine.functions.append(function_body())
    engine.metadata_props.append(onnx.StringStringEntryProto(key=PROFILE, value=json.dumps(profile.shapes)))
    return IHostMemory(engine.SerializeToString())
