"""One GPU through pycuda: a shared context, two streams, memory and CUDA graphs; each is released once.

The context is the GPU's primary one, which the CUDA runtime, torch and TensorRT use. It is current only
inside ``with device.current()``, in whichever thread, so that nothing else on the GPU is disturbed.

pycuda has no CUDA graphs and takes no foreign streams: those few calls go to the driver directly.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import DTypeLike

from ....common.errors import UnavailableError
from ....common.machine import NEEDS_GPU, cuda_driver
from ....common.types import Array
from .allocations import DeviceBuffer, PinnedArray
from .driver import DriverError, GraphError, check_call, error_text, import_pycuda

_NON_BLOCKING_STREAM = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream, which torch uses."""

_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads do not invalidate the capture."""

_EVENT_WITHOUT_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""

_POINTER_DEVICE_ORDINAL = 9
"""CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL."""

_HOST_REGISTER_SUPPORTED = 99
"""CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: the driver can page-lock memory that it did not allocate."""


class CudaGraph:
    """Work of one stream that one call starts; owns the driver's graph until :meth:`destroy`."""

    def __init__(self, library: Any, handle: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        self._stream = stream

    def launch(self) -> None:
        """Start the work.

        Raises:
            DriverError: when the driver could not.
        """
        check_call(self._library, "cuGraphLaunch", self._handle, self._stream)

    def destroy(self) -> None:
        """Release the graph. Doing so twice does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.cuGraphExecDestroy(handle)


class Device:
    """The GPU, its streams and everything allocated on it.

    Call all methods but :meth:`current` and :meth:`closing` inside ``with device.current()``. Sizes and
    addresses are in bytes.

    Args:
        ordinal: number of the GPU among those that the process sees.

    Attributes:
        errors: what pycuda raises, and :class:`DriverError`.
        name: of the GPU, for people.
        compute_capability: of the GPU, as ``sm86``.
        stream: the driver's handle of the stream for all work but early uploads.
        can_lock_pages: whether arrays of :meth:`pin` are page-locked.

    Raises:
        UnavailableError: when pycuda, the driver or the GPU is missing.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._ordinal = ordinal
        self._driver = import_pycuda()
        self._library = cuda_driver()
        self.errors: tuple[type[Exception], ...] = (self._driver.Error, DriverError)
        self._context: Any = None
        self._compute: Any = None
        self._uploads: Any = None
        self._uploaded: Any = None
        self._foreign_event: ctypes.c_void_p | None = None
        self._buffers: set[DeviceBuffer] = set()
        self._pinned: set[PinnedArray] = set()
        try:
            self._driver.init()
            device = self._driver.Device(ordinal)
            self.name = str(device.name())
            self.compute_capability = "sm{}{}".format(*device.compute_capability())
            self.can_lock_pages = self._supports(_HOST_REGISTER_SUPPORTED)
            self._context = device.retain_primary_context()
            with self.current():
                self._compute = self._driver.Stream(_NON_BLOCKING_STREAM)
                self._uploads = self._driver.Stream(_NON_BLOCKING_STREAM)
                self._uploaded = self._driver.Event(self._driver.event_flags.DISABLE_TIMING)
        except self.errors as error:
            with self.closing():
                raise UnavailableError(f"the GPU cannot be used ({error_text(error)})", NEEDS_GPU) from error
        self.stream = int(self._compute.handle)
        self._stream_handle = ctypes.c_void_p(self.stream)

    def _supports(self, attribute: int) -> bool:
        handle, value = ctypes.c_int(), ctypes.c_int()
        check_call(self._library, "cuDeviceGet", ctypes.byref(handle), self._ordinal)
        check_call(self._library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        return bool(value.value)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context current in this thread; restore the previous one afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @property
    def allocated(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Device memory of ``nbytes``, not initialized.

        Raises:
            UnavailableError: when the GPU has too little of it left.
        """
        try:
            buffer = DeviceBuffer(self._driver.mem_alloc(max(1, nbytes)), nbytes, self._buffers.discard)
        except self._driver.MemoryError as error:
            free, total = self._driver.mem_get_info()
            raise UnavailableError(
                f"the GPU has {free / 1e6:.0f} of {total / 1e6:.0f} MB left, and {nbytes / 1e6:.0f} MB more "
                "are needed",
                "use smaller frames, remember fewer of them, or end other programs on the GPU",
            ) from error
        self._buffers.add(buffer)
        return buffer

    def pin(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        """A page-locked array of the host, or an ordinary one where the driver locks no pages.

        Raises:
            UnavailableError: when the system grants none.
        """
        try:
            pinned = PinnedArray(self._library, shape, dtype, self._pinned.discard, self.can_lock_pages)
        except (DriverError, MemoryError) as error:
            raise UnavailableError(
                f"the system grants no page-locked memory for {list(shape)} ({error_text(error)})",
                "use smaller frames, or end other programs",
            ) from error
        self._pinned.add(pinned)
        return pinned

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the GPU, asynchronously when it is page-locked."""
        self._driver.memcpy_htod_async(address, array, self._compute)

    def upload_early(self, address: int, array: Array) -> None:
        """Like :meth:`upload`, but concurrent with the work that was started before."""
        self._driver.memcpy_htod_async(address, array, self._uploads)
        self._uploaded.record(self._uploads)

    def await_early_upload(self) -> None:
        """Make work that is started from now on wait for the latest :meth:`upload_early`."""
        self._compute.wait_for_event(self._uploaded)

    def await_foreign(self, stream: int) -> None:
        """Make work that is started from now on wait for a stream of another library.

        Args:
            stream: its handle.

        Raises:
            DriverError: when the driver does not know the stream.
        """
        if self._foreign_event is None:
            event = ctypes.c_void_p()
            check_call(self._library, "cuEventCreate", ctypes.byref(event), _EVENT_WITHOUT_TIMING)
            self._foreign_event = event
        check_call(self._library, "cuEventRecord", self._foreign_event, ctypes.c_void_p(stream))
        check_call(self._library, "cuStreamWaitEvent", self._stream_handle, self._foreign_event, 0)

    def can_read(self, address: int) -> bool:
        """Whether an address belongs to memory of this GPU; reading any other would break the context."""
        ordinal = ctypes.c_int(-1)
        pointer = ctypes.c_ulonglong(address)
        refused = self._library.cuPointerGetAttribute(ctypes.byref(ordinal), _POINTER_DEVICE_ORDINAL, pointer)
        return not refused and ordinal.value == self._ordinal

    def download(self, array: Array, address: int) -> None:
        """Copy to a contiguous array of the host, asynchronously when it is page-locked."""
        self._driver.memcpy_dtoh_async(array, address, self._compute)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from device memory to device memory."""
        self._driver.memcpy_dtod_async(target, source, nbytes, self._compute)

    def clear(self, buffer: DeviceBuffer) -> None:
        """Fill device memory with zeros."""
        self._driver.memset_d8_async(buffer.address, 0, buffer.nbytes, self._compute)

    def synchronize(self) -> None:
        """Wait until all started work is done; early uploads may go on."""
        self._compute.synchronize()

    def synchronize_all(self) -> None:
        """Wait until all started work and all early uploads are done."""
        for stream in (self._compute, self._uploads):
            if stream is not None:
                stream.synchronize()

    def capture(self, start: Callable[[], None]) -> CudaGraph:
        """Capture the work that ``start`` starts in a graph; nothing is executed.

        Raises:
            GraphError: when the driver refuses.
        """
        graph = self._capture_template(start)
        executable, flags = ctypes.c_void_p(), ctypes.c_ulonglong(0)
        try:
            self._check_graph_call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags)
        finally:
            self._destroy_template(graph)
        return CudaGraph(self._library, executable, self._stream_handle)

    def _capture_template(self, start: Callable[[], None]) -> ctypes.c_void_p:
        graph = ctypes.c_void_p()
        self._check_graph_call("cuStreamBeginCapture_v2", self._stream_handle, _CAPTURE_THREAD_LOCAL)
        try:
            start()
        except BaseException:
            # The stream must leave its capture; the driver's error about the torn graph adds nothing.
            self._library.cuStreamEndCapture(self._stream_handle, ctypes.byref(graph))
            self._destroy_template(graph)
            raise
        self._check_graph_call("cuStreamEndCapture", self._stream_handle, ctypes.byref(graph))
        return graph

    def _check_graph_call(self, name: str, *arguments: Any) -> None:
        check_call(self._library, name, *arguments, kind=GraphError)

    def _destroy_template(self, graph: ctypes.c_void_p) -> None:
        if graph.value:
            self._library.cuGraphDestroy(graph)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Wait for the GPU, let the caller release what it made, then release everything else.

        Errors of the driver are not raised: what a broken GPU does not release goes with the process.
        """
        context, self._context = self._context, None
        if context is None:
            yield
            return
        current = False
        with contextlib.suppress(*self.errors):
            context.push()
            current = True
            self.synchronize_all()
        try:
            yield
        finally:
            self._release()
            if current:
                # pycuda pops a primary context that it detaches off its own stack, not off the driver's.
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
