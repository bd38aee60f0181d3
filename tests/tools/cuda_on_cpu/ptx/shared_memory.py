"""Shared memory, with the checks that a GPU does not make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PtxError
from .memory import MANY, NOBODY, WARP, Threads, first_of
from .scalar_types import Array, IntArray


class SharedMemory:
    """Shared memory of all CTAs, with a record of which threads wrote and read each granule since the last
    barrier.

    A granule is the smallest width with which the kernel accesses shared memory. Bytes that were never
    written, and those a ``cp.async`` will still write, hold a pattern that is NaN in every float type.
    """

    POISON = 0xFF

    def __init__(self, threads: Threads, size: int, granule: int) -> None:
        self._threads = threads
        self.size = size
        self.stride = (size + 127) // 128 * 128
        self._granule = granule
        self.warps = threads.threads_per_cta // WARP
        self.data = np.full(max(threads.ctas * self.stride, 128), self.POISON, np.uint8)
        granules = len(self.data) // granule
        self._written_at = np.full(granules, -1, np.int32)  # stamp, -1 = never
        self._writer = np.full(granules, NOBODY, np.int32)  # thread
        self._writer_line = np.zeros(granules, np.int32)
        self._read_by = np.full((granules, self.warps), -1, np.int32)  # per warp: stamp * 64 + lane
        self._in_flight = np.zeros(granules, bool)
        self._any_in_flight = 0
        self._views: dict[np.dtype[Any], Array] = {}
        index = np.arange(len(threads))
        self._base = index // threads.threads_per_cta * self.stride
        self._warp = index % threads.threads_per_cta // WARP
        self._lane = index % WARP

    def view(self, dtype: npt.DTypeLike) -> Array:
        """All of it as elements of one type."""
        key = np.dtype(dtype)
        if key not in self._views:
            self._views[key] = self.data.view(key)
        return self._views[key]

    def locate(self, address: IntArray, width: int, thread: IntArray) -> IntArray:
        """Byte positions in :attr:`data` of addresses within the threads' CTAs, checked."""
        misaligned = address & (width - 1)
        if address.size and (
            int(address.min()) < 0 or int(address.max()) + width > self.size or misaligned.any()
        ):
            out = (address < 0) | (address + width > self.size)
            i = first_of(out | (misaligned != 0))
            raise PtxError(
                "bounds" if out[i] else "alignment",
                f"shared access of {width} bytes at {int(address[i])} "
                + (f"outside 0..{self.size}" if out[i] else "is misaligned")
                + f" by {self._threads.describe(int(thread[i]))}",
            )
        return address + self._base[thread]

    def _granules(self, position: IntArray, width: int, thread: IntArray) -> tuple[IntArray, IntArray]:
        """Granules that accesses touch, and the thread of each."""
        first = position // self._granule
        count = width // self._granule
        if count == 1:
            return first, thread
        spread = first[:, None] + np.arange(count)
        return spread.reshape(-1), np.repeat(thread, count)

    def check_read(self, position: IntArray, width: int, thread: IntArray, collective: bool = False) -> None:
        """Checks and records reads; ``collective``: by all lanes of the warp that the thread is in."""
        granule, thread = self._granules(position, width, thread)
        if self._any_in_flight and self._in_flight[granule].any():
            i = first_of(self._in_flight[granule])
            self._fail("in-flight", "reads what cp.async has not been waited for", granule[i], int(thread[i]))
        stamp = self._written_at[granule]
        if stamp.size and int(stamp.min()) < 0:
            i = first_of(stamp < 0)
            self._fail("uninitialised", "reads shared memory that nobody wrote", granule[i], int(thread[i]))
        recent = stamp >= self._threads.cta_stamp[thread]
        if recent.any():
            self._check_against_writer(granule[recent], thread[recent], collective, "reads")
        self._record_read(granule, thread, collective)

    def check_write(self, position: IntArray, width: int, thread: IntArray, line: int) -> None:
        """Checks and records writes."""
        granule, thread = self._granules(position, width, thread)
        if self._any_in_flight and self._in_flight[granule].any():
            i = first_of(self._in_flight[granule])
            self._fail("in-flight", "writes where cp.async will still write", granule[i], int(thread[i]))
        recent = self._written_at[granule] >= self._threads.cta_stamp[thread]
        if recent.any():
            self._check_against_writer(granule[recent], thread[recent], False, "writes")
        self._check_against_readers(granule, thread)
        self._writer[granule] = thread
        twice = self._writer[granule] != thread
        if twice.any():
            i = first_of(twice)
            other = self._threads.describe(int(self._writer[granule[i]]))
            self._fail("race", f"writes in the same instruction as {other}", granule[i], int(thread[i]))
        self._written_at[granule] = self._threads.warp_stamp[thread]
        self._writer_line[granule] = line

    def begin_copy(self, position: IntArray, width: int, thread: IntArray, line: int) -> None:
        """``cp.async`` was issued: until its thread waits for it, no access to the destination is allowed."""
        self.check_write(position, width, thread, line)
        granule, _ = self._granules(position, width, thread)
        self._in_flight[granule] = True
        self._any_in_flight += len(granule)
        self.data[position[:, None] + np.arange(width)] = self.POISON

    def end_copy(self, position: IntArray, data: npt.NDArray[np.uint8], thread: IntArray, line: int) -> None:
        """The copying threads waited: store ``data`` [n, width] as if they had just written it."""
        width = data.shape[1]
        granule, _ = self._granules(position, width, thread)
        self._in_flight[granule] = False
        self._any_in_flight -= len(granule)
        self.check_write(position, width, thread, line)
        self.data[position[:, None] + np.arange(width)] = data

    def _check_against_writer(self, granule: IntArray, thread: IntArray, collective: bool, verb: str) -> None:
        """Refuse reads of data written since the CTA's last barrier by another warp, or by another lane
        without a sync."""
        writer = self._writer[granule]
        same_warp = writer // WARP == thread // WARP
        ordered = same_warp & (self._written_at[granule] < self._threads.warp_stamp[thread])
        if not collective:
            ordered |= writer == thread
        if not ordered.all():
            i = first_of(~ordered)
            other = self._threads.describe(int(writer[i]))
            line = self._writer_line[granule[i]]
            what = f"{verb} what {other} wrote in PTX line {line} with no barrier between"
            self._fail("race", what, granule[i], int(thread[i]))

    def _check_against_readers(self, granule: IntArray, thread: IntArray) -> None:
        """Refuse writes where other threads have read since the last barrier."""
        readers = self._read_by[granule]
        unordered = (readers >> 6) >= self._threads.cta_stamp[thread][:, None]
        if not unordered.any():
            return
        rows = np.arange(len(granule))
        own_warp = self._warp[thread]
        own = readers[rows, own_warp]
        since_sync = (own >> 6) >= self._threads.warp_stamp[thread]
        unordered[rows, own_warp] = since_sync & ((own & 63) != self._lane[thread])
        if unordered.any():
            i, warp = (int(k[0]) for k in np.nonzero(unordered))
            lane = int(readers[i, warp] & 63)
            who = f"warp {warp}" + ("" if lane == MANY else f" lane {lane}")
            self._fail(
                "race", f"writes what {who} has read with no barrier between", granule[i], int(thread[i])
            )

    def _record_read(self, granule: IntArray, thread: IntArray, collective: bool) -> None:
        cell = granule * self.warps + self._warp[thread]
        table = self._read_by.reshape(-1)
        stamps = self._threads.warp_stamp[thread] << 6
        many = stamps | MANY
        if collective:
            table[cell] = many
            return
        before = table[cell]
        if np.array_equal(before, many):
            return
        own = stamps | self._lane[thread]
        again = ((before ^ own) < 64) & (before >= 0) & (before != own)
        own = np.where(again, many, own).astype(np.int32)
        table[cell] = own
        clash = table[cell] != own  # two lanes of a warp in one instruction
        if clash.any():
            table[cell[clash]] = many[clash]

    def _fail(self, kind: str, what: str, granule: int, thread: int) -> None:
        byte = int(granule) * self._granule % self.stride
        raise PtxError(kind, f"{self._threads.describe(thread)} {what} (shared byte {byte})")
