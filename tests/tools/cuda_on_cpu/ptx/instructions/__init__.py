"""Semantics of the instructions: a table from the first word of an opcode to a function that binds it."""

from __future__ import annotations

from ..errors import PtxError
from ..machine import Machine, Run
from ..parser import Instruction
from . import arithmetic, async_copy, bits, conversion, load_store, matrix, warp
from .table import BINDERS

__all__ = ["arithmetic", "async_copy", "bind", "bits", "conversion", "load_store", "matrix", "warp"]


def bind(machine: Machine, instruction: Instruction) -> Run:
    """The instruction as a function of the threads that execute it.

    Raises:
        PtxError: ``unsupported`` when the interpreter does not know the instruction or one of its qualifiers.
    """
    binder = BINDERS.get(instruction.parts[0])
    if binder is None:
        raise PtxError("unsupported", f"instruction {instruction.parts[0]} is not supported")
    return binder(machine, instruction)
