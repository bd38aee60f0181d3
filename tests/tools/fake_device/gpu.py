"""The fake GPU: memory, streams that run late, failures on demand, and counts of calls."""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 256
POISON = 0xCD
"""Content of memory before it is written and after it is freed."""

Work = Callable[[], None]


class IllegalAddressError(Exception):
    """Work accessed memory that is not allocated."""


class FakeStream:
    """Work in the order in which it was enqueued."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.queue: deque[Work] = deque()
        self.captured: list[Work] | None = None
        self.capture_is_valid = True

    def drain(self) -> None:
        """Run everything."""
        while self.queue:
            self.queue.popleft()()


class FakeGpu:
    """State behind the fakes.

    Args:
        memory: bytes that can be allocated.
        no_op: engines execute nothing.
        capability: compute capability.
        hasty: run work when it is enqueued; otherwise when the host waits for it.
        scribbles: engines use their outputs as scratch memory before they write them.
        stages: memory that is not page-locked is read when a copy of it is given; otherwise when the copy is
            made, as by GPUs that read all of the host's memory.
        locks_pages: the driver page-locks memory that it did not allocate.

    Attributes:
        calls: how often each call was made.
        alive: how many of each kind of object exist.
        broken: set when a failure on the GPU has corrupted the context, after which every call fails.
        pageable: asynchronous copies from or to memory that is not page-locked.
        executions: of engines, graphs included.
        slow_graphs: captured graphs that keep preliminary kernels of TensorRT-RTX, which better ones were to
            replace.
        compiled: kernels that TensorRT-RTX compiled.
        ordinals: the GPU on which memory at an address is, where it is another one.
        when: call -> function that says whether it fails.
        outlived: objects of TensorRT that were destroyed after their context.
    """

    def __init__(
        self,
        *,
        memory: int = 1 << 30,
        no_op: bool = False,
        capability: tuple[int, int] = (8, 6),
        hasty: bool = False,
        scribbles: bool = False,
        stages: bool = True,
        locks_pages: bool = True,
    ) -> None:
        self.memory = memory
        self.no_op = no_op
        self.capability = capability
        self.hasty = hasty
        self.scribbles = scribbles
        self.stages = stages
        self.locks_pages = locks_pages
        self.calls: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        self.broken = False
        self.pageable = 0
        self.executions = self.slow_graphs = self.compiled = 0
        self.outlived: list[str] = []
        self.ordinals: dict[int, int] = {}
        self.when: dict[str, Callable[[], bool]] = {}
        self.streams: dict[int, FakeStream] = {}
        self.driver_stack: list[str] = []  # contexts as the driver sees them
        self.current = threading.local()
        self._failures: dict[str, int] = {}
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        self._starts: list[int] = []
        self._pinned: list[tuple[int, int]] = []
        self._handles = iter(range(1000, 1 << 62))
        self.used = 0

    # --- calls

    def fail(self, name: str, after: int = 0) -> None:
        """Let the call ``name`` fail once, after ``after`` more successful calls."""
        self._failures[name] = self.calls[name] + after + 1

    def called(self, name: str) -> bool:
        """Count a call; True when it must fail."""
        self.calls[name] += 1
        return self.calls[name] == self._failures.get(name) or (name in self.when and self.when[name]())

    def handle(self) -> int:
        """A handle that was not used before."""
        return next(self._handles)

    def dropped(self, kind: str) -> None:
        """Count an object of TensorRT as destroyed, which must happen before its context is destroyed."""
        self.alive[kind] -= 1
        if not self.alive["context"]:
            self.outlived.append(kind)

    # --- memory

    def allocate(self, nbytes: int) -> int | None:
        """Address of new memory, None when there is too little."""
        if self.used + nbytes > self.memory:
            return None
        block = np.full(nbytes + 2 * ALIGNMENT, POISON, np.uint8)
        shift = -block.ctypes.data % ALIGNMENT
        block = block[shift : shift + nbytes]
        address = block.ctypes.data
        self._blocks[address] = block
        insort(self._starts, address)
        self.used += nbytes
        return address

    def free(self, address: int) -> None:
        """Free memory; later reads give poison or raise."""
        block = self._blocks.pop(address, None)
        if block is None:
            return  # lost before, by a test
        self._starts.remove(address)
        self.used -= block.nbytes
        block[:] = POISON

    def memory_at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes there.

        Raises:
            IllegalAddressError: when they are not all inside one allocation.
        """
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            start = self._starts[index]
            block = self._blocks[start]
            if address - start + nbytes <= block.nbytes:
                return block[address - start : address - start + nbytes]
        raise IllegalAddressError(f"{nbytes} bytes at {address:#x}")

    def pin(self, address: int, nbytes: int) -> None:
        """Page-lock memory of the host."""
        assert self.locks_pages, "asks for what the driver said it does not support"
        assert address % mmap.PAGESIZE == nbytes % mmap.PAGESIZE == 0, "page-locks pages of others"
        self._pinned.append((address, nbytes))
        self.alive["pinned"] += 1

    def unpin(self, address: int) -> None:
        """Release the page lock."""
        (place,) = (place for place in self._pinned if place[0] == address)
        self._pinned.remove(place)
        self.alive["pinned"] -= 1

    def is_pinned(self, array: NDArray[np.uint8]) -> bool:
        """Whether all of an array is page-locked."""
        begin = array.ctypes.data
        return any(start <= begin and begin + array.nbytes <= start + size for start, size in self._pinned)

    # --- work

    def lose_context(self) -> None:
        """Work failed on the GPU: drop pending work, and let every later call fail."""
        self.broken = True
        for stream in self.streams.values():
            stream.queue.clear()

    def give(self, stream: FakeStream, work: Work) -> None:
        """Put work into a stream, or into the graph that is being captured from it."""
        if stream.captured is not None:
            stream.captured.append(work)
            return
        stream.queue.append(work)
        if self.hasty:
            stream.drain()

    def spoils_captures(self) -> bool:
        """Called by operations that are not allowed during a capture. True when a capture was running; it is
        then invalid."""
        capturing = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in capturing:
            stream.capture_is_valid = False
        return bool(capturing)
