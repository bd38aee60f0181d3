"""Tensor-core instructions: ldmatrix and mma.sync, with the lane layouts of PTX ISA 9.0.

Where fragments lie is written here as one reshape per operand; ``test_ptx_matrix.py`` pins each against the
formulas of sections 9.7.14.5.8 (mma.m16n8k16), 9.7.14.5.7 (m16n8k8) and 9.7.14.5.15 (ldmatrix), lane by lane.
In the names of axes, ``g`` is the ISA's groupID (lane / 4), ``t`` its threadID_in_group (lane % 4), ``e`` the
half of a 32-bit register.
"""

from __future__ import annotations

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..memory import WARP
from ..parser import Instruction, Vector
from ..scalar_types import Array, IntArray
from .table import instruction


def fragments_a(registers: Array) -> Array:
    """A [W, 16, K] from f16 registers [K/4, W, 32, 2]; register = 2 * (column half) + (row half)."""
    count, warps = registers.shape[:2]
    axes = registers.reshape(count // 2, 2, warps, 8, 4, 2)  # column half, row half, warp, g, t, e
    return np.asarray(axes.transpose(2, 1, 3, 0, 4, 5).reshape(warps, 16, 4 * count))


def fragments_b(registers: Array) -> Array:
    """B [W, K, 8] from f16 registers [K/8, W, 32, 2]; register = half of the rows."""
    count, warps = registers.shape[:2]
    axes = registers.reshape(count, warps, 8, 4, 2)  # row half, warp, g, t, e
    return np.asarray(axes.transpose(1, 0, 3, 4, 2).reshape(warps, 8 * count, 8))


def fragments_c(registers: Array) -> Array:
    """C [W, 16, 8] from f32 registers [4, W, 32]; register = 2 * (half of the rows) + (odd column)."""
    warps = registers.shape[1]
    axes = registers.reshape(2, 2, warps, 8, 4)  # row half, e, warp, g, t
    return np.asarray(axes.transpose(2, 0, 3, 4, 1).reshape(warps, 16, 8))


def registers_d(matrix: Array) -> Array:
    """f32 registers [4, W, 32] from D [W, 16, 8]: the inverse of :func:`fragments_c`."""
    warps = matrix.shape[0]
    axes = matrix.reshape(warps, 2, 8, 4, 2)  # warp, row half, g, t, e
    return np.asarray(axes.transpose(1, 4, 0, 2, 3).reshape(4, warps, WARP))


_SHAPES = {"m16n8k16": (4, 2), "m16n8k8": (2, 1)}  # registers of A and of B


@instruction("mma")
def _multiply_accumulate(machine: Machine, ins: Instruction) -> Run:
    """mma.sync.aligned.m16n8k{16,8}.row.col.f32.f16.f16.f32: products exact, sums in f32."""
    shape = next((s for s in _SHAPES if ins.has(s)), None)
    if shape is None or ins.parts[4:] != ("row", "col", "f32", "f16", "f16", "f32"):
        raise PtxError("unsupported", f"{'.'.join(ins.parts)} is not supported")
    vectors = [operand for operand in ins.operands if isinstance(operand, Vector)]
    d, a, b, c = (vector.parts for vector in vectors)
    if (len(d), len(a), len(b), len(c)) != (4, *_SHAPES[shape], 4):
        raise PtxError("syntax", "wrong number of registers in a fragment")
    a_sources = [machine.source(operand, "f16x2") for operand in a]
    b_sources = [machine.source(operand, "f16x2") for operand in b]
    c_sources = [machine.source(operand, "f32") for operand in c]
    writers = [machine.writer(operand, "f32") for operand in d]
    warps = machine.number // WARP

    def stack(sources: list[Array], *tail: int) -> Array:
        return np.stack([np.broadcast_to(s, (machine.number, *tail)) for s in sources]).reshape(
            -1, warps, WARP, *tail
        )

    def run(lanes: Lanes) -> None:
        left = fragments_a(stack(a_sources, 2)).astype(np.float32)
        right = fragments_b(stack(b_sources, 2)).astype(np.float32)
        result = registers_d(np.matmul(left, right) + fragments_c(stack(c_sources)))
        for i, write in enumerate(writers):
            write(result[i].reshape(-1), lanes)

    return run


def matrix_elements(transposed: bool) -> tuple[IntArray, IntArray]:
    """For each lane and half, row and column of the matrix element that ldmatrix puts there: [32, 2]."""
    lane = np.arange(WARP)[:, None]
    row = np.broadcast_to(lane // 4, (WARP, 2))
    column = lane % 4 * 2 + np.arange(2)
    return (column, row) if transposed else (row, column)


@instruction("ldmatrix")
def _load_matrix(machine: Machine, ins: Instruction) -> Run:
    """ldmatrix.sync.aligned.m8n8.x{1,2,4}{.trans}.shared.b16: lanes 8i to 8i+7 name the rows of matrix i."""
    if not ins.has("m8n8") or ins.type != "b16" or not ins.has("shared"):
        raise PtxError("unsupported", f"{'.'.join(ins.parts)} is not supported")
    count = next(n for n in (1, 2, 4) if ins.has(f"x{n}"))
    vector = ins.operands[0]
    registers = vector.parts if isinstance(vector, Vector) else (vector,)
    if len(registers) != count:
        raise PtxError("syntax", "wrong number of registers for ldmatrix")
    addresses = machine.addresses(ins.operands[1])
    targets = [machine.target(operand, "b32").view(np.uint16).reshape(-1, WARP, 2) for operand in registers]
    row, column = matrix_elements(ins.has("trans"))
    halves = machine.shared.view(np.uint16)

    def run(lanes: Lanes) -> None:
        thread = lanes.index.reshape(-1, WARP)
        named = addresses(lanes).reshape(-1, WARP)[:, : 8 * count]
        readers = thread[:, : 8 * count].reshape(-1)
        start = machine.shared.locate(named.reshape(-1), 16, readers)
        machine.shared.check_read(start, 16, readers, collective=True)
        rows = (start // 2).reshape(-1, count, 8)
        warp = thread[:, 0] // WARP
        for i, target in enumerate(targets):
            target[warp] = halves[rows[:, i, :][:, row] + column]

    return run
