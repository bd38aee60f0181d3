"""Memory of the GPU and page-locked memory of the host; each allocation is released once."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from ....common.types import Array
from .driver import Allocation, CudaDriver, DriverError

ALIGNMENT = 256
"""Bytes: TensorRT binds only addresses that are a multiple of it."""


class DeviceBuffer:
    """Device memory.

    Attributes:
        address: of its first byte, a multiple of :data:`ALIGNMENT`.
        nbytes: its size.
    """

    def __init__(self, allocation: Allocation, nbytes: int, on_free: Callable[[DeviceBuffer], None]) -> None:
        self.address = int(allocation)
        self.nbytes = nbytes
        self._allocation: Allocation | None = allocation
        self._on_free = on_free

    def free(self) -> None:
        """Release the memory. Doing so twice does nothing."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            self._on_free(self)
            allocation.free()


class PinnedArray:
    """An array of the host on page-locked memory, which the GPU copies from and to by itself.

    The pages are numpy's own. :meth:`free` unlocks them, and the array stays readable.

    Args:
        driver: locks the pages, or says that it cannot. It also copies from and to pages that are not locked, by
            way of pages of its own.
        shape: of the array.
        dtype: of the array.
        on_free: called by the first :meth:`free`.

    Attributes:
        array: zeroed, on pages of its own.

    Raises:
        DriverError: when the driver does not lock the pages.
    """

    def __init__(
        self,
        driver: CudaDriver,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        on_free: Callable[[PinnedArray], None],
    ) -> None:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        whole = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
        unaligned = np.zeros(whole + mmap.PAGESIZE, np.uint8)
        pages = unaligned[-unaligned.ctypes.data % mmap.PAGESIZE :][:whole]
        self.array: Array = pages[:nbytes].view(dtype).reshape(shape)
        self._driver = driver
        self._on_free = on_free
        self._address: int | None = pages.ctypes.data
        if driver.can_lock_pages:
            driver.lock(pages.ctypes.data, whole)

    def free(self) -> None:
        """Unlock the pages. Doing so twice does nothing."""
        address, self._address = self._address, None
        if address is not None:
            self._on_free(self)
            if self._driver.can_lock_pages:
                with contextlib.suppress(DriverError):
                    self._driver.unlock(address)
