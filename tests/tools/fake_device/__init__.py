"""A fake GPU: the calls that maskring makes to TensorRT, ``cuda.bindings.driver``, ``pycuda.driver`` and the driver.

Device memory is host memory, and an "engine" is the ONNX file, which onnxruntime executes at the addresses
that were bound. Work runs as late as a real GPU may run it: only when the host waits for it. The fake refuses
what a real driver would: work without a current context, addresses that were never allocated or are already
free, unaligned tensors, captures before the first execution with new shapes. Tests can let any call fail, and
read how often each was made and which objects are alive.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from maskring.common import machine
from maskring.runtime.backends.device_frame import DeviceFrame
from maskring.runtime.backends.trt import pycuda_driver as pycuda_of_ours

from .bindings_driver import bindings_driver
from .cuda_library import CudaLibrary
from .engines import write_engine
from .gpu import FakeGpu, FakeStream
from .pycuda_driver import pycuda_driver
from .tensorrt_module import tensorrt_module

__all__ = ["PACKAGES", "FakeGpu", "install", "named", "on_gpu", "stream", "write_engine"]


PACKAGES = ("pycuda", "cuda-bindings")
"""Either calls NVIDIA's driver."""

CALLS = {
    "init": "cuInit",
    "Device": "cuDeviceGet",
    "Device.retain_primary_context": "cuDevicePrimaryCtxRetain",
    "Stream": "cuStreamCreate",
    "Stream.synchronize": "cuStreamSynchronize",
    "memcpy_htod_async": "cuMemcpyHtoDAsync",
    "memcpy_dtoh_async": "cuMemcpyDtoHAsync",
}
"""pycuda's names, under which the fake counts, and those of cuda-bindings."""


def named(call: str) -> str:
    """The name of a call in errors, by the installed package."""
    return call if sys.modules["pycuda.driver"] else CALLS[call]


def install(
    patch: pytest.MonkeyPatch,
    gpu: FakeGpu,
    version: str = "11.1.0",
    rtx: bool = False,
    package: str | None = "pycuda",
) -> ModuleType:
    """Replace ``tensorrt`` or ``tensorrt_rtx``, what calls the driver, and ``libcuda`` by the fake.

    ``package`` is the one of :data:`PACKAGES` that is installed, None for neither.
    """
    for name, module, parents in (
        ("pycuda", pycuda_driver(gpu), ("pycuda",)),
        ("cuda-bindings", bindings_driver(gpu), ("cuda", "cuda.bindings")),
    ):
        for parent in parents:
            patch.setitem(sys.modules, parent, ModuleType(parent))
        patch.setitem(sys.modules, module.__name__, module if name == package else None)
    trt = tensorrt_module(gpu, version, rtx)
    patch.setitem(sys.modules, trt.__name__, trt)
    library = CudaLibrary(gpu)
    for user in (machine, pycuda_of_ours):
        patch.setattr(user, "cuda_driver", lambda: library)
    return trt


def on_gpu(gpu: FakeGpu, address: int, shape: tuple[int, ...], stream: int | None = None) -> DeviceFrame:
    """A frame in GPU memory with the interface of a CuPy array."""
    interface = {"data": (address, False), "shape": shape, "typestr": "|u1", "version": 3, "stream": stream}
    return DeviceFrame(SimpleNamespace(__cuda_array_interface__=interface))


def stream(gpu: FakeGpu) -> FakeStream:
    """A CUDA stream of another library."""
    made = FakeStream(gpu.handle())
    gpu.streams[made.handle] = made
    return made
