"""NVIDIA's driver through NVIDIA's package ``cuda-bindings``, which has wheels."""

from __future__ import annotations

import contextlib
from typing import Any

from ....common.types import Array
from .driver import (
    CAPTURE_THREAD_LOCAL,
    EVENT_WITHOUT_TIMING,
    HOST_REGISTER_SUPPORTED,
    NON_BLOCKING_STREAM,
    POINTER_DEVICE_ORDINAL,
    DriverError,
    GraphError,
    unusable,
)

MODULE = "cuda.bindings.driver"

_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""

_MAX_NAME = 256


class OutOfMemoryError(DriverError):
    """The GPU has too little memory left."""


class BindingsAllocation:
    """Device memory; ``int`` gives its address."""

    def __init__(self, driver: BindingsDriver, nbytes: int) -> None:
        self._driver = driver
        self._pointer = driver.call("cuMemAlloc", nbytes)

    def __int__(self) -> int:
        return int(self._pointer)

    def free(self) -> None:
        """Release the memory."""
        self._driver.call("cuMemFree", self._pointer)


class BindingsDriver:
    """See :class:`.driver.CudaDriver`."""

    package = "cuda-bindings"
    errors: tuple[type[Exception], ...] = (DriverError,)
    out_of_memory: type[Exception] = OutOfMemoryError

    def __init__(self, cuda: Any, ordinal: int) -> None:
        self._cuda = cuda
        self._foreign: Any = None
        self.call("cuInit", 0)
        self._gpu = self.call("cuDeviceGet", ordinal)
        self.name = bytes(self.call("cuDeviceGetName", _MAX_NAME, self._gpu)).split(b"\0")[0].decode()
        self.compute_capability = "sm{}{}".format(*map(self._attribute, _COMPUTE_CAPABILITY))
        self.can_lock_pages = bool(self._attribute(HOST_REGISTER_SUPPORTED))
        self._context = self.call("cuDevicePrimaryCtxRetain", self._gpu)

    def call(self, name: str, *arguments: Any, kind: type[DriverError] = DriverError) -> Any:
        """What a call of the driver gives; an error code becomes an exception with the driver's message.

        Raises:
            DriverError: of ``kind``, when the call fails.
        """
        try:
            code, *values = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:  # the package does not find libcuda, or this call in an older one
            raise kind(f"{name} failed: {error}") from error
        if code:
            known, words = self._cuda.cuGetErrorString(code)
            text = f"error {int(code)}" if known or words is None else bytes(words).decode(errors="replace")
            short_of_memory = code == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY
            raise (OutOfMemoryError if short_of_memory else kind)(f"{name} failed: {text}")
        return values[0] if len(values) == 1 else tuple(values)

    def _attribute(self, number: int) -> int:
        return int(self.call("cuDeviceGetAttribute", self._cuda.CUdevice_attribute(number), self._gpu))

    def push(self) -> None:
        """Make the context current in this thread."""
        self.call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        """Make the previous context current again."""
        self.call("cuCtxPopCurrent")

    def release(self, current: bool) -> None:
        """Give the context back."""
        if self._foreign is not None:
            with contextlib.suppress(DriverError):
                self.call("cuEventDestroy", self._foreign)
        if current:
            with contextlib.suppress(DriverError):
                self.pop()
        self.call("cuDevicePrimaryCtxRelease", self._gpu)

    def create_stream(self) -> Any:
        """A stream that does not wait for the default stream."""
        return self.call("cuStreamCreate", NON_BLOCKING_STREAM)

    def handle_of(self, stream: Any) -> int:
        """The driver's handle of a stream."""
        return int(stream)

    def destroy_stream(self, stream: Any) -> None:
        """Release a stream."""
        self.call("cuStreamDestroy", stream)

    def synchronize(self, stream: Any) -> None:
        """Wait until the work of a stream is done."""
        self.call("cuStreamSynchronize", stream)

    def create_event(self) -> Any:
        """An event."""
        return self.call("cuEventCreate", EVENT_WITHOUT_TIMING)

    def destroy_event(self, event: Any) -> None:
        """Release an event."""
        self.call("cuEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        """Let an event stand for the work that the stream has now."""
        self.call("cuEventRecord", event, stream)

    def await_event(self, stream: Any, event: Any) -> None:
        """Make later work of a stream wait for an event."""
        self.call("cuStreamWaitEvent", stream, event, 0)

    def await_foreign(self, stream: Any, foreign: int) -> None:
        """Make later work of a stream wait for another library's stream."""
        if self._foreign is None:
            self._foreign = self.create_event()
        self.record(self._foreign, self._cuda.CUstream(foreign))
        self.await_event(stream, self._foreign)

    def allocate(self, nbytes: int) -> BindingsAllocation:
        """Device memory, not initialized."""
        return BindingsAllocation(self, nbytes)

    def memory_left(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def upload(self, address: int, array: Array, stream: Any) -> None:
        """Copy from the host."""
        self.call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: Array, address: int, stream: Any) -> None:
        """Copy to the host."""
        self.call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from device memory to device memory."""
        self.call("cuMemcpyDtoDAsync", target, source, nbytes, stream)

    def clear(self, address: int, nbytes: int, stream: Any) -> None:
        """Fill device memory with zeros."""
        self.call("cuMemsetD8Async", address, 0, nbytes, stream)

    def lock(self, address: int, nbytes: int) -> None:
        """Page-lock memory of the host."""
        self.call("cuMemHostRegister", address, nbytes, 0)

    def unlock(self, address: int) -> None:
        """Release a page lock."""
        self.call("cuMemHostUnregister", address)

    def gpu_of(self, address: int) -> int | None:
        """Number of the GPU that memory belongs to, None where it belongs to none."""
        attribute = self._cuda.CUpointer_attribute(POINTER_DEVICE_ORDINAL)
        try:
            return int(self.call("cuPointerGetAttribute", attribute, address))
        except DriverError:
            return None

    def begin_capture(self, stream: Any) -> None:
        """Collect the work that is given to a stream instead of starting it."""
        mode = self._cuda.CUstreamCaptureMode(CAPTURE_THREAD_LOCAL)
        self.call("cuStreamBeginCapture", stream, mode, kind=GraphError)

    def end_capture(self, stream: Any) -> Any:
        """The graph of what was collected."""
        return self.call("cuStreamEndCapture", stream, kind=GraphError)

    def abandon_capture(self, stream: Any) -> None:
        """End a capture whose work is not wanted."""
        with contextlib.suppress(DriverError):
            self.destroy_graph(self.end_capture(stream))

    def instantiate(self, graph: Any) -> Any:
        """An executable graph."""
        return self.call("cuGraphInstantiate", graph, 0, kind=GraphError)

    def destroy_graph(self, graph: Any) -> None:
        """Release what :meth:`end_capture` returned."""
        self.call("cuGraphDestroy", graph)

    def launch(self, executable: Any, stream: Any) -> None:
        """Start the work of a graph."""
        self.call("cuGraphLaunch", executable, stream)

    def destroy_executable(self, executable: Any) -> None:
        """Release what :meth:`instantiate` returned."""
        self.call("cuGraphExecDestroy", executable)


def open_driver(cuda: Any, ordinal: int) -> BindingsDriver:
    """The driver, through the module :data:`MODULE`.

    Raises:
        UnavailableError: when there is no driver or no such GPU.
    """
    try:
        return BindingsDriver(cuda, ordinal)
    except DriverError as error:
        raise unusable(error) from error
