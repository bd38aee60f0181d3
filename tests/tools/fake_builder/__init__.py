"""A fake of NVIDIA's builder: the calls that polygraphy's loaders make to ``tensorrt`` to build an engine.

polygraphy itself is real. The fake records and checks its requests as TensorRT does. The
"engine" is the model with its profile, which :mod:`fake_device` executes. It cannot run plugins, so the
function body replaces the plugin after the parser has found the plugin in the network.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_device
import pytest
from fake_device import FakeGpu

from maskring.common import machine
from maskring.plugins.library import PLUGIN

from .tensorrt_api import (
    Builder,
    BuilderFlag,
    DeviceType,
    HardwareCompatibilityLevel,
    IBuilderConfig,
    IHostMemory,
    INetworkDefinition,
    IOptimizationProfile,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OldHardwareCompatibilityLevel,
    OnnxParser,
    ProfilingVerbosity,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DeviceType",
    "FakeBuilder",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "IHostMemory",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OldHardwareCompatibilityLevel",
    "OnnxParser",
    "ProfilingVerbosity",
    "nvidia",
    "plugin_library",
]


class FakeBuilder:
    """State that the fakes share, and a record of requests.

    Args:
        version: of TensorRT.
        capability: of the GPU, as ``sm86``.

    Attributes:
        network, config: of the latest build.
        plugins: name, version and namespace of each that the parser made.
        inlined: operators whose function body the parser inlined.
        libraries: that were loaded into the plugin registry.
        timed: layers that no timing cache contained.
        between_steps: called during a build.
    """

    def __init__(self, version: str, capability: str) -> None:
        self.version, self.capability = version, capability
        self.network: Any = None
        self.config: Any = None
        self.logger: Any = None
        self.plugins: list[tuple[str, str, str]] = []
        self.inlined: list[str] = []
        self.libraries: list[str] = []
        self.timed = 0
        self.registers = True
        self.between_steps = lambda: None
        self.calls: Counter[str] = Counter()
        self._failing: set[str] = set()

    def fail(self, call: str) -> None:
        """Let every call of this name fail."""
        self._failing.add(call)

    def fails(self, call: str) -> bool:
        self.calls[call] += 1
        return call in self._failing

    def say(self, severity: Any, message: str) -> None:
        """Write to the logger that the builder was created with."""
        self.logger.log(severity, message)

    def creators(self) -> set[tuple[str, str, str]]:
        """Plugins in the registry."""
        return {PLUGIN} if self.libraries and self.registers else set()

    def put_into(self, module: ModuleType) -> None:
        """Add the builder's classes to ``module``."""

        class BoundBuilder(Builder):
            def __init__(builder, logger: Any) -> None:
                super().__init__(logger, self)

        class BoundParser(OnnxParser):
            def __init__(parser, network: INetworkDefinition, logger: Any) -> None:
                super().__init__(network, logger, self)

        fakes = (NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType, ProfilingVerbosity, DeviceType)
        levels = OldHardwareCompatibilityLevel if self.version == "10.3.0" else HardwareCompatibilityLevel
        contents = {kind.__name__: kind for kind in (*fakes, IProgressMonitor)}
        contents |= {"Builder": BoundBuilder, "OnnxParser": BoundParser, "HardwareCompatibilityLevel": levels}
        contents |= {"init_libnvinfer_plugins": lambda logger, namespace: True}
        registry = _Registry(self)
        vars(module).update(contents, get_plugin_registry=lambda: registry, __version__=self.version)


class _Registry:
    def __init__(self, nvidia: FakeBuilder) -> None:
        self._nvidia = nvidia

    @property
    def all_creators(self) -> list[Any]:
        keys = ("name", "plugin_version", "plugin_namespace")
        found = [dict(zip(keys, creator, strict=True)) for creator in self._nvidia.creators()]
        return [SimpleNamespace(name="ours has a namespace"), *(SimpleNamespace(**one) for one in found)]

    def load_library(self, plugin_path: str) -> object | None:
        if self._nvidia.fails("load_library"):
            return None
        self._nvidia.libraries.append(plugin_path)
        return object()


class _Driver:
    """``libcuda``, which a build asks for the GPU's compute capability only."""

    def __init__(self, capability: str) -> None:
        major, minor = divmod(int(capability.removeprefix("sm")), 10)
        self._values = {75: major, 76: minor}

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self._values[attribute]
        return 0

    def cuGetErrorString(self, error: int, text: Any) -> int:
        text._obj.value = {100: b"no CUDA-capable device is detected"}[error]
        return 0


@contextmanager
def nvidia(version: str = "11.1.0", capability: str = "sm86") -> Iterator[FakeBuilder]:
    """A machine with TensorRT and a GPU to build on. Built engines run on the :mod:`fake_device`. polygraphy
    is imported again inside the block, because it keeps the TensorRT that it was imported with.
    """
    major, minor = divmod(int(capability.removeprefix("sm")), 10)
    fake = FakeBuilder(version, capability)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "polygraphy"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            fake.put_into(fake_device.install(patch, FakeGpu(capability=(major, minor)), version))
            patch.setattr(machine, "cuda_driver", lambda: _Driver(capability))
            yield fake
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "polygraphy"]:
            del sys.modules[name]
        sys.modules.update(kept)


def plugin_library(path: Path, major: int = 11, variant: str = "") -> Path:
    """A library in place of the plugin that states which TensorRT it was built for; ``variant`` changes its
    bytes."""
    source = f'extern "C" int maskring_tensorrt_major() {{ return {major}; }} char variant[] = "{variant}";'
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True, timeout=1800)
    return path
