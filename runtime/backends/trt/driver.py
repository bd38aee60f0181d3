"""What the TensorRT backend asks of NVIDIA's driver, and which Python package it asks."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from ....common.errors import UnavailableError
from ....common.machine import NEEDS_CUDA_PACKAGE, NEEDS_GPU
from ....common.types import Array

NON_BLOCKING_STREAM = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream, which torch uses."""

CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads do not invalidate the capture."""

EVENT_WITHOUT_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""

POINTER_DEVICE_ORDINAL = 9
"""CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL."""

HOST_REGISTER_SUPPORTED = 99
"""CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: the driver can page-lock memory that it did not allocate."""


class DriverError(Exception):
    """A call of the driver failed; the message says which one and why."""


class GraphError(DriverError):
    """The driver could not capture a CUDA graph."""


class Allocation(Protocol):
    """Device memory; ``int`` gives its address."""

    def __int__(self) -> int: ...

    def free(self) -> None:
        """Release the memory."""


class CudaDriver(Protocol):
    """NVIDIA's driver and the primary context of one GPU, which the CUDA runtime and torch share.

    Streams, events and graphs are whatever the package has for them. All methods but :meth:`push` and
    :meth:`release` need the context to be current in this thread. Sizes and addresses are in bytes.

    Attributes:
        package: the distribution that is asked.
        errors: what failing calls raise.
        out_of_memory: the one of them for GPUs without memory left.
        name: of the GPU, for people.
        compute_capability: of the GPU, as ``sm86``.
        can_lock_pages: whether :meth:`lock` works for this GPU.
    """

    package: str
    errors: tuple[type[Exception], ...]
    out_of_memory: type[Exception]
    name: str
    compute_capability: str
    can_lock_pages: bool

    def push(self) -> None:
        """Make the context current in this thread."""

    def pop(self) -> None:
        """Make the previous context current again."""

    def release(self, current: bool) -> None:
        """Give the context back; ``current`` says whether it is current in this thread."""

    def create_stream(self) -> Any:
        """A stream that does not wait for the default stream."""

    def handle_of(self, stream: Any) -> int:
        """The driver's handle of a stream."""

    def destroy_stream(self, stream: Any) -> None:
        """Release a stream."""

    def synchronize(self, stream: Any) -> None:
        """Wait until the work of a stream is done."""

    def create_event(self) -> Any:
        """An event."""

    def destroy_event(self, event: Any) -> None:
        """Release an event."""

    def record(self, event: Any, stream: Any) -> None:
        """Let an event stand for the work that the stream has now."""

    def await_event(self, stream: Any, event: Any) -> None:
        """Make later work of a stream wait for an event."""

    def await_foreign(self, stream: Any, foreign: int) -> None:
        """Make later work of a stream wait for the work that another library's stream has now, by its handle."""

    def allocate(self, nbytes: int) -> Allocation:
        """Device memory, not initialized."""

    def memory_left(self) -> tuple[int, int]:
        """Bytes that are free, and all."""

    def upload(self, address: int, array: Array, stream: Any) -> None:
        """Copy from the host, asynchronously where the array is page-locked."""

    def download(self, array: Array, address: int, stream: Any) -> None:
        """Copy to the host, asynchronously where the array is page-locked."""

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from device memory to device memory."""

    def clear(self, address: int, nbytes: int, stream: Any) -> None:
        """Fill device memory with zeros."""

    def lock(self, address: int, nbytes: int) -> None:
        """Page-lock memory of the host."""

    def unlock(self, address: int) -> None:
        """Release a page lock."""

    def gpu_of(self, address: int) -> int | None:
        """Number of the GPU that memory belongs to, None where it belongs to none."""

    def begin_capture(self, stream: Any) -> None:
        """Collect the work that is given to a stream instead of starting it."""

    def end_capture(self, stream: Any) -> Any:
        """The graph of what was collected."""

    def abandon_capture(self, stream: Any) -> None:
        """End a capture whose work is not wanted. Errors are not raised."""

    def instantiate(self, graph: Any) -> Any:
        """An executable graph."""

    def destroy_graph(self, graph: Any) -> None:
        """Release what :meth:`end_capture` returned."""

    def launch(self, executable: Any, stream: Any) -> None:
        """Start the work of a graph."""

    def destroy_executable(self, executable: Any) -> None:
        """Release what :meth:`instantiate` returned."""


DRIVERS = {"cuda-bindings": "bindings_driver", "pycuda": "pycuda_driver"}
"""Distribution -> the module in this folder that asks it. The first that can be imported is used."""


def open_driver(ordinal: int) -> CudaDriver:
    """The driver, with the context of a GPU.

    Args:
        ordinal: number of the GPU among those that the process sees.

    Raises:
        UnavailableError: when no package, no driver or no such GPU is there.
    """
    failures = []
    for package, ours in DRIVERS.items():
        module = import_module(f".{ours}", __package__)
        try:
            imported = import_module(module.MODULE)
        except ImportError as error:
            failures.append(f"{package}: {error_text(error)}")
            continue
        driver: CudaDriver = module.open_driver(imported, ordinal)
        return driver
    raise UnavailableError(
        f"engines run through {' or '.join(DRIVERS)}, and neither can be imported ({'; '.join(failures)})",
        f"{NEEDS_CUDA_PACKAGE}, or give an .onnx as the model",
    )


def unusable(error: Exception) -> UnavailableError:
    """What opening the driver raises when a call fails."""
    return UnavailableError(f"the GPU cannot be used ({error_text(error)})", NEEDS_GPU)


def error_text(error: Exception) -> str:
    """An error's message on one line, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
