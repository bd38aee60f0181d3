"""A parsed PTX module: kernels, their instructions and operands."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import PtxError


@dataclass(frozen=True)
class Register:
    """A register, by a name that is unique in its kernel, with the type it was declared with."""

    name: str
    type: str


@dataclass(frozen=True)
class Special:
    """A read-only register of the machine, such as ``%tid.x``."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A constant, as written: ``-1``, ``0x10``, ``0f3F800000``, ``0d...``."""

    text: str


@dataclass(frozen=True)
class Symbol:
    """The address of a variable or parameter, or a label."""

    name: str


@dataclass(frozen=True)
class Address:
    """``[base + offset]``."""

    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True)
class Vector:
    """``{a, b, ...}``."""

    parts: tuple[Operand, ...]


@dataclass(frozen=True)
class Negated:
    """``!p``."""

    register: Register


@dataclass(frozen=True)
class Pair:
    """``d|p``: a result and a predicate, or two predicates."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Sink:
    """``_``: a result that is discarded."""


Operand = Register | Special | Immediate | Symbol | Address | Vector | Negated | Pair | Sink


@dataclass(frozen=True)
class Instruction:
    """One instruction; ``parts`` are the words of its opcode, ``("ld", "shared", "v2", "f32")``."""

    parts: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | Negated | None
    text: str
    line: int
    source: str = ""  # "file:line" of the CUDA source, when nvcc was given -lineinfo

    @property
    def type(self) -> str:
        """The last word of the opcode."""
        return self.parts[-1]

    def has(self, word: str) -> bool:
        """Whether the opcode holds this word."""
        return word in self.parts[1:]

    def place(self) -> str:
        """Its position, for messages."""
        return f"PTX line {self.line}: {self.text}" + (f"   ({self.source})" if self.source else "")


@dataclass(frozen=True)
class Variable:
    """A variable in memory: ``offset`` within its state space, of one CTA (shared) or one thread (local)."""

    name: str
    space: str
    offset: int
    size: int


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter and its place in the parameter block (PTX ISA 9.0, section 5.1.6.1)."""

    name: str
    type: str  # "b8" for a structure
    offset: int
    size: int


@dataclass
class Kernel:
    """One ``.entry``: everything needed to execute it."""

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    branch_targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    directives: dict[str, str] = field(default_factory=dict)  # maxntid, minnctapersm, ...

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameter block."""
        return max((p.offset + p.size for p in self.parameters), default=0)

    def space_bytes(self, space: str) -> int:
        """Bytes of statically sized variables in a state space."""
        return max((v.offset + v.size for v in self.variables.values() if v.space == space), default=0)


@dataclass(frozen=True)
class Module:
    """A PTX file: its kernels by (mangled) name, and the target it was compiled for."""

    kernels: dict[str, Kernel]
    target: str

    def kernel(self, name: str) -> Kernel:
        """The one kernel whose name contains ``name``."""
        found = [k for n, k in self.kernels.items() if n == name] or [
            k for n, k in self.kernels.items() if name in n
        ]
        if len(found) != 1:
            raise PtxError("launch", f"{len(found)} kernels of {sorted(self.kernels)} contain '{name}'")
        return found[0]
