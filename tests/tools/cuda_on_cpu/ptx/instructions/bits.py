"""Logic, shifts and bit fields (PTX ISA 9.0, sections 9.7.1 and 9.7.8) and moves (9.7.9.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..memory import LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW
from ..parser import Instruction, Register, Sink, Vector
from ..scalar_types import Array, is_signed, numpy_type, size_of
from .table import allow, compute, instruction, sources_of, width

_LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@instruction(*_LOGIC)
def _logic(machine: Machine, ins: Instruction) -> Run:
    function = _LOGIC[ins.parts[0]]
    if ins.type == "pred":
        p, q = (machine.predicate(operand) for operand in ins.operands[1:3])
        return compute(machine, ins.operands[0], "pred", lambda: function(p(), q()))
    return compute(machine, ins.operands[0], ins.type, function, *sources_of(machine, ins, ins.type, 2))


@instruction("not")
def _not(machine: Machine, ins: Instruction) -> Run:
    return compute(machine, ins.operands[0], ins.type, np.invert, *sources_of(machine, ins, ins.type, 1))


@instruction("lop3")
def _logic_of_three(machine: Machine, ins: Instruction) -> Run:
    """Any function of three bits: bit i of the table is the result for inputs i = 4a + 2b + c."""
    table = int(machine.source(ins.operands[4], "u32"))

    def function(a: Array, b: Array, c: Array) -> Array:
        out = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint32)
        for i in range(8):
            if table >> i & 1:
                out |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
        return out

    return compute(machine, ins.operands[0], "b32", function, *sources_of(machine, ins, "b32", 3))


@instruction("shl", "shr")
def _shift(machine: Machine, ins: Instruction) -> Run:
    """Shifts by the width or more empty the register; shr of a signed type fills with the sign."""
    kind = ins.type
    bits = width(kind)
    value, amount = machine.source(ins.operands[1], kind), machine.source(ins.operands[2], "u32")
    dtype = numpy_type(kind)
    if ins.parts[0] == "shr" and is_signed(kind):

        def function(x: Array, n: Array) -> Array:
            return np.asarray(np.right_shift(x, np.minimum(n, bits - 1).astype(dtype)))
    else:
        shift = np.left_shift if ins.parts[0] == "shl" else np.right_shift

        def function(x: Array, n: Array) -> Array:
            return np.asarray(
                np.where(n < bits, shift(x, np.minimum(n, bits - 1).astype(dtype)), dtype.type(0))
            )

    if amount.ndim == 0 and int(amount) < bits:
        fixed = amount.astype(dtype)
        ufunc = np.left_shift if ins.parts[0] == "shl" else np.right_shift
        return compute(machine, ins.operands[0], kind, ufunc, value, fixed)
    return compute(machine, ins.operands[0], kind, function, value, amount)


@instruction("shf")
def _funnel_shift(machine: Machine, ins: Instruction) -> Run:
    """32 bits of the 64-bit value [b, a] shifted: its upper half for .l, its lower for .r."""
    allow(ins, "l", "r", "wrap", "clamp")
    a, b, c = sources_of(machine, ins, "b32", 3)
    wrap, left = ins.has("wrap"), ins.has("l")

    def function(low: Array, high: Array, amount: Array) -> Array:
        n = (amount & 31 if wrap else np.minimum(amount, 32)).astype(np.uint64)
        value = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
        out = (value << n) >> np.uint64(32) if left else value >> n
        return np.asarray(out, np.uint32)

    return compute(machine, ins.operands[0], "b32", function, a, b, c)


@instruction("bfe")
def _extract_field(machine: Machine, ins: Instruction) -> Run:
    """``length`` bits of ``a`` from ``start``, sign-extended for signed types."""
    kind, bits = ins.type, width(ins.type)
    a = machine.source(ins.operands[1], kind)
    start, length = machine.source(ins.operands[2], "u32"), machine.source(ins.operands[3], "u32")

    def function(x: Array, first: Array, count: Array) -> Array:
        first, count = first & 255, count & 255
        wide = np.where(first < bits, x.astype(np.int64) >> np.minimum(first, bits - 1).astype(np.int64), 0)
        if not is_signed(kind):
            wide = np.where(
                first < bits,
                (x.astype(np.uint64) >> np.minimum(first, bits - 1).astype(np.uint64)).astype(np.int64),
                0,
            )
        keep = np.minimum(count, bits).astype(np.int64)
        mask = np.where(keep < 64, (np.int64(1) << np.minimum(keep, 63)) - 1, -1)
        out = wide & mask
        if is_signed(kind):
            sign = (keep > 0) & ((out >> np.maximum(keep - 1, 0)) & 1 == 1)
            out = np.where(sign, out | ~mask, out)
        return np.asarray(out, numpy_type(kind))

    return compute(machine, ins.operands[0], kind, function, a, start, length)


@instruction("bfi")
def _insert_field(machine: Machine, ins: Instruction) -> Run:
    """The low ``length`` bits of ``a`` placed into ``b`` from ``start``."""
    kind, bits = ins.type, width(ins.type)
    a, b = sources_of(machine, ins, kind, 2)
    start, length = machine.source(ins.operands[3], "u32"), machine.source(ins.operands[4], "u32")

    def function(field: Array, into: Array, first: Array, count: Array) -> Array:
        first, count = (first & 255).astype(np.uint64), np.minimum(count & 255, bits).astype(np.uint64)
        ones = np.where(
            count < 64,
            (np.uint64(1) << np.minimum(count, np.uint64(63))) - np.uint64(1),
            np.uint64(2**64 - 1),
        )
        inside = first < bits
        mask = np.where(inside, ones << np.where(inside, first, np.uint64(0)), np.uint64(0))
        moved = field.astype(np.uint64) << np.where(inside, first, np.uint64(0))
        return np.asarray(moved & mask | into.astype(np.uint64) & ~mask, numpy_type(kind))

    return compute(machine, ins.operands[0], kind, function, a, b, start, length)


@instruction("prmt")
def _permute_bytes(machine: Machine, ins: Instruction) -> Run:
    """Four bytes of the eight of [b, a], chosen by nibbles of c; bit 3 of a nibble replicates the sign."""
    if len(ins.parts) > 2:
        raise PtxError("unsupported", f"prmt with .{ins.parts[-1]} is not supported")
    a, b, c = sources_of(machine, ins, "b32", 3)

    def function(x: Array, y: Array, selector: Array) -> Array:
        value = y.astype(np.uint64) << np.uint64(32) | x.astype(np.uint64)
        out = np.zeros(np.broadcast_shapes(value.shape, selector.shape), np.uint32)
        for i in range(4):
            nibble = selector.astype(np.uint64) >> np.uint64(4 * i)
            byte = (value >> ((nibble & np.uint64(7)) * np.uint64(8))).astype(np.uint8)
            sign = np.where(byte & 0x80, np.uint8(255), np.uint8(0))
            byte = np.where(nibble & np.uint64(8), sign, byte)
            out |= byte.astype(np.uint32) << np.uint32(8 * i)
        return out

    return compute(machine, ins.operands[0], "b32", function, a, b, c)


def _highest_bit(x: Array) -> Array:
    """Position of the highest set bit of unsigned numbers, -1 for 0."""
    out = np.full(x.shape, -1, np.int64)
    for i in range(8 * x.dtype.itemsize):
        out = np.where(x >> x.dtype.type(i) & x.dtype.type(1), i, out)
    return out


@instruction("popc", "clz", "brev", "bfind")
def _count_bits(machine: Machine, ins: Instruction) -> Run:
    bits = width(ins.type)
    if ins.parts[0] == "brev":

        def reverse(x: Array) -> Array:
            out = np.zeros_like(x)
            for i in range(bits):
                out |= (x >> x.dtype.type(i) & x.dtype.type(1)) << x.dtype.type(bits - 1 - i)
            return out

        return compute(machine, ins.operands[0], ins.type, reverse, *sources_of(machine, ins, ins.type, 1))
    functions: dict[str, Callable[[Array], Array]] = {
        "popc": np.bitwise_count,
        "clz": lambda x: (bits - 1 - _highest_bit(x)).astype(np.uint32),
        "bfind": lambda x: _highest_bit(x).astype(np.uint32),
    }
    if is_signed(ins.type) or len(ins.parts) > 2:
        raise PtxError("unsupported", f"{'.'.join(ins.parts)} is not supported")
    (a,) = sources_of(machine, ins, ins.type, 1)
    return compute(machine, ins.operands[0], "u32", functions[ins.parts[0]], a)


@instruction("mov")
def _move(machine: Machine, ins: Instruction) -> Run:
    """Copies a register, or packs and unpacks a vector of narrower ones (PTX ISA 9.0, section 9.7.9.2)."""
    target, value = ins.operands
    if isinstance(target, Vector):
        part = f"b{width(ins.type) // len(target.parts)}"
        parts = machine.source(value, ins.type).view(numpy_type(part)).reshape(-1, len(target.parts))
        writers = [machine.writer(operand, part) for operand in target.parts]

        def unpack(lanes: Lanes) -> None:
            for i, write in enumerate(writers):
                write(parts[:, i], lanes)

        return unpack
    if isinstance(value, Vector):
        part = f"b{width(ins.type) // len(value.parts)}"
        sources = [machine.source(operand, part) for operand in value.parts]
        packed = machine.target(target, ins.type).view(numpy_type(part)).reshape(-1, len(sources))

        def pack(lanes: Lanes) -> None:
            values = [s.copy() for s in sources]  # the target may be among them
            for i, v in enumerate(values):
                np.copyto(packed[:, i], v, where=lanes.array)

        return pack
    if ins.type == "pred":
        p = machine.predicate(value)
        return compute(machine, target, "pred", p)
    return compute(
        machine,
        target,
        ins.type,
        np.positive if ins.type[0] in "usf" else _same,
        machine.source(value, ins.type),
    )


def _same(x: Array) -> Array:
    return x


_WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": 0, "param": PARAMETER_WINDOW}


@instruction("cvta")
def _convert_address(machine: Machine, ins: Instruction) -> Run:
    """Between a state space and generic addresses."""
    window = np.array(_WINDOWS[ins.parts[-2]], numpy_type(ins.type))
    function = np.subtract if ins.has("to") else np.add
    assert isinstance(ins.operands[0], (Register, Sink)) and size_of(ins.type) == 8
    return compute(
        machine, ins.operands[0], ins.type, function, machine.source(ins.operands[1], ins.type), window
    )
