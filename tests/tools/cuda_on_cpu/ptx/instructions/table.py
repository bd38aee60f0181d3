"""The table of instructions, and helpers that most of them use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import PtxError
from ..machine import Lanes, Machine, Run
from ..parser import Instruction, Operand, Sink
from ..scalar_types import Array, size_of

Binder = Callable[[Machine, Instruction], Run]
BINDERS: dict[str, Binder] = {}


def instruction(*names: str) -> Callable[[Binder], Binder]:
    """Registers a binder for the first words of opcodes."""

    def register(binder: Binder) -> Binder:
        for name in names:
            assert name not in BINDERS
            BINDERS[name] = binder
        return binder

    return register


def allow(instruction: Instruction, *words: str) -> None:
    """Refuses qualifiers other than these and the types at the end.

    Raises:
        PtxError: ``unsupported``.
    """
    unknown = [w for w in instruction.parts[1:-1] if w not in words]
    if unknown:
        raise PtxError("unsupported", f"qualifier .{unknown[0]} of {instruction.parts[0]} is not supported")


def compute(
    machine: Machine,
    target: Operand,
    target_type: str,
    function: Callable[..., Any],
    *sources: Array,
) -> Run:
    """Applies an elementwise function to all threads; the active ones keep the result.

    A ufunc writes straight into the register when all threads are active.
    """
    if isinstance(target, Sink):
        return lambda lanes: None
    out = machine.target(target, target_type)

    def run(lanes: Lanes) -> None:
        if lanes.mask is None:
            if isinstance(function, np.ufunc):
                function(*sources, out=out)
            else:
                out[...] = function(*sources)
        else:
            mask = lanes.mask if out.ndim == 1 else lanes.mask[:, None]
            np.copyto(out, function(*sources), where=mask, casting="unsafe")

    return run


def sources_of(machine: Machine, instruction: Instruction, kind: str, count: int) -> list[Array]:
    """Operands 1 to ``count`` in one type."""
    return [machine.source(operand, kind) for operand in instruction.operands[1 : 1 + count]]


def width(kind: str) -> int:
    """Bits of a type."""
    return 8 * size_of(kind)
