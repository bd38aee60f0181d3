"""Loads and stores (PTX ISA 9.0, sections 9.7.9.8 to 9.7.9.12), and fences, which have no effect in lockstep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run, access_width
from ..memory import GLOBAL_BASE, LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW
from ..parser import Instruction, Operand, Vector
from ..scalar_types import Array, IntArray, numpy_type, size_of
from .table import allow, instruction

_SPACES = ("param", "shared", "global", "local")
_HINTS = ("nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "weak", "volatile", "v2", "v4", "L1", "L2")


def _parts(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Vector) else (operand,)


def _space_of(address: IntArray) -> tuple[str, int]:
    """State space of generic addresses, and where it starts."""
    low, high = int(address.min()), int(address.max())
    windows = [("param", PARAMETER_WINDOW), ("shared", SHARED_WINDOW), ("local", LOCAL_WINDOW)]
    for name, start in windows:
        if start <= low and high < 2 * start:
            return name, start
    if low >= GLOBAL_BASE:
        return "global", 0
    raise PtxError("bounds", f"generic address {low:#x} is in no state space")


def _position(
    machine: Machine, space: str, width: int, address: IntArray, thread: IntArray, line: int, write: bool
) -> IntArray:
    """Byte positions in the memory of a state space, after every check; writes are recorded."""
    if space == "shared":
        position = machine.shared.locate(address, width, thread)
        if write:
            machine.shared.check_write(position, width, thread, line)
        else:
            machine.shared.check_read(position, width, thread)
    elif space == "global":
        position, buffer = machine.memory.locate(address, width, machine.threads, thread)
        check = machine.memory.check_write if write else machine.memory.check_read
        check(position, width, machine.threads, thread, buffer)
    elif space == "local":
        position = machine.local.locate(address, width, thread)
        if write:
            machine.local.record_write(position, width)
        else:
            machine.local.check_read(position, thread)
    else:
        position = address
        if int(address.min()) < 0 or int(address.max()) + width > len(machine.parameters):
            raise PtxError("bounds", f"parameter access of {width} bytes at {int(address.max())}")
    return position


def _elements(machine: Machine, space: str, kind: str) -> Callable[[], Array]:
    """The memory of a state space as elements of a type (global memory may move when it grows)."""
    dtype = numpy_type(kind)
    if space == "global":
        return lambda: machine.memory.view(dtype)
    if space == "param":
        parameters = machine.parameters.view(dtype)
        return lambda: parameters
    view = (machine.shared if space == "shared" else machine.local).view(dtype)
    return lambda: view


@instruction("ld", "ldu")
def _load(machine: Machine, ins: Instruction) -> Run:
    allow(ins, *_SPACES, *_HINTS)
    space = next((w for w in _SPACES if ins.has(w)), "generic")
    width, size = access_width(ins), size_of(ins.type)
    addresses = machine.addresses(ins.operands[1])
    writers = [machine.scatterer(operand, ins.type) for operand in _parts(ins.operands[0])]
    views = {s: _elements(machine, s, ins.type) for s in _SPACES}

    def run(lanes: Lanes) -> None:
        address, where = addresses(lanes), space
        if where == "generic":
            where, start = _space_of(address)
            address = address - start
        position = _position(machine, where, width, address, lanes.index, ins.line, False) // size
        elements = views[where]()
        for i, write in enumerate(writers):
            write(elements[position + i] if i else elements[position], lanes)

    return run


@instruction("st")
def _store(machine: Machine, ins: Instruction) -> Run:
    allow(ins, "shared", "global", "local", *_HINTS)
    space = next((w for w in _SPACES if ins.has(w)), "generic")
    width, size = access_width(ins), size_of(ins.type)
    addresses = machine.addresses(ins.operands[0])
    sources = [machine.source(operand, ins.type) for operand in _parts(ins.operands[1])]
    views = {s: _elements(machine, s, ins.type) for s in _SPACES}

    def run(lanes: Lanes) -> None:
        address, where = addresses(lanes), space
        if where == "generic":
            where, start = _space_of(address)
            address = address - start
        if where == "param":
            raise PtxError("read-only", "writes to a parameter")
        position = _position(machine, where, width, address, lanes.index, ins.line, True) // size
        elements = views[where]()
        for i, source in enumerate(sources):
            elements[position + i] = lanes.pick(source)

    return run


@instruction("membar", "fence", "prefetch", "prefetchu", "nanosleep")
def _idle(machine: Machine, ins: Instruction) -> Run:
    """Does nothing: the race checks require barriers and ignore fences."""
    return lambda lanes: None


@instruction("isspacep")
def _is_in_space(machine: Machine, ins: Instruction) -> Run:
    window = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": GLOBAL_BASE}[ins.parts[1]]
    end = 2 * window if window < GLOBAL_BASE else 1 << 62
    address = machine.source(ins.operands[1], "u64")
    write = machine.writer(ins.operands[0], "pred")
    return lambda lanes: write(np.logical_and(address >= window, address < end), lanes)
