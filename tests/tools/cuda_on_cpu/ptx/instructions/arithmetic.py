"""Arithmetic, comparison and selection (PTX ISA 9.0, sections 9.7.1, 9.7.3, 9.7.4, 9.7.6, 9.7.7).

Approximate instructions (``ex2.approx``, ``rcp.approx``, ...) give numpy's result; ``.ftz`` is not modelled.
Both differ from a GPU by a few units in the last place, or by subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..parser import Instruction, Pair
from ..scalar_types import Array, is_float, is_signed, numpy_type, size_of
from .table import allow, compute, instruction, sources_of, width

_ROUNDING = ("rn", "ftz")
_FLOATS = ("f16", "f16x2", "f32", "f64")

_BINARY: dict[str, np.ufunc] = {"add": np.add, "sub": np.subtract}


@instruction("add", "sub")
def _add(machine: Machine, ins: Instruction) -> Run:
    allow(ins, *_ROUNDING)
    return compute(
        machine, ins.operands[0], ins.type, _BINARY[ins.parts[0]], *sources_of(machine, ins, ins.type, 2)
    )


@instruction("min", "max")
def _extreme(machine: Machine, ins: Instruction) -> Run:
    allow(ins, "ftz", "NaN")
    names = {"min": (np.minimum, np.fmin), "max": (np.maximum, np.fmax)}[ins.parts[0]]
    function = names[0] if ins.has("NaN") or ins.type not in _FLOATS else names[1]
    return compute(machine, ins.operands[0], ins.type, function, *sources_of(machine, ins, ins.type, 2))


def _multiply_high(kind: str) -> Callable[[Array, Array], Array]:
    """The upper half of the double-width product."""
    if width(kind) <= 32:
        wide = numpy_type(f"{'s' if is_signed(kind) else 'u'}{2 * width(kind)}")
        return lambda a, b: ((a.astype(wide) * b.astype(wide)) >> width(kind)).astype(numpy_type(kind))
    if kind != "u64":
        raise PtxError("unsupported", f"mul.hi.{kind} is not supported")
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)

    def high(a: Array, b: Array) -> Array:
        middle = (a & low) * (b & low) >> half
        cross = (a >> half) * (b & low) + middle
        other = (a & low) * (b >> half) + (cross & low)
        result: Array = (a >> half) * (b >> half) + (cross >> half) + (other >> half)
        return result

    return high


def _multiply_integers(machine: Machine, ins: Instruction) -> Run:
    """mul and mad with .lo, .hi, .wide."""
    allow(ins, "lo", "hi", "wide")
    kind, accumulate = ins.type, ins.parts[0] == "mad"
    a, b = sources_of(machine, ins, kind, 2)
    result = kind
    multiply: Callable[..., Any] = np.multiply
    if ins.has("wide"):
        result = f"{kind[0]}{2 * width(kind)}"
        wide = numpy_type(result)

        def multiply(x: Array, y: Array) -> Array:
            product: Array = np.multiply(x, y, dtype=wide)
            return product

    elif ins.has("hi"):
        multiply = _multiply_high(kind)
    if not accumulate:
        return compute(machine, ins.operands[0], result, multiply, a, b)
    c = machine.source(ins.operands[3], result)
    return compute(machine, ins.operands[0], result, lambda x, y, z: multiply(x, y) + z, a, b, c)


@instruction("mul")
def _multiply(machine: Machine, ins: Instruction) -> Run:
    if ins.type not in _FLOATS:
        return _multiply_integers(machine, ins)
    allow(ins, *_ROUNDING)
    return compute(machine, ins.operands[0], ins.type, np.multiply, *sources_of(machine, ins, ins.type, 2))


@instruction("fma", "mad")
def _fused(machine: Machine, ins: Instruction) -> Run:
    """One rounding: the product is exact in the next wider type (f64: two roundings)."""
    if ins.type not in _FLOATS:
        return _multiply_integers(machine, ins)
    allow(ins, "relu", *_ROUNDING)
    kind = ins.type
    dtype = np.dtype(np.float16) if kind == "f16x2" else numpy_type(kind)
    a, b, c = sources_of(machine, ins, kind, 3)
    relu = ins.has("relu")
    scratch = np.empty(np.broadcast_shapes(a.shape, b.shape, c.shape), np.float64)

    def function(x: Array, y: Array, z: Array) -> Array:
        np.multiply(x, y, out=scratch, dtype=np.float64)
        np.add(scratch, z, out=scratch, dtype=np.float64)
        return (np.fmax(scratch, 0.0) if relu else scratch).astype(dtype)

    return compute(machine, ins.operands[0], kind, function, a, b, c)


def _truncated_division(a: Array, b: Array) -> Array:
    """Integer division towards zero; a divisor of 0 gives 0 (undefined in PTX)."""
    if a.dtype.kind == "u":
        quotient: Array = np.floor_divide(a, b)
        return quotient
    magnitude = np.floor_divide(np.abs(a), np.abs(b))
    return np.where((a < 0) ^ (b < 0), -magnitude, magnitude).astype(a.dtype)


@instruction("div")
def _divide(machine: Machine, ins: Instruction) -> Run:
    allow(ins, "approx", "full", *_ROUNDING)
    function = np.divide if is_float(ins.type) else _truncated_division
    return compute(machine, ins.operands[0], ins.type, function, *sources_of(machine, ins, ins.type, 2))


@instruction("rem")
def _remainder(machine: Machine, ins: Instruction) -> Run:
    return compute(machine, ins.operands[0], ins.type, np.fmod, *sources_of(machine, ins, ins.type, 2))


def _reciprocal_root(x: Array) -> Array:
    root: Array = (1 / np.sqrt(x.astype(np.float64))).astype(x.dtype)
    return root


def _half_exp2(x: Array) -> Array:
    result: Array = np.exp2(x.astype(np.float32)).astype(np.float16)
    return result


_UNARY: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "abs": np.absolute,
    "sqrt": np.sqrt,
    "rsqrt": _reciprocal_root,
    "rcp": np.reciprocal,
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


@instruction(*_UNARY)
def _unary(machine: Machine, ins: Instruction) -> Run:
    allow(ins, "approx", *_ROUNDING)
    function = _UNARY[ins.parts[0]]
    if ins.parts[0] == "ex2" and ins.type in ("f16", "f16x2"):
        function = _half_exp2
    return compute(machine, ins.operands[0], ins.type, function, *sources_of(machine, ins, ins.type, 1))


_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b) if a.dtype.kind == "f" else a != b,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}
_LOGIC: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


@instruction("setp")
def _set_predicate(machine: Machine, ins: Instruction) -> Run:
    """p|q = (a cmp b) and !(a cmp b), each combined with c; for f16x2, p and q are of the two halves."""
    allow(ins, "ftz", *_COMPARE, *_LOGIC)
    if ins.type not in ("f16x2", *_FLOATS) and is_float(ins.type):
        raise PtxError("unsupported", f"setp.{ins.type} is not supported")
    compare = _COMPARE[ins.parts[1]]
    a, b = sources_of(machine, ins, ins.type, 2)
    combine = next((_LOGIC[w] for w in ins.parts[2:] if w in _LOGIC), None)
    other = machine.predicate(ins.operands[3]) if combine else None
    target = ins.operands[0]
    first, second = (target.first, target.second) if isinstance(target, Pair) else (target, None)
    write = machine.writer(first, "pred")
    write_second = machine.writer(second, "pred") if second is not None else None

    def run(lanes: Lanes) -> None:
        holds = np.asarray(compare(a, b))
        p, q = (holds[..., 0], holds[..., 1]) if ins.type == "f16x2" else (holds, ~holds)
        if combine is not None and other is not None:
            p, q = combine(p, other()), combine(q, other())
        write(p, lanes)
        if write_second is not None:
            write_second(q, lanes)

    return run


@instruction("set")
def _set(machine: Machine, ins: Instruction) -> Run:
    """All ones or 1.0 where the comparison holds."""
    allow(ins, "ftz", *_COMPARE, "u32", "s32", "f32", "f16", "f16x2")
    to, kind = ins.parts[-2], ins.type
    compare = _COMPARE[ins.parts[1]]
    if (kind == "f16x2") != (to == "f16x2"):
        raise PtxError("unsupported", f"set.{to}.{kind} is not supported")
    yes = 1 if to[0] == "f" else np.array(-1).astype(numpy_type(to))
    a, b = sources_of(machine, ins, kind, 2)
    return compute(machine, ins.operands[0], to, lambda x, y: np.where(compare(x, y), yes, 0), a, b)


@instruction("selp")
def _select(machine: Machine, ins: Instruction) -> Run:
    chosen = machine.predicate(ins.operands[3])
    a, b = sources_of(machine, ins, ins.type, 2)
    return compute(machine, ins.operands[0], ins.type, lambda x, y: np.where(chosen(), x, y), a, b)


@instruction("slct")
def _select_by_sign(machine: Machine, ins: Instruction) -> Run:
    allow(ins, "ftz", *(w for w in ins.parts if size_of(ins.type) and w[0] in "busf"))
    kind = ins.parts[-2]
    a, b = sources_of(machine, ins, kind, 2)
    c = machine.source(ins.operands[3], ins.type)
    return compute(machine, ins.operands[0], kind, lambda x, y, z: np.where(z >= 0, x, y), a, b, c)


@instruction("copysign")
def _copy_sign(machine: Machine, ins: Instruction) -> Run:
    """The second operand with the sign of the first."""
    a, b = sources_of(machine, ins, ins.type, 2)
    return compute(machine, ins.operands[0], ins.type, lambda x, y: np.copysign(y, x), a, b)


@instruction("testp")
def _test_property(machine: Machine, ins: Instruction) -> Run:
    tests: dict[str, Callable[[Array], Array]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
    }
    if ins.parts[1] not in tests:
        raise PtxError("unsupported", f"testp.{ins.parts[1]} is not supported")
    return compute(
        machine, ins.operands[0], "pred", tests[ins.parts[1]], *sources_of(machine, ins, ins.type, 1)
    )
