"""Global memory, with the checks that a GPU does not make."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import PtxError
from .memory import GAP, GLOBAL_BASE, NOBODY, Buffer, Threads, first_of
from .scalar_types import Array, IntArray


class GlobalMemory:
    """Global memory: buffers with unowned gaps between them.

    Stricter than CUDA: within a launch each location may be written by one thread only, and read by that
    thread only once it is written. Kernels of this project need no more; between CTAs more would be a race.
    """

    def __init__(self) -> None:
        self._data = np.zeros(1 << 20, np.uint8)
        self._written = np.zeros(1 << 20, bool)
        self._writer = np.full(1 << 20, NOBODY, np.int32)
        self._buffers: list[Buffer] = []
        self._starts = np.zeros(0, np.int64)
        self._top = GAP

    def add(self, size: int, name: str, writable: bool) -> Buffer:
        """A new buffer."""
        buffer = Buffer(GLOBAL_BASE + self._top, size, writable, name)
        self._top = (self._top + size + 2 * GAP) // 256 * 256
        if self._top > len(self._data):
            grown = 2 * self._top
            self._data = np.concatenate([self._data, np.zeros(grown - len(self._data), np.uint8)])
            self._written = np.concatenate([self._written, np.zeros(grown - len(self._written), bool)])
            self._writer = np.concatenate(
                [self._writer, np.full(grown - len(self._writer), NOBODY, np.int32)]
            )
        self._buffers.append(buffer)
        self._starts = np.array([b.address for b in self._buffers])
        return buffer

    def fill(self, buffer: Buffer, content: npt.NDArray[np.uint8] | None) -> None:
        """Set a buffer's content; None fills it with poison that counts as unwritten."""
        where = self._slice(buffer)
        self._data[where] = 0xFF if content is None else content
        self._written[where] = content is not None

    def content(self, buffer: Buffer) -> npt.NDArray[np.uint8]:
        """Bytes of a buffer (a copy)."""
        content: npt.NDArray[np.uint8] = self._data[self._slice(buffer)].copy()
        return content

    def unwritten_bytes(self, buffer: Buffer) -> int:
        """Number of bytes of a buffer that were never written."""
        return int((~self._written[self._slice(buffer)]).sum())

    def begin_launch(self) -> None:
        """Forget which threads wrote in earlier launches: launches on a stream are ordered."""
        self._writer.fill(NOBODY)

    def view(self, dtype: npt.DTypeLike) -> Array:
        """All of global memory as elements of one type; indexed by positions from :meth:`locate`."""
        elements: Array = self._data[: len(self._data) // 16 * 16].view(dtype)
        return elements

    def locate(
        self, address: IntArray, width: int, threads: Threads, thread: IntArray
    ) -> tuple[IntArray, Buffer | None]:
        """Byte positions of addresses, checked; and the buffer when it is the same for all."""
        if not address.size:
            return address, None
        low, high = int(address.min()), int(address.max())
        index = int(np.searchsorted(self._starts, low, "right")) - 1
        inside = index >= 0 and high + width <= self._buffers[index].address + self._buffers[index].size
        misaligned = (address & (width - 1)) != 0
        if inside and not misaligned.any():
            return address - GLOBAL_BASE, self._buffers[index]
        owner = np.searchsorted(self._starts, address, "right") - 1
        ends = np.array([b.address + b.size for b in self._buffers] or [0])
        out = (owner < 0) | (address + width > ends[owner])
        bad = out | misaligned
        if bad.any():
            i = first_of(bad)
            self._fail_to_locate(
                int(address[i]), width, "bounds" if out[i] else "alignment", threads, int(thread[i])
            )
        return address - GLOBAL_BASE, None

    def check_read(
        self, position: IntArray, width: int, threads: Threads, thread: IntArray, buffer: Buffer | None
    ) -> None:
        """Refuse reads of unwritten memory, and of data that another thread wrote in this launch."""
        if buffer is not None and not buffer.writable:
            return
        for byte in (0, width - 1):
            if not self._written[position + byte].all():
                i = first_of(~self._written[position + byte])
                self._fail(
                    "uninitialised",
                    "reads global memory that nobody wrote",
                    position[i],
                    threads,
                    int(thread[i]),
                )
        writer = self._writer[position]
        foreign = (writer != NOBODY) & (writer != self._global(threads, thread))
        if foreign.any():
            i = first_of(foreign)
            self._fail(
                "race",
                "reads global memory that another thread wrote in this launch",
                position[i],
                threads,
                int(thread[i]),
            )

    def check_write(
        self, position: IntArray, width: int, threads: Threads, thread: IntArray, buffer: Buffer | None
    ) -> None:
        """Refuse writes to inputs, and to locations that another thread wrote in this launch."""
        if buffer is None:
            owners = np.unique(np.searchsorted(self._starts, position + GLOBAL_BASE, "right") - 1)
            readonly = any(not self._buffers[i].writable for i in owners)
        else:
            readonly = not buffer.writable
        if readonly:
            self._fail("read-only", "writes to an input", position[0], threads, int(thread[0]))
        everything = (position[:, None] + np.arange(width)).reshape(-1)
        who = np.repeat(self._global(threads, thread), width)
        before = self._writer[everything]
        self._writer[everything] = who
        foreign = ((before != NOBODY) & (before != who)) | (self._writer[everything] != who)
        if foreign.any():
            i = first_of(foreign)
            self._fail(
                "race",
                "writes global memory that another thread wrote in this launch",
                everything[i],
                threads,
                int(thread[i // width]),
            )
        self._written[everything] = True

    @staticmethod
    def _global(threads: Threads, thread: IntArray) -> npt.NDArray[np.int32]:
        """Number of a thread in the whole grid."""
        number = threads.block[thread] * threads.threads_per_cta + thread % threads.threads_per_cta
        return number.astype(np.int32)

    def _slice(self, buffer: Buffer) -> slice:
        start = buffer.address - GLOBAL_BASE
        return slice(start, start + buffer.size)

    def _fail_to_locate(self, address: int, width: int, kind: str, threads: Threads, thread: int) -> None:
        nearest = min(
            self._buffers,
            key=lambda b: max(b.address - address, address + width - b.address - b.size),
            default=Buffer(0, 0, False, "nothing"),
        )
        raise PtxError(
            kind,
            f"{threads.describe(thread)}: global access of {width} bytes at byte {address - nearest.address} "
            f"of '{nearest.name}' ({nearest.size} bytes)" + (" is misaligned" if kind == "alignment" else ""),
        )

    def _fail(self, kind: str, what: str, position: int, threads: Threads, thread: int) -> None:
        owner = self._buffers[int(np.searchsorted(self._starts, int(position) + GLOBAL_BASE, "right")) - 1]
        byte = int(position) + GLOBAL_BASE - owner.address
        raise PtxError(kind, f"{threads.describe(thread)} {what} (byte {byte} of '{owner.name}')")
