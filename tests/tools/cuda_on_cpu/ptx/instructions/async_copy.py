"""cp.async (PTX ISA 9.0, section 9.7.9.25.3): copies that complete when the thread waits for them, never
earlier. Until then the destination holds poison, and reading or writing it is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..parser import Immediate, Instruction, Negated, Operand, Register
from ..scalar_types import Array, IntArray
from .table import instruction


@dataclass
class _Copy:
    """Pending copies of one executed instruction."""

    thread: IntArray
    position: IntArray
    data: npt.NDArray[np.uint8]  # [n, bytes]
    group: IntArray  # per thread: number of the group it belongs to
    line: int

    def split(self, landing: npt.NDArray[np.bool_]) -> tuple[_Copy, _Copy]:
        """The copies that complete now and those that do not."""
        return self._take(landing), self._take(~landing)

    def _take(self, some: npt.NDArray[np.bool_]) -> _Copy:
        return _Copy(self.thread[some], self.position[some], self.data[some], self.group[some], self.line)


class AsyncCopies:
    """Copies in flight of one machine, and how many groups each thread has committed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._copies: list[_Copy] = []
        self._committed = np.zeros(machine.number, np.int64)

    def issue(self, thread: IntArray, position: IntArray, data: npt.NDArray[np.uint8], line: int) -> None:
        """Start copies; they belong to the next group that is committed."""
        self._machine.shared.begin_copy(position, data.shape[1], thread, line)
        self._copies.append(_Copy(thread, position, data, self._committed[thread], line))

    def commit(self, lanes: Lanes) -> None:
        """Commit the threads' groups, empty ones too."""
        self._committed[lanes.array] += 1

    def wait(self, lanes: Lanes, pending: int | None) -> None:
        """Complete all but the last ``pending`` groups of the threads; None completes everything, committed
        or not."""
        limit = self._committed + 1 if pending is None else self._committed - pending
        left = []
        for copy in self._copies:
            landing = lanes.array[copy.thread] & (copy.group < limit[copy.thread])
            now, later = copy.split(landing)
            if len(now.thread):
                self._machine.shared.end_copy(now.position, now.data, now.thread, now.line)
            if len(later.thread):
                left.append(later)
        self._copies = left


def _copies_of(machine: Machine) -> AsyncCopies:
    if machine.async_copies is None:
        machine.async_copies = AsyncCopies(machine)
    assert isinstance(machine.async_copies, AsyncCopies)
    return machine.async_copies


@instruction("cp")
def _copy(machine: Machine, ins: Instruction) -> Run:
    copies = _copies_of(machine)
    if ins.parts[:3] == ("cp", "async", "commit_group"):
        return copies.commit
    if ins.parts[:3] == ("cp", "async", "wait_all"):
        return lambda lanes: copies.wait(lanes, None)
    if ins.parts[:3] == ("cp", "async", "wait_group"):
        count = ins.operands[0]
        assert isinstance(count, Immediate)
        pending = int(count.text, 0)
        return lambda lanes: copies.wait(lanes, pending)
    if ins.parts[:5] not in (
        ("cp", "async", "ca", "shared", "global"),
        ("cp", "async", "cg", "shared", "global"),
    ):
        raise PtxError("unsupported", f"{'.'.join(ins.parts)} is not supported")
    return _start_copy(machine, ins, copies)


def _start_copy(machine: Machine, ins: Instruction, copies: AsyncCopies) -> Run:
    """cp.async.{ca,cg}.shared.global [dst], [src], size{, source size}; beyond the source size come zeros."""
    size_operand = ins.operands[2]
    assert isinstance(size_operand, Immediate)
    size = int(size_operand.text, 0)
    if size not in ((16,) if ins.has("cg") else (4, 8, 16)):
        raise PtxError("syntax", f"cp.async of {size} bytes does not exist")
    extra = ins.operands[3] if len(ins.operands) > 3 else None
    if len(ins.operands) > 4:
        raise PtxError("unsupported", "cp.async with a cache policy is not supported")
    source_size = _source_size(machine, extra, size)
    destination, source = machine.addresses(ins.operands[0]), machine.addresses(ins.operands[1])

    def run(lanes: Lanes) -> None:
        thread = lanes.index
        position = machine.shared.locate(destination(lanes), size, thread)
        valid = np.broadcast_to(lanes.pick(source_size()), (len(thread),)).astype(np.int64)
        if (valid > size).any():
            raise PtxError("bounds", f"cp.async of {size} bytes from a source of {int(valid.max())}")
        data = _read(machine, source(lanes), valid, size, thread)
        copies.issue(thread, position, data, ins.line)

    return run


def _source_size(machine: Machine, operand: Operand | None, size: int) -> Callable[[], Array]:
    """Bytes that are read: all, the operand's number, or none where the operand is a predicate that holds."""
    if operand is None:
        everything = np.array(size)
        return lambda: everything
    if isinstance(operand, Negated) or (isinstance(operand, Register) and operand.type == "pred"):
        ignored = machine.predicate(operand)
        return lambda: np.where(ignored(), 0, size)
    number = machine.source(operand, "u32")
    return lambda: number


def _read(
    machine: Machine, address: IntArray, valid: IntArray, size: int, thread: IntArray
) -> npt.NDArray[np.uint8]:
    """Source bytes [n, size], zero from each thread's ``valid`` on; no other byte is touched."""
    if (address & (size - 1) != 0).any():
        raise PtxError("alignment", f"cp.async of {size} bytes from a misaligned address")
    data = np.zeros((len(address), size), np.uint8)
    for length in np.unique(valid[valid > 0]):
        some = np.flatnonzero(valid == length)
        memory = machine.memory
        first, buffer = memory.locate(address[some], 1, machine.threads, thread[some])
        if length > 1:
            memory.locate(address[some] + length - 1, 1, machine.threads, thread[some])
        memory.check_read(first, int(length), machine.threads, thread[some], buffer)
        everything: Array = memory.view(np.uint8)
        data[some[:, None], np.arange(length)] = everything[first[:, None] + np.arange(length)]
    return data
