"""The state spaces of PTX (PTX ISA 9.0, section 5.1), each with the checks that a GPU does not make.

Every access is checked for bounds, alignment and uninitialised reads. Shared and global memory also record
which thread wrote and read each location, so that unordered accesses are found in whichever order they
execute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

_GAP = 1 << 16  # bytes between two buffers that belong to nobody
_NOBODY = -1
_MANY = 63  # in place of a lane's number (0 to 31): more than one lane of the warp


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


def _first(bad: BoolArray) -> int:
    return int(np.flatnonzero(bad)[0])


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
        self._writer = np.full(granules, _NOBODY, np.int32)  # thread
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
            i = _first(out | (misaligned != 0))
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
            i = _first(self._in_flight[granule])
            self._fail("in-flight", "reads what cp.async has not been waited for", granule[i], int(thread[i]))
        stamp = self._written_at[granule]
        if stamp.size and int(stamp.min()) < 0:
            i = _first(stamp < 0)
            self._fail("uninitialised", "reads shared memory that nobody wrote", granule[i], int(thread[i]))
        recent = stamp >= self._threads.cta_stamp[thread]
        if recent.any():
            self._check_against_writer(granule[recent], thread[recent], collective, "reads")
        self._record_read(granule, thread, collective)

    def check_write(self, position: IntArray, width: int, thread: IntArray, line: int) -> None:
        """Checks and records writes."""
        granule, thread = self._granules(position, width, thread)
        if self._any_in_flight and self._in_flight[granule].any():
            i = _first(self._in_flight[granule])
            self._fail("in-flight", "writes where cp.async will still write", granule[i], int(thread[i]))
        recent = self._written_at[granule] >= self._threads.cta_stamp[thread]
        if recent.any():
            self._check_against_writer(granule[recent], thread[recent], False, "writes")
        self._check_against_readers(granule, thread)
        self._writer[granule] = thread
        twice = self._writer[granule] != thread
        if twice.any():
            i = _first(twice)
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
            i = _first(~ordered)
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
            who = f"warp {warp}" + ("" if lane == _MANY else f" lane {lane}")
            self._fail(
                "race", f"writes what {who} has read with no barrier between", granule[i], int(thread[i])
            )

    def _record_read(self, granule: IntArray, thread: IntArray, collective: bool) -> None:
        cell = granule * self.warps + self._warp[thread]
        table = self._read_by.reshape(-1)
        stamps = self._threads.warp_stamp[thread] << 6
        many = stamps | _MANY
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


@dataclass(frozen=True)
class Buffer:
    """A piece of global memory; pass it as a kernel's argument."""

    address: int
    size: int
    writable: bool
    name: str


class GlobalMemory:
    """Global memory: buffers with unowned gaps between them.

    Stricter than CUDA: within a launch each location may be written by one thread only, and read by that
    thread only once it is written. Kernels of this project need no more; between CTAs more would be a race.
    """

    def __init__(self) -> None:
        self._data = np.zeros(1 << 20, np.uint8)
        self._written = np.zeros(1 << 20, bool)
        self._writer = np.full(1 << 20, _NOBODY, np.int32)
        self._buffers: list[Buffer] = []
        self._starts = np.zeros(0, np.int64)
        self._top = _GAP

    def add(self, size: int, name: str, writable: bool) -> Buffer:
        """A new buffer."""
        buffer = Buffer(GLOBAL_BASE + self._top, size, writable, name)
        self._top = (self._top + size + 2 * _GAP) // 256 * 256
        if self._top > len(self._data):
            grown = 2 * self._top
            self._data = np.concatenate([self._data, np.zeros(grown - len(self._data), np.uint8)])
            self._written = np.concatenate([self._written, np.zeros(grown - len(self._written), bool)])
            self._writer = np.concatenate(
                [self._writer, np.full(grown - len(self._writer), _NOBODY, np.int32)]
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
        self._writer.fill(_NOBODY)

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
            i = _first(bad)
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
                i = _first(~self._written[position + byte])
                self._fail(
                    "uninitialised",
                    "reads global memory that nobody wrote",
                    position[i],
                    threads,
                    int(thread[i]),
                )
        writer = self._writer[position]
        foreign = (writer != _NOBODY) & (writer != self._global(threads, thread))
        if foreign.any():
            i = _first(foreign)
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
        foreign = ((before != _NOBODY) & (before != who)) | (self._writer[everything] != who)
        if foreign.any():
            i = _first(foreign)
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
            i = _first(bad)
            raise PtxError(
                "bounds" if out[i] else "alignment",
                f"{self._threads.describe(int(thread[i]))}: local access of {width} bytes "
                f"at {int(address[i])} of {self.size}",
            )
        return address + thread * self.stride

    def check_read(self, position: IntArray, thread: IntArray) -> None:
        """Refuse uninitialised reads."""
        if not self._written[position].all():
            i = _first(~self._written[position])
            raise PtxError(
                "uninitialised",
                f"{self._threads.describe(int(thread[i]))} reads local memory that it never wrote",
            )

    def record_write(self, position: IntArray, width: int) -> None:
        """Marks bytes as written."""
        self._written[(position[:, None] + np.arange(width)).reshape(-1)] = True
