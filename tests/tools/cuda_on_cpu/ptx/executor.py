"""Runs a kernel: decides which threads execute which instruction next.

Threads of all CTAs that run together advance basic block by basic block. When groups of threads are at
different blocks, the group at the lowest address runs first, so that divergent threads reconverge where their
paths join. An instruction that names other lanes of the warp (``.sync``) waits until all of them have reached
it. A barrier of the CTA waits for all its threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .errors import PtxError
from .instructions import bind
from .machine import Lanes, Machine, Run
from .memory import WARP
from .program import Immediate, Instruction, Symbol
from .scalar_types import Array, BoolArray

MAX_BLOCKS = 20_000_000
"""Basic blocks that a launch may execute before it counts as endless."""

_CONTROL = ("bra", "brx", "ret", "exit", "trap", "bar", "barrier")
_WARP_SYNC = ("shfl", "vote", "mma", "ldmatrix", "redux")


_WHOLE_WARP = ("mma", "ldmatrix")  # .aligned: undefined when a thread of the warp has exited


def _joins_warp(instruction: Instruction) -> bool:
    """Whether lanes wait for other lanes of their warp at this instruction."""
    name = instruction.parts[0]
    return name in _WARP_SYNC or (name in ("bar", "barrier") and instruction.has("warp"))


def _ends_block(instruction: Instruction) -> bool:
    return instruction.parts[0] in _CONTROL or _joins_warp(instruction)


@dataclass
class _Block:
    """Instructions from ``start`` to before ``end``, the last of which may be control flow."""

    start: int
    end: int
    control: Instruction | None
    joins: bool  # stands alone, and lanes of a warp wait for each other at it
    code: list[Run] = field(default_factory=list)
    bound: bool = False


def _split(instructions: list[Instruction], labels: dict[str, int]) -> dict[int, _Block]:
    """Basic blocks by their first instruction. An instruction where lanes wait for each other is a block of
    its own."""
    starts = {0, *labels.values()}
    for i, instruction in enumerate(instructions):
        if _ends_block(instruction):
            starts.add(i + 1)
        if _joins_warp(instruction):
            starts.add(i)
    blocks = {}
    ordered = sorted(s for s in starts if s < len(instructions))
    for start, end in zip(ordered, [*ordered[1:], len(instructions)], strict=True):
        last = instructions[end - 1]
        blocks[start] = _Block(start, end, last if _ends_block(last) else None, _joins_warp(last))
    return blocks


class Executor:
    """Runs the threads of one machine from the kernel's first instruction until all have returned."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._instructions = machine.kernel.instructions
        self._blocks = _split(self._instructions, machine.kernel.labels)
        self._ready: dict[int, BoolArray] = {0: machine.exists.copy()}
        self._lanes: dict[int, Lanes] = {}  # of groups that moved on as they were
        self._joining: dict[int, BoolArray] = {}  # wait for lanes of their warp
        self._at_barrier: dict[int, BoolArray] = {}
        self.instructions_executed = 0

    def run(self) -> None:
        """Executes until every thread has returned.

        Raises:
            PtxError: with the instruction that caused it.
        """
        executed = 0
        with np.errstate(all="ignore"):
            while self._ready or self._release():
                executed += 1
                if executed > MAX_BLOCKS:
                    raise PtxError("endless", f"{MAX_BLOCKS} basic blocks and no end")
                start = min(self._ready)
                mask = self._ready.pop(start)
                if start >= len(self._instructions):
                    raise PtxError("syntax", "control runs off the end of the kernel")
                lanes = self._lanes.pop(start, None) or Lanes(mask)
                self._step(self._blocks[start], lanes)

    def _step(self, block: _Block, lanes: Lanes) -> None:
        if not block.bound:
            self._bind(block)
        position = block.start
        try:
            if block.joins:
                lanes = self._join(block, lanes)
                if lanes.count == 0:
                    return
            for run in block.code:
                run(lanes)
                position += 1
            self.instructions_executed += len(block.code)
            if block.control is None or block.joins:
                self._go(block.end, lanes)
            else:
                self._control(block, block.control, lanes)
        except PtxError as error:
            if "\n  at " in error.problem:
                raise
            raise error.at(self._instructions[position].place()) from None

    def _bind(self, block: _Block) -> None:
        """Binds a block's instructions to the machine when it is first executed."""
        end = block.end - (block.control is not None and not block.joins)
        for instruction in self._instructions[block.start : end]:
            try:
                run = bind(self._machine, instruction)
            except PtxError as error:
                raise error.at(instruction.place()) from None
            block.code.append(run if block.joins else _guarded(self._machine, instruction, run))
        block.bound = True

    def _join(self, block: _Block, lanes: Lanes) -> Lanes:
        """The threads at a warp instruction whose partners have all reached it."""
        instruction = self._instructions[block.start]
        lanes, passed = self._guard(instruction, lanes)
        if passed is not None:
            self._go(block.end, passed)
        waiting = self._joining.pop(block.start, None)
        arrived = lanes.array if waiting is None else waiting | lanes.array
        if arrived.all():
            return lanes if waiting is None else Lanes(arrived)
        exited = _warp_bits(self._machine.exited)
        members = self._members(instruction)
        if instruction.parts[0] in _WHOLE_WARP and (exited[arrived] != 0).any():
            raise PtxError("convergence", "threads of the warp have exited, but this needs all 32")
        missing = members & ~exited & ~_warp_bits(arrived)
        ready = arrived & (missing == 0)
        left = arrived & ~ready
        if left.any():
            self._joining[block.start] = left
        return Lanes(ready)

    def _members(self, instruction: Instruction) -> Array:
        """The member mask that each thread names."""
        if instruction.parts[0] in _WHOLE_WARP:
            return np.array(0xFFFFFFFF, np.uint32)
        return self._machine.source(instruction.operands[-1], "u32")

    def _go(self, position: int, lanes: Lanes) -> None:
        """Let these threads continue at ``position``, together with the threads already there."""
        if lanes.count == 0:
            return
        there = self._ready.get(position)
        if there is None:
            self._ready[position] = lanes.array
            self._lanes[position] = lanes
        else:
            self._ready[position] = there | lanes.array
            self._lanes.pop(position, None)

    def _control(self, block: _Block, instruction: Instruction, lanes: Lanes) -> None:
        name = instruction.parts[0]
        taken, passed = self._guard(instruction, lanes)
        if passed is not None:
            self._go(block.end, passed)
        if taken.count == 0:
            return
        if name == "bra":
            target = instruction.operands[0]
            assert isinstance(target, Symbol)
            self._go(self._machine.kernel.labels[target.name], taken)
        elif name == "brx":
            self._branch_by_index(instruction, taken)
        elif name in ("ret", "exit"):
            self._machine.exited |= taken.array
        elif name == "trap":
            raise PtxError("trap", f"{self._machine.threads.describe(int(taken.index[0]))} traps")
        elif name in ("bar", "barrier"):
            _check_barrier(self._machine, instruction)
            before = self._at_barrier.get(block.end)
            self._at_barrier[block.end] = taken.array if before is None else before | taken.array

    def _guard(self, instruction: Instruction, lanes: Lanes) -> tuple[Lanes, Lanes | None]:
        """Threads for which the guard holds, and the others (None when there are none)."""
        if instruction.guard is None:
            return lanes, None
        holds = self._machine.predicate(instruction.guard)()
        taken = Lanes(lanes.array & holds)
        if taken.count == lanes.count:
            return lanes, None
        if taken.count == 0:
            return taken, lanes
        return taken, Lanes(lanes.array & ~holds)

    def _branch_by_index(self, instruction: Instruction, lanes: Lanes) -> None:
        table = instruction.operands[1]
        assert isinstance(table, Symbol)
        index = self._machine.source(instruction.operands[0], "u32")
        for i, label in enumerate(self._machine.kernel.branch_targets[table.name]):
            self._go(self._machine.kernel.labels[label], Lanes(lanes.array & (index == i)))

    def _release(self) -> bool:
        """No thread can continue: release the barriers that all threads of their CTA have reached."""
        if self._joining:
            start, mask = next(iter(self._joining.items()))
            self._fail_to_join(start, mask)
        if not self._at_barrier:
            return False
        ctas = self._machine.threads.ctas
        waiting = np.zeros(self._machine.number, bool)
        for mask in self._at_barrier.values():
            both = (waiting.reshape(ctas, -1).any(1) & mask.reshape(ctas, -1).any(1)).nonzero()[0]
            if both.size:
                self._fail_barrier(mask, int(both[0]), "wait at different barriers")
            waiting |= mask
        absent = (
            self._machine.exists
            & ~waiting
            & np.repeat(waiting.reshape(ctas, -1).any(1), len(waiting) // ctas)
        )
        if absent.any():
            cta = int(np.flatnonzero(absent)[0]) // self._machine.threads.threads_per_cta
            self._fail_barrier(waiting, cta, "wait at a barrier that others of the CTA never reach")
        for position, mask in self._at_barrier.items():
            self._go(position, Lanes(mask))
        self._at_barrier.clear()
        self._machine.threads.pass_cta_barrier(waiting)
        return True

    def _fail_barrier(self, mask: BoolArray, cta: int, what: str) -> None:
        size = self._machine.threads.threads_per_cta
        here = np.flatnonzero(mask[cta * size : (cta + 1) * size])
        position = next(p for p, m in self._at_barrier.items() if m[cta * size + int(here[0])])
        block = int(self._machine.threads.block[cta * size])
        raise PtxError("barrier", f"block {block}: {len(here)} threads (first {int(here[0])}) {what}").at(
            self._instructions[position - 1].place()
        )

    def _fail_to_join(self, start: int, mask: BoolArray) -> None:
        thread = int(np.flatnonzero(mask)[0])
        raise PtxError(
            "convergence",
            f"{self._machine.threads.describe(thread)} waits for lanes of its warp that never come",
        ).at(self._instructions[start].place())


def _warp_bits(mask: BoolArray) -> Array:
    """For each thread, the bits of a mask that belong to its warp."""
    return np.repeat(np.packbits(mask, bitorder="little").view(np.uint32), WARP)


def _guarded(machine: Machine, instruction: Instruction, run: Run) -> Run:
    """An instruction executed only by threads whose guard holds."""
    if instruction.guard is None:
        return run
    holds = machine.predicate(instruction.guard)

    def guarded(lanes: Lanes) -> None:
        some = Lanes(lanes.array & holds())
        if some.count:
            run(some)

    return guarded


def _check_barrier(machine: Machine, instruction: Instruction) -> None:
    """``bar.sync`` and ``barrier.sync`` of all threads of the CTA are what is supported."""
    number = instruction.operands[0]
    if not instruction.has("sync") or not isinstance(number, Immediate) or int(number.text, 0) != 0:
        raise PtxError("unsupported", "only barrier 0 of the whole CTA is supported")
    if len(instruction.operands) > 1:
        count = machine.source(instruction.operands[1], "u32")
        if (count != machine.exists.sum() // machine.threads.ctas).any():
            raise PtxError("unsupported", "barriers for a part of the CTA are not supported")
