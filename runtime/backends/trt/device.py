"""One GPU: a shared context, two streams, memory and CUDA graphs; each is released once.

The context is the GPU's primary one, which the CUDA runtime, torch and TensorRT use. It is current only
inside ``with device.current()``, in whichever thread, so that nothing else on the GPU is disturbed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import DTypeLike

from ....common.errors import UnavailableError
from ....common.types import Array
from .allocations import DeviceBuffer, PinnedArray
from .driver import CudaDriver, DriverError, error_text, open_driver, unusable


class CudaGraph:
    """Work of one stream that one call starts; owns the driver's graph until :meth:`destroy`."""

    def __init__(self, driver: CudaDriver, executable: Any, stream: Any) -> None:
        self._driver = driver
        self._executable = executable
        self._stream = stream

    def launch(self) -> None:
        """Start the work.

        Raises:
            DriverError: when the driver could not.
        """
        self._driver.launch(self._executable, self._stream)

    def destroy(self) -> None:
        """Release the graph. Doing so twice does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            with contextlib.suppress(DriverError):
                self._driver.destroy_executable(executable)


class Device:
    """The GPU, its streams and everything allocated on it.

    Call all methods but :meth:`current` and :meth:`closing` inside ``with device.current()``. Sizes and
    addresses are in bytes.

    Args:
        ordinal: number of the GPU among those that the process sees.

    Attributes:
        package: the Python package through which the driver is asked.
        errors: what calls of the driver raise.
        name: of the GPU, for people.
        compute_capability: of the GPU, as ``sm86``.
        stream: the driver's handle of the stream for all work but early uploads.
        can_lock_pages: whether arrays of :meth:`pin` are page-locked.

    Raises:
        UnavailableError: when the package, the driver or the GPU is missing.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._ordinal = ordinal
        self._driver = driver = open_driver(ordinal)
        self._open = True
        self.package, self.errors = driver.package, driver.errors
        self.name, self.compute_capability = driver.name, driver.compute_capability
        self.can_lock_pages = driver.can_lock_pages
        self._compute = self._uploads = self._uploaded = None
        self._buffers: set[DeviceBuffer] = set()
        self._pinned: set[PinnedArray] = set()
        try:
            with self.current():
                self._compute = driver.create_stream()
                self._uploads = driver.create_stream()
                self._uploaded = driver.create_event()
                self.stream = driver.handle_of(self._compute)
        except self.errors as error:
            with self.closing():
                raise unusable(error) from error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context current in this thread; restore the previous one afterwards."""
        self._driver.push()
        try:
            yield
        finally:
            self._driver.pop()

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
            buffer = DeviceBuffer(self._driver.allocate(max(1, nbytes)), nbytes, self._buffers.discard)
        except self._driver.out_of_memory as error:
            free, total = self._driver.memory_left()
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
            pinned = PinnedArray(self._driver, shape, dtype, self._pinned.discard)
        except (DriverError, MemoryError) as error:
            raise UnavailableError(
                f"the system grants no page-locked memory for {list(shape)} ({error_text(error)})",
                "use smaller frames, or end other programs",
            ) from error
        self._pinned.add(pinned)
        return pinned

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the GPU, asynchronously when it is page-locked."""
        self._driver.upload(address, array, self._compute)

    def upload_early(self, address: int, array: Array) -> None:
        """Like :meth:`upload`, but concurrent with the work that was started before."""
        self._driver.upload(address, array, self._uploads)
        self._driver.record(self._uploaded, self._uploads)

    def await_early_upload(self) -> None:
        """Make work that is started from now on wait for the latest :meth:`upload_early`."""
        self._driver.await_event(self._compute, self._uploaded)

    def await_foreign(self, stream: int) -> None:
        """Make work that is started from now on wait for a stream of another library.

        Args:
            stream: its handle.

        Raises:
            DriverError: when the driver does not know the stream.
        """
        self._driver.await_foreign(self._compute, stream)

    def can_read(self, address: int) -> bool:
        """Whether an address belongs to memory of this GPU; reading any other would break the context."""
        return self._driver.gpu_of(address) == self._ordinal

    def download(self, array: Array, address: int) -> None:
        """Copy to a contiguous array of the host, asynchronously when it is page-locked."""
        self._driver.download(array, address, self._compute)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from device memory to device memory."""
        self._driver.copy(target, source, nbytes, self._compute)

    def clear(self, buffer: DeviceBuffer) -> None:
        """Fill device memory with zeros."""
        self._driver.clear(buffer.address, buffer.nbytes, self._compute)

    def synchronize(self) -> None:
        """Wait until all started work is done; early uploads may go on."""
        self._driver.synchronize(self._compute)

    def synchronize_all(self) -> None:
        """Wait until all started work and all early uploads are done."""
        for stream in (self._compute, self._uploads):
            if stream is not None:
                self._driver.synchronize(stream)

    def capture(self, start: Callable[[], None]) -> CudaGraph:
        """Capture the work that ``start`` starts in a graph; nothing is executed.

        Raises:
            GraphError: when the driver refuses.
        """
        self._driver.begin_capture(self._compute)
        try:
            start()
        except BaseException:
            # The stream must leave its capture; the driver's error about the torn graph adds nothing.
            self._driver.abandon_capture(self._compute)
            raise
        graph = self._driver.end_capture(self._compute)
        try:
            executable = self._driver.instantiate(graph)
        finally:
            with contextlib.suppress(DriverError):
                self._driver.destroy_graph(graph)
        return CudaGraph(self._driver, executable, self._compute)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Wait for the GPU, let the caller release what it made, then release everything else.

        Errors of the driver are not raised: what a broken GPU does not release goes with the process.
        """
        was_open, self._open = self._open, False
        if not was_open:
            yield
            return
        current = False
        with contextlib.suppress(*self.errors):
            self._driver.push()
            current = True
            self.synchronize_all()
        try:
            yield
        finally:
            self._release()
            with contextlib.suppress(*self.errors):
                self._driver.release(current)

    def _release(self) -> None:
        for buffer in list(self._buffers):
            with contextlib.suppress(*self.errors):
                buffer.free()
        for pinned in list(self._pinned):
            pinned.free()
        for stream in (self._compute, self._uploads):
            if stream is not None:
                with contextlib.suppress(*self.errors):
                    self._driver.destroy_stream(stream)
        if self._uploaded is not None:
            with contextlib.suppress(*self.errors):
                self._driver.destroy_event(self._uploaded)
        self._compute = self._uploads = self._uploaded = None  # pycuda destroys what nobody refers to
