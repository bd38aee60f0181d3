"""What the state spaces of PTX (PTX ISA 9.0, section 5.1) share, and local memory.

Every access is checked for bounds, alignment and uninitialised reads. Shared and global memory also record
which thread wrote and read each location, so that unordered accesses are found in whichever order they
execute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import PtxError
from .scalar_types import Array, BoolArray, IntArray

WARP = 32

# Where generic addressing finds each space; global addresses are far above, so that an offset into shared
# memory or a small integer is never a valid global address.
PARAMETER_WINDOW = 1 << 28
SHARED_WINDOW = 1 << 32
LOCAL_WINDOW = 1 << 36
GLOBAL_BASE = 1 << 40

GAP = 1 << 16  # bytes between two buffers that belong to nobody
NOBODY = -1
MANY = 63  # in place of a lane's number (0 to 31): more than one lane of the warp


@dataclass
class Threads:
    """The CTA, warp and lane of each simulated thread, and what orders its accesses.

    A *stamp* is a reading of a clock that advances at every barrier. ``warp_stamp`` is when the thread's warp
    last passed a barrier of either kind, ``cta_stamp`` when its CTA last passed one. An access is kept with
    the stamp of its warp; it is ordered before an access of another warp of the CTA if its stamp is older
    than their ``cta_stamp``, before one of the same warp if it is older than their ``warp_stamp``.
    """

    ctas: int
    threads_per_cta: int  # padded to whole warps
    block: IntArray  # [T] linear index of the CTA within the grid
    cta_stamp: npt.NDArray[np.int32]  # [T]
    warp_stamp: npt.NDArray[np.int32]  # [T]
    clock: int = 0

    @classmethod
    def of(cls, blocks: IntArray, threads_per_cta: int) -> Threads:
        """Threads of the given CTAs."""
        count = len(blocks) * threads_per_cta
        zeros = np.zeros(count, np.int32)
        return cls(len(blocks), threads_per_cta, np.repeat(blocks, threads_per_cta), zeros, zeros.copy())

    def __len__(self) -> int:
        return len(self.block)

    def pass_cta_barrier(self, threads: BoolArray) -> None:
        """``threads`` (whole CTAs) have all arrived at a barrier."""
        self.clock += 1
        self.cta_stamp[threads] = self.clock
        self.warp_stamp[threads] = self.clock

    def pass_warp_barrier(self, threads: BoolArray) -> None:
        """``threads`` (whole warps) have all arrived at ``bar.warp.sync``."""
        self.clock += 1
        self.warp_stamp[threads] = self.clock

    def describe(self, thread: int) -> str:
        """A thread by block and number, for messages."""
        return f"block {self.block[thread]} thread {thread % self.threads_per_cta}"


def first_of(bad: BoolArray) -> int:
    return int(np.flatnonzero(bad)[0])


@dataclass(frozen=True)
class Buffer:
    """A piece of global memory; pass it as a kernel's argument."""

    address: int
    size: int
    writable: bool
    name: str


class LocalMemory:
    """Local memory: spilled registers and indexed arrays of each thread."""

    def __init__(self, threads: Threads, size: int) -> None:
        self._threads = threads
        self.size = size
        self.stride = (size + 15) // 16 * 16
        self.data = np.full(max(16, len(threads) * self.stride), 0xFF, np.uint8)
        self._written = np.zeros(len(self.data), bool)

    def view(self, dtype: npt.DTypeLike) -> Array:
        """All of it as elements of one type."""
        return self.data.view(dtype)

    def locate(self, address: IntArray, width: int, thread: IntArray) -> IntArray:
        """Byte positions of the threads' own addresses, checked."""
        out = (address < 0) | (address + width > self.size)
        bad = out | ((address & (width - 1)) != 0)
        if bad.any():
            i = first_of(bad)
            raise PtxError(
                "bounds" if out[i] else "alignment",
                f"{self._threads.describe(int(thread[i]))}: local access of {width} bytes "
                f"at {int(address[i])} of {self.size}",
            )
        return address + thread * self.stride

    def check_read(self, position: IntArray, thread: IntArray) -> None:
        """Refuse uninitialised reads."""
        if not self._written[position].all():
            i = first_of(~self._written[position])
            raise PtxError(
                "uninitialised",
                f"{self._threads.describe(int(thread[i]))} reads local memory that it never wrote",
            )

    def record_write(self, position: IntArray, width: int) -> None:
        """Marks bytes as written."""
        self._written[(position[:, None] + np.arange(width)).reshape(-1)] = True
