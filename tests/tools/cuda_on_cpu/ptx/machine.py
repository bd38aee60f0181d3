"""The state that instructions act on: registers of all threads, the state spaces, and operands bound to both.

Arrays have one element per thread. Arithmetic instructions compute for all threads and write back for the
active ones. Memory instructions handle active threads only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .errors import PtxError
from .global_memory import GlobalMemory
from .memory import PARAMETER_WINDOW, WARP, LocalMemory, Threads
from .program import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)
from .scalar_types import Array, BoolArray, IntArray, numpy_type, size_of
from .shared_memory import SharedMemory

Triple = tuple[int, int, int]


class Lanes:
    """A set of threads that execute an instruction together."""

    def __init__(self, mask: BoolArray) -> None:
        self.array = mask
        self.count = int(np.count_nonzero(mask))
        self.all = self.count == len(mask)
        self.mask: BoolArray | None = None if self.all else mask  # None: everybody
        self._index: IntArray | None = None

    @property
    def index(self) -> IntArray:
        """Numbers of the threads, ascending."""
        if self._index is None:
            self._index = np.flatnonzero(self.array)
        return self._index

    def pick(self, values: Array) -> Array:
        """The threads' own elements of an array over all threads, or a constant as it is."""
        return values if self.all or values.ndim == 0 else values[self.index]


Run = Callable[[Lanes], None]


class Machine:
    """State of the CTAs that run together, and the binding of operands to it."""

    def __init__(
        self,
        kernel: Kernel,
        parameters: npt.NDArray[np.uint8],
        memory: GlobalMemory,
        grid: Triple,
        block: Triple,
        blocks: IntArray,
        dynamic_shared: int,
    ) -> None:
        self.kernel = kernel
        self.memory = memory
        padded = (int(np.prod(block)) + WARP - 1) // WARP * WARP
        self.threads = Threads.of(blocks, padded)
        self.number = len(self.threads)
        self.exists = np.tile(np.arange(padded) < np.prod(block), len(blocks))
        self._dynamic_offset = (kernel.space_bytes("shared") + 127) // 128 * 128
        size = self._dynamic_offset + dynamic_shared if dynamic_shared else kernel.space_bytes("shared")
        self.shared = SharedMemory(self.threads, size, _granule(kernel))
        self.local = LocalMemory(self.threads, kernel.space_bytes("local"))
        self.parameters = parameters
        self.exited = ~self.exists
        self.async_copies: object = None  # instructions/async_copy.py keeps its state here
        self._registers: dict[str, Array] = {}
        self._special = _special_registers(grid, block, self.threads)

    def register(self, register: Register) -> Array:
        """All threads' copies of a register, as unsigned bits (bool for predicates)."""
        if register.name not in self._registers:
            kind = numpy_type(register.type)
            bits = kind if kind == np.bool_ else np.dtype(f"u{kind.itemsize}")
            poison = 0 if bits == np.bool_ else np.iinfo(bits).max
            self._registers[register.name] = np.full(self.number, poison, bits)
        return self._registers[register.name]

    def source(self, operand: Operand, kind: str) -> Array:
        """A view of an operand's current value: [T], or 0-d for a constant; f16x2 has a last axis of 2.

        A register wider than the type gives its low part (PTX ISA 9.0, section 9.4.1).
        """
        if isinstance(operand, Register):
            return _view(self.register(operand), kind)
        if isinstance(operand, Special):
            if operand.name not in self._special:
                raise PtxError("unsupported", f"special register {operand.name} is not supported")
            return self._special[operand.name].astype(numpy_type(kind))
        if isinstance(operand, (Immediate, Symbol)):
            value = self.constant(operand, kind)
            return _view(value.reshape(1), kind)[0] if kind == "f16x2" else value
        raise PtxError("unsupported", f"operand {operand} is not supported here")

    def constant(self, operand: Immediate | Symbol, kind: str) -> Array:
        """A constant as a 0-d array."""
        dtype = numpy_type(kind)
        if isinstance(operand, Symbol):
            return np.array(self.symbol(operand), dtype)
        text = operand.text.rstrip("U")
        if text.startswith(("0f", "0F")):
            return np.array(int(text[2:], 16), np.uint32).view(np.float32).astype(dtype)
        if text.startswith(("0d", "0D")):
            return np.array(int(text[2:], 16), np.uint64).view(np.float64).astype(dtype)
        if "." in text:
            return np.array(float(text), dtype)
        if dtype == np.bool_:
            return np.array(int(text, 0) != 0)
        bits = int(text, 0) & ((1 << 8 * dtype.itemsize) - 1)
        return np.array(bits, f"u{dtype.itemsize}").view(dtype)

    def symbol(self, symbol: Symbol) -> int:
        """Address of a variable or parameter within its state space."""
        if symbol.name in self.kernel.variables:
            variable = self.kernel.variables[symbol.name]
            return self._dynamic_offset if variable.space == "dynamic shared" else variable.offset
        for parameter in self.kernel.parameters:
            if parameter.name == symbol.name:
                return parameter.offset
        raise PtxError("unsupported", f"variable {symbol.name} is not supported")

    def predicate(self, operand: Operand) -> Callable[[], Array]:
        """A predicate operand, read when called."""
        if isinstance(operand, Negated):
            negated = self.register(operand.register)
            return lambda: ~negated
        value = self.source(operand, "pred")
        return lambda: value

    def target(self, operand: Operand, kind: str) -> Array:
        """The register's storage, for results that have exactly its width."""
        if isinstance(operand, Sink):
            return _view(np.empty(self.number, numpy_type(kind)), kind)
        assert isinstance(operand, Register), operand
        bits = self.register(operand)
        if bits.itemsize != size_of(kind):
            raise PtxError("syntax", f"result of type .{kind} in a register of type .{operand.type}")
        return _view(bits, kind)

    def writer(self, operand: Operand, kind: str) -> Callable[[Array, Lanes], None]:
        """Writes results over all threads into a register, extended to its width, under the mask."""
        if isinstance(operand, Sink):
            return lambda values, lanes: None
        target = self._extended(operand, kind)

        def write(values: Array, lanes: Lanes) -> None:
            if lanes.mask is None:
                target[...] = values
            else:
                np.copyto(target, values, where=lanes.mask if target.ndim == 1 else lanes.mask[:, None])

        return write

    def scatterer(self, operand: Operand, kind: str) -> Callable[[Array, Lanes], None]:
        """Like :meth:`writer`, for results of the active threads only."""
        if isinstance(operand, Sink):
            return lambda values, lanes: None
        target = self._extended(operand, kind)

        def write(values: Array, lanes: Lanes) -> None:
            target[slice(None) if lanes.all else lanes.index] = values

        return write

    def addresses(self, operand: Operand) -> Callable[[Lanes], IntArray]:
        """Addresses that the active threads name."""
        assert isinstance(operand, Address), operand
        offset = operand.offset
        if isinstance(operand.base, Register):
            base = self.register(operand.base)
            return lambda lanes: lanes.pick(base).astype(np.int64) + offset
        fixed = int(self.constant(operand.base, "u64")) + offset
        return lambda lanes: np.full(lanes.count, fixed, np.int64)

    def _extended(self, operand: Operand, kind: str) -> Array:
        """A view of a register that assigning values of ``kind`` extends as PTX says."""
        assert isinstance(operand, Register), operand
        bits = self.register(operand)
        if bits.itemsize == size_of(kind) or kind == "pred":
            return _view(bits, kind)
        if bits.itemsize < size_of(kind):
            raise PtxError("syntax", f"result of type .{kind} in a register of type .{operand.type}")
        return bits.view(f"i{bits.itemsize}") if kind[0] == "s" else bits


def _view(bits: Array, kind: str) -> Array:
    """Registers' bits as a type of the same or a smaller width."""
    dtype = numpy_type(kind)
    if kind == "f16x2":
        return bits.view(np.float16).reshape(-1, 2)
    if bits.itemsize == dtype.itemsize:
        return bits.view(dtype)
    if bits.itemsize < dtype.itemsize:
        raise PtxError("syntax", f"operand of type .{kind} in a register of {8 * bits.itemsize} bits")
    return bits.view(dtype)[:: bits.itemsize // dtype.itemsize]


def _granule(kernel: Kernel) -> int:
    """The smallest width in bytes with which a kernel touches shared memory (16 if it does not)."""
    return min((access_width(i) for i in kernel.instructions if _may_touch_shared(i)), default=16)


def _may_touch_shared(instruction: Instruction) -> bool:
    if instruction.parts[0] in ("ld", "st", "ldu"):
        return not any(instruction.has(space) for space in ("param", "global", "local", "const"))
    return instruction.parts[0] == "cp" and instruction.has("shared")


def access_width(instruction: Instruction) -> int:
    """Bytes that one thread moves with a load, store or copy."""
    if instruction.parts[0] == "cp":
        size = instruction.operands[2]
        assert isinstance(size, Immediate)
        return int(size.text, 0)
    count = 4 if instruction.has("v4") else 2 if instruction.has("v2") else 1
    return count * size_of(instruction.type)


def _special_registers(grid: Triple, block: Triple, threads: Threads) -> dict[str, Array]:
    """PTX ISA 9.0, chapter 10: those that nvcc uses."""
    number = np.arange(len(threads)) % threads.threads_per_cta
    cta = threads.block
    lane = number % WARP
    out: dict[str, Array] = {
        "%laneid": lane,
        "%warpid": number // WARP,
        "%nwarpid": np.array(threads.threads_per_cta // WARP),
        "WARP_SZ": np.array(WARP),
        "%lanemask_eq": np.uint32(1) << lane.astype(np.uint32),
        "%lanemask_lt": (np.uint64(1) << lane.astype(np.uint64)) - np.uint64(1),
        "%lanemask_le": (np.uint64(2) << lane.astype(np.uint64)) - np.uint64(1),
    }
    out["%lanemask_ge"] = np.uint64(0xFFFFFFFF) & ~out["%lanemask_lt"]
    out["%lanemask_gt"] = np.uint64(0xFFFFFFFF) & ~out["%lanemask_le"]
    for axis, name in enumerate("xyz"):
        out[f"%tid.{name}"] = number // int(np.prod(block[:axis])) % block[axis]
        out[f"%ctaid.{name}"] = cta // int(np.prod(grid[:axis])) % grid[axis]
        out[f"%ntid.{name}"] = np.array(block[axis])
        out[f"%nctaid.{name}"] = np.array(grid[axis])
    return out


__all__ = [
    "PARAMETER_WINDOW",
    "Lanes",
    "Machine",
    "Pair",
    "Run",
    "Triple",
    "Vector",
    "access_width",
]
