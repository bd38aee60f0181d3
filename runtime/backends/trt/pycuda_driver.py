"""NVIDIA's driver through pycuda, which is compiled against a CUDA toolkit when it is installed.

pycuda has no CUDA graphs and takes no foreign streams: those few calls go to the driver directly.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

from ....common.machine import cuda_driver, driver_words
from ....common.types import Array
from .driver import (
    CAPTURE_THREAD_LOCAL,
    EVENT_WITHOUT_TIMING,
    HOST_REGISTER_SUPPORTED,
    NON_BLOCKING_STREAM,
    POINTER_DEVICE_ORDINAL,
    Allocation,
    DriverError,
    GraphError,
    unusable,
)

MODULE = "pycuda.driver"


class PycudaDriver:
    """See :class:`.driver.CudaDriver`."""

    package = "pycuda"

    def __init__(self, pycuda: Any, library: Any, ordinal: int) -> None:
        self._pycuda, self._library = pycuda, library
        self.errors: tuple[type[Exception], ...] = (pycuda.Error, DriverError)
        self.out_of_memory: type[Exception] = pycuda.MemoryError
        self._foreign: ctypes.c_void_p | None = None
        pycuda.init()
        device = pycuda.Device(ordinal)
        self.name = str(device.name())
        self.compute_capability = "sm{}{}".format(*device.compute_capability())
        self.can_lock_pages = self._supports(HOST_REGISTER_SUPPORTED, ordinal)
        self._context = device.retain_primary_context()

    def _call(self, name: str, *arguments: Any, kind: type[DriverError] = DriverError) -> None:
        """A call past pycuda; an error code becomes an exception with the driver's message."""
        result = getattr(self._library, name)(*arguments)
        if result:
            raise kind(f"{name} failed: {driver_words(self._library, result)}")

    def _supports(self, attribute: int, ordinal: int) -> bool:
        handle, value = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ordinal)
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        return bool(value.value)

    def push(self) -> None:
        """Make the context current in this thread."""
        self._context.push()

    def pop(self) -> None:
        """Make the previous context current again."""
        self._context.pop()

    def release(self, current: bool) -> None:
        """Give the context back."""
        if self._foreign is not None:
            self._library.cuEventDestroy_v2(self._foreign)
        if current:
            # pycuda pops a primary context that it detaches off its own stack, not off the driver's.
            self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        self._context.detach()

    def create_stream(self) -> Any:
        """A stream that does not wait for the default stream."""
        return self._pycuda.Stream(NON_BLOCKING_STREAM)

    def handle_of(self, stream: Any) -> int:
        """The driver's handle of a stream."""
        return int(stream.handle)

    def destroy_stream(self, stream: Any) -> None:
        """Nothing: pycuda destroys streams that nobody refers to."""

    def synchronize(self, stream: Any) -> None:
        """Wait until the work of a stream is done."""
        stream.synchronize()

    def create_event(self) -> Any:
        """An event."""
        return self._pycuda.Event(self._pycuda.event_flags.DISABLE_TIMING)

    def destroy_event(self, event: Any) -> None:
        """Nothing: pycuda destroys events that nobody refers to."""

    def record(self, event: Any, stream: Any) -> None:
        """Let an event stand for the work that the stream has now."""
        event.record(stream)

    def await_event(self, stream: Any, event: Any) -> None:
        """Make later work of a stream wait for an event."""
        stream.wait_for_event(event)

    def await_foreign(self, stream: Any, foreign: int) -> None:
        """Make later work of a stream wait for another library's stream."""
        if self._foreign is None:
            event = ctypes.c_void_p()
            self._call("cuEventCreate", ctypes.byref(event), EVENT_WITHOUT_TIMING)
            self._foreign = event
        self._call("cuEventRecord", self._foreign, ctypes.c_void_p(foreign))
        self._call("cuStreamWaitEvent", _pointer(stream), self._foreign, 0)

    def allocate(self, nbytes: int) -> Allocation:
        """Device memory, not initialized."""
        allocation: Allocation = self._pycuda.mem_alloc(nbytes)
        return allocation

    def memory_left(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        free, total = self._pycuda.mem_get_info()
        return int(free), int(total)

    def upload(self, address: int, array: Array, stream: Any) -> None:
        """Copy from the host."""
        self._pycuda.memcpy_htod_async(address, array, stream)

    def download(self, array: Array, address: int, stream: Any) -> None:
        """Copy to the host."""
        self._pycuda.memcpy_dtoh_async(array, address, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from device memory to device memory."""
        self._pycuda.memcpy_dtod_async(target, source, nbytes, stream)

    def clear(self, address: int, nbytes: int, stream: Any) -> None:
        """Fill device memory with zeros."""
        self._pycuda.memset_d8_async(address, 0, nbytes, stream)

    def lock(self, address: int, nbytes: int) -> None:
        """Page-lock memory of the host."""
        self._call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(nbytes), 0)

    def unlock(self, address: int) -> None:
        """Release a page lock."""
        self._library.cuMemHostUnregister(ctypes.c_void_p(address))

    def gpu_of(self, address: int) -> int | None:
        """Number of the GPU that memory belongs to, None where it belongs to none."""
        ordinal, pointer = ctypes.c_int(-1), ctypes.c_ulonglong(address)
        refused = self._library.cuPointerGetAttribute(ctypes.byref(ordinal), POINTER_DEVICE_ORDINAL, pointer)
        return None if refused else ordinal.value

    def begin_capture(self, stream: Any) -> None:
        """Collect the work that is given to a stream instead of starting it."""
        self._call("cuStreamBeginCapture_v2", _pointer(stream), CAPTURE_THREAD_LOCAL, kind=GraphError)

    def end_capture(self, stream: Any) -> Any:
        """The graph of what was collected."""
        graph = ctypes.c_void_p()
        self._call("cuStreamEndCapture", _pointer(stream), ctypes.byref(graph), kind=GraphError)
        return graph

    def abandon_capture(self, stream: Any) -> None:
        """End a capture whose work is not wanted."""
        with contextlib.suppress(DriverError):
            graph = self.end_capture(stream)
            if graph.value:
                self.destroy_graph(graph)

    def instantiate(self, graph: Any) -> Any:
        """An executable graph."""
        executable, flags = ctypes.c_void_p(), ctypes.c_ulonglong(0)
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags, kind=GraphError)
        return executable

    def destroy_graph(self, graph: Any) -> None:
        """Release what :meth:`end_capture` returned."""
        self._library.cuGraphDestroy(graph)

    def launch(self, executable: Any, stream: Any) -> None:
        """Start the work of a graph."""
        self._call("cuGraphLaunch", executable, _pointer(stream))

    def destroy_executable(self, executable: Any) -> None:
        """Release what :meth:`instantiate` returned."""
        self._library.cuGraphExecDestroy(executable)


def _pointer(stream: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(stream.handle))


def open_driver(pycuda: Any, ordinal: int) -> PycudaDriver:
    """The driver, through the module :data:`MODULE`.

    Raises:
        UnavailableError: when there is no driver or no such GPU.
    """
    library = cuda_driver()
    try:
        return PycudaDriver(pycuda, library, ordinal)
    except (pycuda.Error, DriverError) as error:
        raise unusable(error) from error
