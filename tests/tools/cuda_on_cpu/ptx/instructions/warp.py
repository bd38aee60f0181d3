"""Exchange between the lanes of a warp (PTX ISA 9.0, sections 9.7.9.6, 9.7.13.2, 9.7.13.8 to 9.7.13.11).

The executor runs them when all members have arrived. Only ``bar.warp.sync`` orders memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..memory import WARP
from ..parser import Instruction, Pair
from ..scalar_types import Array, BoolArray, numpy_type
from .table import allow, compute, instruction


def _require_membership(machine: Machine, member: Array, lanes: Lanes) -> None:
    """Check that each thread is in the mask that it names."""
    lane = np.arange(machine.number, dtype=np.uint32) % WARP
    outside = lanes.array & ((member >> lane) & 1 == 0)
    if outside.any():
        thread = machine.threads.describe(int(np.flatnonzero(outside)[0]))
        raise PtxError("convergence", f"{thread} is not in its own member mask")


@instruction("shfl")
def _shuffle(machine: Machine, ins: Instruction) -> Run:
    """shfl.sync: the pseudocode of section 9.7.9.6, for all warps at once."""
    allow(ins, "sync", "up", "down", "bfly", "idx")
    mode = ins.parts[2]
    target = ins.operands[0]
    result, flag = (target.first, target.second) if isinstance(target, Pair) else (target, None)
    value, b, c, member = (
        machine.source(operand, kind)
        for operand, kind in zip(ins.operands[1:5], ("b32", "u32", "u32", "u32"), strict=True)
    )
    write = machine.writer(result, "b32")
    write_flag = machine.writer(flag, "pred") if flag is not None else None
    thread = np.arange(machine.number)
    lane = thread % WARP

    def run(lanes: Lanes) -> None:
        _require_membership(machine, member, lanes)
        offset, clamp = b.astype(np.int64) & 31, c.astype(np.int64) & 31
        segment = (c.astype(np.int64) >> 8) & 31
        high = (lane & segment) | (clamp & ~segment)
        source = {
            "up": lane - offset,
            "down": lane + offset,
            "bfly": lane ^ offset,
            "idx": (lane & segment) | (offset & ~segment),
        }[mode]
        inside = source >= high if mode == "up" else source <= high
        source = np.where(inside, thread - lane + source, thread)
        absent = lanes.array & ~lanes.array[source]
        if absent.any():
            who = machine.threads.describe(int(np.flatnonzero(absent)[0]))
            raise PtxError("convergence", f"{who} reads a lane that does not take part")
        write(value[source] if value.ndim else value, lanes)
        if write_flag is not None:
            write_flag(inside, lanes)

    return run


def _by_warp(machine: Machine, values: BoolArray) -> BoolArray:
    return values.reshape(-1, WARP)


@instruction("vote")
def _vote(machine: Machine, ins: Instruction) -> Run:
    """vote.sync over the participating members."""
    allow(ins, "sync", "all", "any", "uni", "ballot")
    mode = ins.parts[2]
    holds = machine.predicate(ins.operands[1])
    member = machine.source(ins.operands[2], "u32")
    write = machine.writer(ins.operands[0], "b32" if mode == "ballot" else "pred")

    def run(lanes: Lanes) -> None:
        _require_membership(machine, member, lanes)
        yes = _by_warp(machine, np.logical_and(lanes.array, holds()))
        no = _by_warp(machine, np.logical_and(lanes.array, ~holds()))
        if mode == "ballot":
            result: Array = np.packbits(yes, axis=1, bitorder="little").view(np.uint32)[:, 0]
        elif mode == "any":
            result = np.asarray(yes.any(1))
        else:
            result = np.asarray(~no.any(1) if mode == "all" else ~no.any(1) | ~yes.any(1))
        write(np.repeat(result, WARP), lanes)

    return run


@instruction("redux")
def _reduce(machine: Machine, ins: Instruction) -> Run:
    """redux.sync over the participating members."""
    functions = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
    }
    functions["xor"] = np.bitwise_xor
    if ins.parts[2] not in functions:
        raise PtxError("unsupported", f"redux.{ins.parts[2]} is not supported")
    function, dtype = functions[ins.parts[2]], numpy_type(ins.type)
    value = machine.source(ins.operands[1], ins.type)
    neutral: dict[str, Any] = {
        "min": np.iinfo(dtype).max,
        "max": np.iinfo(dtype).min,
        "and": np.array(-1).astype(dtype),
    }
    write = machine.writer(ins.operands[0], ins.type)

    def run(lanes: Lanes) -> None:
        taking = np.where(lanes.array, value, neutral.get(ins.parts[2], 0)).astype(dtype)
        write(np.repeat(function.reduce(taking.reshape(-1, WARP), axis=1, dtype=dtype), WARP), lanes)

    return run


@instruction("bar", "barrier")
def _warp_barrier(machine: Machine, ins: Instruction) -> Run:
    """bar.warp.sync: orders the memory accesses of the warp. (Barriers of the CTA are the executor's.)"""

    def run(lanes: Lanes) -> None:
        whole = (lanes.array | machine.exited).reshape(-1, WARP).all(1)
        if (lanes.array.reshape(-1, WARP).any(1) & ~whole).any():
            raise PtxError("unsupported", "bar.warp.sync of a part of the warp is not supported")
        machine.threads.pass_warp_barrier(lanes.array)

    return run


@instruction("activemask")
def _active_mask(machine: Machine, ins: Instruction) -> Run:
    def run(lanes: Lanes) -> None:
        bits = np.packbits(lanes.array, bitorder="little").view(np.uint32)
        compute(machine, ins.operands[0], "b32", lambda: np.repeat(bits, WARP))(lanes)

    return run
