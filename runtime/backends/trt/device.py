"""One GPU through pycuda: a context that others may share, two streams, memory, graphs; each released once.

The context is the GPU's primary one, that of the CUDA runtime and so of torch and TensorRT. It is current
only inside ``with device.current()``, in whichever thread: nothing else that uses the GPU is disturbed.

pycuda has no CUDA graphs and takes no stream of others, so these few calls go to the driver itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ....common.errors import UnavailableError
from ....common.machine import NEEDS_GPU, NEEDS_PYCUDA, cuda_driver, driver_words

ALIGNMENT = 256
"""Bytes: TensorRT binds no address that is not a multiple of it."""

_NON_BLOCKING_STREAM = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream, which is torch's."""

_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil the capture."""

_EVENT_WITHOUT_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""

_POINTER_DEVICE_ORDINAL = 9
"""CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL."""

OPEN_AGAIN = "the tracker is closed: check the GPU with nvidia-smi, then open the model again"


class DriverError(Exception):
    """A call of the driver that goes past pycuda failed; the message says which and why."""


class GraphError(DriverError):
    """The driver could not make a graph of the work."""


class Buffer:
    """Device memory.

    Attributes:
        address: of its first byte, a multiple of :data:`ALIGNMENT`.
        nbytes: its size.
    """

    def __init__(self, allocation: Any, nbytes: int, released: Callable[[Buffer], None]) -> None:
        self.address = int(allocation)
        self.nbytes = nbytes
        self._allocation = allocation
        self._released = released

    def free(self) -> None:
        """Give the memory back; doing so twice does nothing."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            self._released(self)
            allocation.free()


class Pinned:
    """Memory of the host that the GPU copies to and from by itself.

    The array is numpy's own, page-locked until :meth:`free`: who still holds it then reads what it held.

    Attributes:
        array: on pages that it shares with nobody, zeroed.
    """

    def __init__(
        self, library: Any, shape: tuple[int, ...], dtype: DTypeLike, released: Callable[[Pinned], None]
    ) -> None:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        whole = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
        room = np.zeros(whole + mmap.PAGESIZE, np.uint8)
        pages = room[-room.ctypes.data % mmap.PAGESIZE :][:whole]
        self.array: NDArray[Any] = pages[:nbytes].view(dtype).reshape(shape)
        self._library = library
        self._released = released
        self._address: ctypes.c_void_p | None = ctypes.c_void_p(pages.ctypes.data)
        _check(library, "cuMemHostRegister_v2", self._address, ctypes.c_size_t(whole), 0)

    def free(self) -> None:
        """Give the pages back to the system's care; doing so twice does nothing."""
        address, self._address = self._address, None
        if address is not None:
            self._released(self)
            self._library.cuMemHostUnregister(address)


class Graph:
    """Work of one stream that one call starts.

    Owns what the driver made of it until :meth:`destroy`.
    """

    def __init__(self, library: Any, handle: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        self._stream = stream

    def launch(self) -> None:
        """Start the work.

        Raises:
            DriverError: when the driver could not.
        """
        _check(self._library, "cuGraphLaunch", self._handle, self._stream)

    def destroy(self) -> None:
        """Release the graph; doing so twice does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.cuGraphExecDestroy(handle)


class Device:
    """The GPU, its streams and everything allocated on it.

    All methods but :meth:`current` and :meth:`closing` are called inside ``with device.current()``. Sizes and
    addresses are in bytes.

    Args:
        ordinal: number of the GPU among those that the process sees.

    Attributes:
        errors: what pycuda raises, and :class:`DriverError`.
        name: of the GPU, for people.
        compute_capability: of the GPU, as ``sm86``.
        stream: the driver's handle of the stream that all work but early uploads goes to.

    Raises:
        UnavailableError: when pycuda, the driver or the GPU is missing.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._ordinal = ordinal
        self._driver = _pycuda()
        self._library = cuda_driver()
        self.errors: tuple[type[Exception], ...] = (self._driver.Error, DriverError)
        self._context: Any = None
        self._compute: Any = None
        self._uploads: Any = None
        self._uploaded: Any = None
        self._foreign_event: ctypes.c_void_p | None = None
        self._buffers: set[Buffer] = set()
        self._pinned: set[Pinned] = set()
        try:
            self._driver.init()
            device = self._driver.Device(ordinal)
            self.name = str(device.name())
            self.compute_capability = "sm{}{}".format(*device.compute_capability())
            self._context = device.retain_primary_context()
            with self.current():
                self._compute = self._driver.Stream(_NON_BLOCKING_STREAM)
                self._uploads = self._driver.Stream(_NON_BLOCKING_STREAM)
                self._uploaded = self._driver.Event(self._driver.event_flags.DISABLE_TIMING)
        except self.errors as error:
            with self.closing():
                raise UnavailableError(f"the GPU cannot be used ({reason(error)})", NEEDS_GPU) from error
        self.stream = int(self._compute.handle)
        self._stream_handle = ctypes.c_void_p(self.stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context current in this thread, and what was current before afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @property
    def allocated(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def allocate(self, nbytes: int) -> Buffer:
        """Device memory of ``nbytes``, with whatever stands there.

        Raises:
            UnavailableError: when the GPU has too little of it left.
        """
        try:
            buffer = Buffer(self._driver.mem_alloc(max(1, nbytes)), nbytes, self._buffers.discard)
        except self._driver.MemoryError as error:
            free, total = self._driver.mem_get_info()
            raise UnavailableError(
                f"the GPU has {free / 1e6:.0f} of {total / 1e6:.0f} MB left and {nbytes / 1e6:.0f} MB more "
                "are needed",
                "use smaller frames, remember fewer of them, or end other programs on the GPU",
            ) from error
        self._buffers.add(buffer)
        return buffer

    def pin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Pinned:
        """Page-locked memory of the host.

        Raises:
            UnavailableError: when the system grants none.
        """
        try:
            pinned = Pinned(self._library, shape, dtype, self._pinned.discard)
        except (DriverError, MemoryError) as error:
            raise UnavailableError(
                f"the system grants no page-locked memory for {list(shape)} ({reason(error)})",
                "use smaller frames, or end other programs",
            ) from error
        self._pinned.add(pinned)
        return pinned

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU, asynchronously when it is page-locked."""
        self._driver.memcpy_htod_async(address, array, self._compute)

    def upload_early(self, address: int, array: NDArray[Any]) -> None:
        """Like :meth:`upload`, beside the work that was started before."""
        self._driver.memcpy_htod_async(address, array, self._uploads)
        self._uploaded.record(self._uploads)

    def await_early_upload(self) -> None:
        """Let work that is started from now on wait for the latest :meth:`upload_early`."""
        self._compute.wait_for_event(self._uploaded)

    def await_foreign(self, stream: int) -> None:
        """Let work that is started from now on wait for what stands in ``stream``, a handle of others.

        Raises:
            DriverError: when the driver does not know the stream.
        """
        if self._foreign_event is None:
            event = ctypes.c_void_p()
            _check(self._library, "cuEventCreate", ctypes.byref(event), _EVENT_WITHOUT_TIMING)
            self._foreign_event = event
        _check(self._library, "cuEventRecord", self._foreign_event, ctypes.c_void_p(stream))
        _check(self._library, "cuStreamWaitEvent", self._stream_handle, self._foreign_event, 0)

    def reads(self, address: int) -> bool:
        """Whether an address is one of memory that was made for this GPU; reading others would break it."""
        ordinal = ctypes.c_int(-1)
        pointer = ctypes.c_ulonglong(address)
        refused = self._library.cuPointerGetAttribute(ctypes.byref(ordinal), _POINTER_DEVICE_ORDINAL, pointer)
        return not refused and ordinal.value == self._ordinal

    def download(self, array: NDArray[Any], address: int) -> None:
        """Copy to a contiguous array of the host, asynchronously when it is page-locked."""
        self._driver.memcpy_dtoh_async(array, address, self._compute)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from device memory to device memory."""
        self._driver.memcpy_dtod_async(target, source, nbytes, self._compute)

    def clear(self, buffer: Buffer) -> None:
        """Fill device memory with zeros."""
        self._driver.memset_d8_async(buffer.address, 0, buffer.nbytes, self._compute)

    def wait(self) -> None:
        """Wait until all started work is done; early uploads may go on."""
        self._compute.synchronize()

    def settle(self) -> None:
        """Wait until all started work and all early uploads are done."""
        for stream in (self._compute, self._uploads):
            if stream is not None:
                stream.synchronize()

    def capture(self, start: Callable[[], None]) -> Graph:
        """Make a graph of the work that ``start`` starts, which is not executed.

        Raises:
            GraphError: when the driver refuses.
        """
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        _check(
            self._library,
            "cuStreamBeginCapture_v2",
            self._stream_handle,
            _CAPTURE_THREAD_LOCAL,
            kind=GraphError,
        )
        try:
            start()
        except BaseException:
            # The stream must leave its capture; what the driver says of the torn graph adds nothing.
            self._library.cuStreamEndCapture(self._stream_handle, ctypes.byref(graph))
            self._destroy_template(graph)
            raise
        _check(self._library, "cuStreamEndCapture", self._stream_handle, ctypes.byref(graph), kind=GraphError)
        try:
            flags = ctypes.c_ulonglong(0)
            _check(
                self._library,
                "cuGraphInstantiateWithFlags",
                ctypes.byref(executable),
                graph,
                flags,
                kind=GraphError,
            )
        finally:
            self._destroy_template(graph)
        return Graph(self._library, executable, self._stream_handle)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Wait for the GPU, let the caller release what it made, then release everything else.

        Nothing that the driver complains of is raised: what a broken GPU does not take back goes with the
        process.
        """
        context, self._context = self._context, None
        if context is None:
            yield
            return
        current = False
        with contextlib.suppress(*self.errors):
            context.push()
            current = True
            self.settle()
        try:
            yield
        finally:
            self._release()
            if current:
                # pycuda takes a primary context that it gives back off its own stack, not off the driver's.
                self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
            with contextlib.suppress(*self.errors):
                context.detach()

    def _release(self) -> None:
        for buffer in list(self._buffers):
            with contextlib.suppress(*self.errors):
                buffer.free()
        for pinned in list(self._pinned):
            pinned.free()
        if self._foreign_event is not None:
            self._library.cuEventDestroy_v2(self._foreign_event)
        self._compute = self._uploads = self._uploaded = None  # pycuda destroys what nobody refers to

    def _destroy_template(self, graph: ctypes.c_void_p) -> None:
        if graph.value:
            self._library.cuGraphDestroy(graph)


def _check(library: Any, name: str, *arguments: Any, kind: type[DriverError] = DriverError) -> None:
    """Call the driver; an error becomes an exception with the driver's words for it."""
    result = getattr(library, name)(*arguments)
    if result:
        raise kind(f"{name} failed: {driver_words(library, result)}")


def reason(error: Exception) -> str:
    """An error's words on one line, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__


def _pycuda() -> Any:
    try:
        return import_module("pycuda.driver")
    except ImportError as error:
        raise UnavailableError(
            f"pycuda, through which engines run, cannot be imported ({reason(error)})",
            f"{NEEDS_PYCUDA}, or give an .onnx as the model",
        ) from error
