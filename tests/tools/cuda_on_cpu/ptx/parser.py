"""Parses a PTX module into kernels: parameters, variables, registers, instructions, labels.

Covers the PTX that nvcc emits, including scopes and registers of inline assembly (PTX ISA 9.0, chapters 4 and
5). Unknown syntax is an error and never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .errors import PtxError
from .program import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Module,
    Negated,
    Operand,
    Pair,
    Parameter,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)
from .scalar_types import is_type, size_of

_ENTRY = re.compile(r"(?:\.visible\s+|\.weak\s+)*\.entry\s+([\w$]+)\s*(?=[({.])")
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)(?:\s+\.ptr\b[^,\]]*?)?\s+([\w$]+)(?:\[(\d+)\])?\s*$"
)
_VARIABLE = re.compile(
    r"\.(?:extern\s+\.)?(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)\s*$"
)
_REGISTERS = re.compile(r"\.reg\s*\.(\w+)\s+(.*)$", re.S)
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)")
_LABEL = re.compile(r"([$\w%]+)\s*:(?!:)")
_GUARD = re.compile(r"@(!?)([%$\w]+)\s+")
_FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')


def parse(text: str) -> Module:
    """Kernels of a PTX file.

    Raises:
        PtxError: ``syntax`` or ``unsupported``, with the line.
    """
    text = _blank_comments(text)
    target = re.search(r"^\s*\.target\s+(\w+)", text, re.M)
    files = {number: name.rsplit("/", 1)[-1] for number, name in _FILE.findall(text)}
    external = list(re.finditer(r"\.extern\s+\.shared[^;]*(?=;)", text))
    kernels = {}
    for entry in _ENTRY.finditer(text):
        start = text.index("{", _after_parameters(text, entry.end()))
        parser = _KernelParser(entry[1], files)
        parser.read_header(text[entry.end() : start])
        parser.read_body(text, start + 1)
        for declaration in external:
            parser.declare_variable(" ".join(declaration[0].split()))
        kernels[entry[1]] = parser.kernel
    if re.search(r"^\s*(?:\.visible\s+|\.weak\s+)*\.func\b", text, re.M):
        raise PtxError("unsupported", "device functions that were not inlined (.func) are not supported")
    return Module(kernels, target[1] if target else "")


def _blank_comments(text: str) -> str:
    """The text with comments replaced by spaces, which keeps line numbers."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.S)


def _after_parameters(text: str, position: int) -> int:
    """The position after the parameter list that may start at ``position``."""
    return text.index(")", position) if text[position:].lstrip().startswith("(") else position


class _KernelParser:
    """Reads one kernel, statement by statement."""

    def __init__(self, name: str, files: dict[str, str]) -> None:
        self.kernel = Kernel(name)
        self._files = files
        self._scopes: list[dict[str, Register]] = [{}]
        self._ranges: list[tuple[str, int, str]] = []  # %r<267>: prefix, count, type
        self._scope_count = 0
        self._source = ""

    def read_header(self, header: str) -> None:
        """The parameter list and the performance directives behind it."""
        inside, _, behind = header.partition(")")
        offset = 0
        for declaration in filter(None, (part.strip() for part in inside.strip(" (\n\t").split(","))):
            match = _PARAMETER.match(" ".join(declaration.split()))
            if not match:
                raise PtxError("syntax", f"parameter not understood: {declaration}")
            align, kind, name, count = match.groups()
            size = size_of(kind) * int(count or 1)
            unit = int(align or size_of(kind))
            offset = _round_up(offset, unit)
            self.kernel.parameters.append(Parameter(name, kind, offset, size))
            offset += size
        for directive, value in re.findall(r"\.(\w+)\s+([\d ,]+)", behind):
            self.kernel.directives[directive] = value.strip()

    def read_body(self, text: str, start: int) -> None:
        """Everything between the braces of the kernel."""
        line = text.count("\n", 0, start) + 1
        depth = 1
        for statement, number in _statements(text, start, line):
            if statement == "{":
                depth += 1
                self._scopes.append({})
                self._scope_count += 1
            elif statement == "}":
                depth -= 1
                if depth == 0:
                    break
                self._scopes.pop()
            else:
                self._statement(statement, number)
        for target in {*self._branches()}:
            if target not in self.kernel.labels and target not in self.kernel.branch_targets:
                raise PtxError("syntax", f"label {target} does not exist")

    def declare_variable(self, statement: str) -> None:
        """A variable in shared or local memory; one without a size is the launch's dynamic shared memory."""
        match = _VARIABLE.match(statement)
        if not match:
            raise PtxError("unsupported", f"declaration not supported: {statement}")
        space, align, kind, name, dimensions = match.groups()
        counts = re.findall(r"\[(\d*)\]", dimensions)
        if "" in counts:
            self.kernel.variables[name] = Variable(name, "dynamic shared", 0, 0)
            return
        size = size_of(kind) * int(np.prod([int(c) for c in counts], dtype=np.int64))
        offset = _round_up(self.kernel.space_bytes(space), int(align or size_of(kind)))
        self.kernel.variables[name] = Variable(name, space, offset, size)

    def _branches(self) -> Iterator[str]:
        for instruction in self.kernel.instructions:
            if instruction.parts[0] in ("bra", "brx"):
                target = instruction.operands[-1]
                assert isinstance(target, Symbol)
                yield target.name

    def _statement(self, statement: str, line: int) -> None:
        while label := _LABEL.match(statement):
            self.kernel.labels[label[1]] = len(self.kernel.instructions)
            statement = statement[label.end() :].strip()
            if statement.startswith(".branchtargets"):
                names = statement.split(None, 1)[1]
                self.kernel.branch_targets[label[1]] = tuple(n.strip() for n in names.split(","))
                return
        if not statement:
            return
        if location := _LOCATION.match(statement):
            self._source = f"{self._files.get(location[1], location[1])}:{location[2]}"
        elif registers := _REGISTERS.match(statement):
            self._declare_registers(registers[1], registers[2])
        elif statement.startswith((".shared", ".local", ".extern")):
            self.declare_variable(statement)
        elif statement.startswith(".pragma"):
            pass
        elif statement[0] == ".":
            raise PtxError("unsupported", f"directive not supported, PTX line {line}: {statement}")
        else:
            self.kernel.instructions.append(self._instruction(statement, line))

    def _declare_registers(self, kind: str, names: str) -> None:
        if not is_type(kind):
            raise PtxError("unsupported", f"registers of type .{kind} are not supported")
        for name in (n.strip() for n in names.split(",")):
            if many := re.fullmatch(r"([%$\w]+)<(\d+)>", name):
                self._ranges.append((many[1], int(many[2]), kind))
                continue
            # Scopes of inline assembly reuse names: each gets its own.
            unique = name if len(self._scopes) == 1 else f"{name}@{self._scope_count}"
            self._scopes[-1][name] = Register(unique, kind)

    def _register(self, name: str) -> Register | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        for prefix, count, kind in self._ranges:
            digits = name[len(prefix) :]
            if name.startswith(prefix) and digits.isdigit() and int(digits) < count:
                return Register(name, kind)
        return None

    def _instruction(self, statement: str, line: int) -> Instruction:
        text = statement
        guard: Register | Negated | None = None
        if match := _GUARD.match(statement):
            register = self._register(match[2])
            if register is None:
                raise PtxError("syntax", f"unknown predicate {match[2]}, PTX line {line}")
            guard = Negated(register) if match[1] else register
            statement = statement[match.end() :]
        opcode, _, rest = statement.partition(" ")
        operands = tuple(self._operand(part, line) for part in _split_operands(rest))
        # "shared::cta" is "shared"; "L2::128B" is a hint for caches.
        words = tuple(
            w.partition("::")[0]
            for w in re.split(r"(?<!:)\.(?!:)", opcode)
            if not w.startswith(("L1::", "L2::"))
        )
        return Instruction(words, operands, guard, text, line, self._source)

    def _operand(self, text: str, line: int) -> Operand:
        if text == "_":
            return Sink()
        if text[0] == "{":
            return Vector(tuple(self._operand(part, line) for part in _split_operands(text[1:-1])))
        if text[0] == "[":
            return self._address(text, line)
        if text[0] == "!":
            register = self._register(text[1:].strip())
            if register is not None:
                return Negated(register)
        elif "|" in text:
            first, second = text.split("|")
            return Pair(self._operand(first.strip(), line), self._operand(second.strip(), line))
        elif register := self._register(text):
            return register
        elif re.fullmatch(r"-?\d\w*", text):
            return Immediate(text)
        elif text[0] == "%" or text == "WARP_SZ":
            return Special(text)
        elif re.fullmatch(r"[\w$]+", text):
            return Symbol(text)
        raise PtxError("syntax", f"operand '{text}' not understood, PTX line {line}")

    def _address(self, text: str, line: int) -> Address:
        match = re.fullmatch(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if not match:
            raise PtxError("syntax", f"address '{text}' not understood, PTX line {line}")
        base = self._operand(match[1], line)
        assert isinstance(base, (Register, Symbol, Immediate))
        return Address(base, int(match[2] or "0", 0))


def _round_up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit


def _split_operands(text: str) -> list[str]:
    """Operands separated by commas. Commas inside braces and brackets do not separate."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text) if part.strip()]


def _statements(text: str, position: int, line: int) -> Iterator[tuple[str, int]]:
    """Statements with their line numbers; a brace that opens or closes a scope is a statement of its own."""
    while True:
        while text[position].isspace():
            line += text[position] == "\n"
            position += 1
        if text[position] in "{};":
            if text[position] != ";":
                yield text[position], line
            position += 1
            continue
        # .loc and .file end with the line; all else ends with a semicolon (a label stays with what follows).
        if text.startswith((".loc ", ".loc\t", ".file"), position):
            end = text.index("\n", position)
        else:
            label = re.compile(r"[$\w%]+\s*:(?!:)").match(text, position)
            end = (
                label.end()
                if label and not text[label.end() :].lstrip().startswith(".branch")
                else text.index(";", position)
            )
        statement = text[position:end]
        yield " ".join(statement.split()), line
        line += statement.count("\n")
        position = end
