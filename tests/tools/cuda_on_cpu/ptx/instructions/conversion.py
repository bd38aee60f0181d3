"""cvt (PTX ISA 9.0, section 9.7.9.21)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..parser import Instruction
from ..scalar_types import Array, is_float, numpy_type, size_of
from .table import allow, instruction

_TO_INTEGER: dict[str, Callable[[Array], Array]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def _to_integer(kind: str, rounding: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Rounds, saturates; NaN gives 0."""
    dtype = numpy_type(kind)
    limits = np.iinfo(dtype)

    def convert(x: Array) -> Array:
        rounded = np.nan_to_num(rounding(x.astype(np.float64)), nan=0.0, posinf=np.inf, neginf=-np.inf)
        low, high = rounded <= limits.min, rounded >= limits.max
        inside = np.where(low | high, 0, rounded).astype(dtype)
        return np.where(low, limits.min, np.where(high, limits.max, inside)).astype(dtype)

    return convert


def _saturate_integer(kind: str) -> Callable[[Array], Array]:
    limits = np.iinfo(numpy_type(kind))
    return lambda x: np.clip(x, limits.min, limits.max).astype(numpy_type(kind))


def _towards_zero(x: Array) -> Array:
    """f32 to f16, rounding towards zero."""
    half = x.astype(np.float16)
    beyond = np.abs(half.astype(np.float32)) > np.abs(x)
    bits = half.view(np.uint16)
    return np.where(beyond, bits - np.uint16(1), bits).astype(np.uint16).view(np.float16)


def _converter(ins: Instruction, to: str, kind: str) -> Callable[[Array], Array]:
    """Values of type ``kind`` as type ``to``."""
    dtype = numpy_type(to)
    rounding = next((_TO_INTEGER[w] for w in ins.parts if w in _TO_INTEGER), None)
    if is_float(kind) and not is_float(to):
        if rounding is None:
            raise PtxError("unsupported", "a float becomes an integer only with .rni, .rzi, .rmi or .rpi")
        return _to_integer(to, rounding)
    if not is_float(kind) and not is_float(to):
        return _saturate_integer(to) if ins.has("sat") else lambda x: x.astype(dtype)
    if ins.has("rz"):
        if (to, kind) != ("f16", "f32"):
            raise PtxError("unsupported", f"cvt.rz.{to}.{kind} is not supported")
        return _towards_zero
    relu, saturate = ins.has("relu"), ins.has("sat")

    def convert(x: Array) -> Array:
        out = (rounding(x) if rounding is not None else x).astype(dtype)
        if relu:
            out = np.fmax(out, dtype.type(0))
        return np.clip(np.nan_to_num(out, nan=0.0), 0, 1).astype(dtype) if saturate else out

    return convert


@instruction("cvt")
def _convert(machine: Machine, ins: Instruction) -> Run:
    types = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "f16", "f16x2", "f32", "f64")
    allow(ins, "rn", "rz", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu", *types)
    to, kind = ins.parts[-2], ins.type
    if to == "f16x2":
        return _convert_pair(machine, ins)
    source = machine.source(ins.operands[1], kind)
    convert = _converter(ins, to, kind)
    write = machine.writer(ins.operands[0], to)
    return lambda lanes: write(convert(source), lanes)


def _convert_pair(machine: Machine, ins: Instruction) -> Run:
    """Two f32 become the upper and the lower half of an f16x2."""
    if ins.type != "f32" or size_of(ins.type) != 4:
        raise PtxError("unsupported", f"cvt.f16x2.{ins.type} is not supported")
    convert = _converter(ins, "f16", "f32")
    high, low = (machine.source(operand, "f32") for operand in ins.operands[1:3])
    target = machine.target(ins.operands[0], "f16x2")

    def run(lanes: Lanes) -> None:
        upper, lower = convert(high), convert(low)
        np.copyto(target[:, 0], lower, where=lanes.array)
        np.copyto(target[:, 1], upper, where=lanes.array)

    return run
