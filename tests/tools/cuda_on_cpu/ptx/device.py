"""Host side: buffers in global memory and kernel launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PtxError
from .executor import Executor
from .global_memory import GlobalMemory
from .machine import Machine, Triple
from .memory import Buffer
from .program import Kernel, Parameter
from .scalar_types import Array, numpy_type

Argument = Buffer | int | float | bytes

THREADS_AT_ONCE = 4096
"""Number of threads, about, up to which CTAs run together: enough for cheap numpy calls, few enough for the
caches."""


class Device:
    """A GPU whose global memory persists between launches. Launches are synchronous."""

    def __init__(self) -> None:
        self.memory = GlobalMemory()
        self.instructions_executed = 0  # by all threads in step, in the last launch

    def upload(self, array: npt.NDArray[Any], name: str = "input") -> Buffer:
        """A read-only buffer with the content of an array."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer = self.memory.add(content.size, name, writable=False)
        self.memory.fill(buffer, content)
        return buffer

    def allocate(self, size: int, name: str = "output") -> Buffer:
        """A writable buffer of ``size`` bytes; reading bytes that no kernel wrote is an error."""
        buffer = self.memory.add(size, name, writable=True)
        self.memory.fill(buffer, None)
        return buffer

    def download(self, buffer: Buffer, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Content of a buffer.

        Raises:
            PtxError: ``uninitialised`` when kernels left some of it unwritten.
        """
        missing = self.memory.unwritten_bytes(buffer)
        if missing:
            raise PtxError(
                "uninitialised", f"{missing} of {buffer.size} bytes of '{buffer.name}' were never written"
            )
        return self.memory.content(buffer).view(dtype).reshape(shape)

    def launch(
        self,
        kernel: Kernel,
        grid: Triple,
        block: Triple,
        arguments: Sequence[Argument],
        dynamic_shared: int = 0,
    ) -> None:
        """Runs a kernel to its end.

        Args:
            kernel: from :func:`parse`.
            grid: CTAs along x, y, z.
            block: threads of a CTA along x, y, z.
            arguments: one per parameter: a buffer, a number, or the bytes of a structure.
            dynamic_shared: bytes of dynamic shared memory per CTA.

        Raises:
            PtxError: the kernel's behaviour is undefined or not supported.
        """
        if len(arguments) != len(kernel.parameters):
            raise PtxError("launch", f"{len(arguments)} arguments for {len(kernel.parameters)} parameters")
        parameters = np.zeros((kernel.parameter_bytes + 15) // 16 * 16, np.uint8)
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            content = _bytes_of(parameter, argument)
            parameters[parameter.offset : parameter.offset + parameter.size] = np.frombuffer(
                content, np.uint8
            )
        self.launch_raw(kernel, grid, block, parameters, dynamic_shared)

    def launch_raw(
        self,
        kernel: Kernel,
        grid: Triple,
        block: Triple,
        parameters: npt.NDArray[np.uint8],
        dynamic_shared: int,
    ) -> None:
        """Like :meth:`launch`, with the parameter block as bytes."""
        threads = int(np.prod(block))
        limit = int(np.prod([int(n) for n in kernel.directives.get("maxntid", "1024").split(",")]))
        if not 0 < threads <= min(limit, 1024):
            raise PtxError(
                "launch", f"{threads} threads in a CTA, but at most {min(limit, 1024)} are allowed"
            )
        if not all(0 < n <= m for n, m in zip(grid, (2**31 - 1, 65535, 65535), strict=True)):
            raise PtxError("launch", f"grid {grid} is not possible")
        self.memory.begin_launch()
        self.instructions_executed = 0
        blocks = np.arange(int(np.prod(grid)), dtype=np.int64)
        at_once = max(1, THREADS_AT_ONCE // threads)
        for start in range(0, len(blocks), at_once):
            some = blocks[start : start + at_once]
            machine = Machine(kernel, parameters, self.memory, grid, block, some, dynamic_shared)
            executor = Executor(machine)
            executor.run()
            self.instructions_executed += executor.instructions_executed


def _bytes_of(parameter: Parameter, argument: Argument) -> bytes:
    """The bytes of an argument in the parameter block."""
    if isinstance(argument, bytes):
        content = argument
    else:
        value = argument.address if isinstance(argument, Buffer) else argument
        content = np.array(value).astype(numpy_type(parameter.type)).tobytes()
    if len(content) != parameter.size:
        raise PtxError("launch", f"{len(content)} bytes for parameter {parameter.name} of {parameter.size}")
    return content
