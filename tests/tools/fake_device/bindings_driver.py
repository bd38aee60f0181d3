"""``cuda.bindings.driver`` on the fake GPU: names, arguments and results of cuda-bindings 13.0.

Calls count under pycuda's names where pycuda has them, so that tests read the same of both packages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np

from . import pycuda_driver as pycuda
from .cuda_library import WORDS, CudaLibrary
from .gpu import FakeGpu

Result = tuple[Any, ...]


class CUresult(IntEnum):
    """Some of the driver's error codes."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


CODES = {
    pycuda.MemoryError: CUresult.CUDA_ERROR_OUT_OF_MEMORY,
    pycuda.LaunchError: CUresult.CUDA_ERROR_LAUNCH_FAILED,
    pycuda.LogicError: CUresult.CUDA_ERROR_INVALID_VALUE,
}
TEXTS = {
    **WORDS,
    CUresult.CUDA_ERROR_OUT_OF_MEMORY: b"out of memory",
    CUresult.CUDA_ERROR_ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
}


def bindings_driver(gpu: FakeGpu) -> ModuleType:
    """The module."""
    module = ModuleType("cuda.bindings.driver")
    parts = {**pycuda._contexts(gpu), **pycuda._work(gpu), **pycuda._memory(gpu)}
    library = CudaLibrary(gpu)
    for part in (_devices(gpu, parts, library), _streams(gpu, parts, library), _memory(gpu, parts, library)):
        for name, value in {**part, **_graphs(library)}.items():
            setattr(module, name, value)
    for kind in (CUresult, CUstream):
        setattr(module, kind.__name__, kind)
    for name in ("CUdevice_attribute", "CUpointer_attribute", "CUstreamCaptureMode"):
        setattr(module, name, int)
    return module


class CUstream:
    """A stream of another library, by its handle."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __int__(self) -> int:
        return self.handle


def _call(run: Callable[[], Any], *, gives: bool = False) -> Result:
    """What the package returns: the code, and the value where the call has one."""
    try:
        value = run()
    except pycuda.Error as error:
        illegal = "illegal memory access" in str(error)
        code = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS if illegal else CODES[type(error)]
        return (code, None) if gives else (code,)
    return (CUresult.CUDA_SUCCESS, value) if gives else (CUresult.CUDA_SUCCESS,)


def _pointer(value: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(value))


def _devices(gpu: FakeGpu, parts: dict[str, Any], library: CudaLibrary) -> dict[str, Any]:
    def cuInit(Flags: int) -> Result:
        return _call(parts["init"])

    def cuGetErrorString(error: int) -> Result:
        text = TEXTS.get(int(error))
        return (CUresult.CUDA_SUCCESS, text) if text else (CUresult.CUDA_ERROR_INVALID_VALUE, None)

    def cuDeviceGet(ordinal: int) -> Result:
        return _call(lambda: parts["Device"](ordinal), gives=True)

    def cuDeviceGetName(length: int, dev: Any) -> Result:
        return _call(lambda: dev.name().encode().ljust(length, b"\0"), gives=True)

    def cuDeviceGetAttribute(attrib: int, dev: Any) -> Result:
        if attrib in (75, 76):
            return _call(lambda: dev.compute_capability()[attrib - 75], gives=True)
        value = ctypes.c_int()
        code = library.cuDeviceGetAttribute(ctypes.byref(value), attrib, dev)
        return CUresult(code), value.value

    def cuDevicePrimaryCtxRetain(dev: Any) -> Result:
        return _call(dev.retain_primary_context, gives=True)

    def cuDevicePrimaryCtxRelease(dev: Any) -> Result:
        gpu.called("Context.detach")
        gpu.alive["context"] -= 1
        return (CUresult.CUDA_SUCCESS,)

    def cuCtxPushCurrent(ctx: Any) -> Result:
        def push() -> None:
            pycuda._call(gpu, "Context.push")
            gpu.driver_stack.append("primary")
            pycuda._stack(gpu).append(ctx)

        return _call(push)

    def cuCtxPopCurrent() -> Result:
        gpu.called("Context.pop")
        pycuda._stack(gpu).pop()
        gpu.driver_stack.pop()
        return CUresult.CUDA_SUCCESS, "primary"

    return _functions(locals())


def _streams(gpu: FakeGpu, parts: dict[str, Any], library: CudaLibrary) -> dict[str, Any]:
    class Stream(parts["Stream"]):  # type: ignore[misc]
        def __int__(self) -> int:
            return int(self.handle)

        def __del__(self) -> None:
            """Nothing: cuda-bindings destroys no stream by itself."""

    def cuStreamCreate(Flags: int) -> Result:
        return _call(lambda: Stream(Flags), gives=True)

    def cuStreamDestroy(hStream: Any) -> Result:
        return _call(lambda: parts["Stream"].__del__(hStream))

    def cuStreamSynchronize(hStream: Any) -> Result:
        return _call(hStream.synchronize)

    def cuStreamWaitEvent(hStream: Any, hEvent: Any, Flags: int) -> Result:
        if isinstance(hEvent.stream, CUstream):
            producer = gpu.streams.get(int(hEvent.stream))
            if code := library._refuses("cuStreamWaitEvent"):
                return (CUresult(code),)
            if producer is not None:
                gpu.give(hStream.fake, producer.drain)
            return (CUresult.CUDA_SUCCESS,)
        return _call(lambda: hStream.wait_for_event(hEvent))

    class Event(parts["Event"]):  # type: ignore[misc]
        def __del__(self) -> None:
            """Nothing: cuda-bindings destroys no event by itself."""

    def cuEventCreate(Flags: int) -> Result:
        if code := library._refuses("cuEventCreate"):
            return CUresult(code), None
        return _call(lambda: Event(Flags), gives=True)

    def cuEventRecord(hEvent: Any, hStream: Any) -> Result:
        if isinstance(hStream, CUstream):
            if code := library._refuses("cuEventRecord"):
                return (CUresult(code),)
            hEvent.stream = hStream
            return (CUresult.CUDA_SUCCESS,)
        return _call(lambda: hEvent.record(hStream))

    def cuEventDestroy(hEvent: Any) -> Result:
        return _call(lambda: parts["Event"].__del__(hEvent))

    return _functions(locals())


def _memory(gpu: FakeGpu, parts: dict[str, Any], library: CudaLibrary) -> dict[str, Any]:
    def cuMemAlloc(bytesize: int) -> Result:
        return _call(lambda: parts["mem_alloc"](bytesize), gives=True)

    def cuMemFree(dptr: Any) -> Result:
        return _call(dptr.free)

    def cuMemGetInfo() -> Result:
        return CUresult.CUDA_SUCCESS, *parts["mem_get_info"]()

    def host(address: int, nbytes: int) -> Any:
        """The host's memory at an address, as an array that does not own it."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def cuMemcpyHtoDAsync(dstDevice: int, srcHost: int, ByteCount: int, hStream: Any) -> Result:
        return _call(lambda: parts["memcpy_htod_async"](dstDevice, host(srcHost, ByteCount), hStream))

    def cuMemcpyDtoHAsync(dstHost: int, srcDevice: int, ByteCount: int, hStream: Any) -> Result:
        return _call(lambda: parts["memcpy_dtoh_async"](host(dstHost, ByteCount), srcDevice, hStream))

    def cuMemcpyDtoDAsync(dstDevice: int, srcDevice: int, ByteCount: int, hStream: Any) -> Result:
        return _call(lambda: parts["memcpy_dtod_async"](dstDevice, srcDevice, ByteCount, hStream))

    def cuMemsetD8Async(dstDevice: int, uc: int, N: int, hStream: Any) -> Result:
        return _call(lambda: parts["memset_d8_async"](dstDevice, uc, N, hStream))

    def cuMemHostRegister(p: int, bytesize: int, Flags: int) -> Result:
        code = library.cuMemHostRegister_v2(_pointer(p), ctypes.c_size_t(bytesize), Flags)
        return (CUresult(code),)

    def cuMemHostUnregister(p: int) -> Result:
        return (CUresult(library.cuMemHostUnregister(_pointer(p))),)

    def cuPointerGetAttribute(attribute: int, ptr: int) -> Result:
        ordinal = ctypes.c_int(-1)
        code = library.cuPointerGetAttribute(ctypes.byref(ordinal), attribute, _pointer(ptr))
        return CUresult(code), ordinal.value

    return _functions(locals())


def _graphs(library: CudaLibrary) -> dict[str, Any]:
    def cuStreamBeginCapture(hStream: Any, mode: int) -> Result:
        return (CUresult(library.cuStreamBeginCapture_v2(_pointer(hStream), mode)),)

    def cuStreamEndCapture(hStream: Any) -> Result:
        graph = ctypes.c_void_p()
        code = library.cuStreamEndCapture(_pointer(hStream), ctypes.byref(graph))
        return CUresult(code), None if code else graph

    def cuGraphInstantiate(hGraph: Any, flags: int) -> Result:
        executable = ctypes.c_void_p()
        code = library.cuGraphInstantiateWithFlags(ctypes.byref(executable), hGraph, flags)
        return CUresult(code), None if code else executable

    def cuGraphDestroy(hGraph: Any) -> Result:
        return (CUresult(library.cuGraphDestroy(hGraph)),)

    def cuGraphLaunch(hGraphExec: Any, hStream: Any) -> Result:
        return (CUresult(library.cuGraphLaunch(hGraphExec, _pointer(hStream))),)

    def cuGraphExecDestroy(hGraphExec: Any) -> Result:
        return (CUresult(library.cuGraphExecDestroy(hGraphExec)),)

    return _functions(locals())


def _functions(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name.startswith("cu")}
