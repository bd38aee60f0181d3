"""Builds the CUDA kernels as C++ and runs problems through them, without nvcc and without a GPU.

``cuda_on_cpu.h`` explains how a kernel is executed. Programs and object files are cached in
``build/cuda_on_cpu`` under a hash of their sources and flags.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from affinity_cases import Array, Inputs
from compilers import CLANG, GCC_OR_CLANG, compiler
from once import alone

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[3]
KERNELS = REPOSITORY / "plugins" / "windowed_affinity" / "cuda"
BUILDS = REPOSITORY / "build" / "cuda_on_cpu"

ASAN = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")
TSAN = ("-fsanitize=thread", "-g")
TYPES = ("float32", "float16")


WERROR = "MASKRING_WERROR=ON" in os.environ.get("CMAKE_ARGS", "")
"""Whether compiler warnings fail the tests: only in CI, where the compilers are known."""


class KernelFailed(Exception):
    """The kernel crashed, deadlocked or was stopped by a sanitizer; the message is what it printed."""


class CompilationFailed(Exception):
    """The compiler failed; the message is what it printed."""


@dataclass(frozen=True)
class Mutation:
    """A planted bug: in one file of the kernels, ``old`` (which must occur exactly once) becomes ``new``."""

    name: str
    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.name

    def apply(self, kernels: Path) -> None:
        path = kernels / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.old)} times {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


def cuda_headers() -> list[Path]:
    """Folders of NVIDIA's headers: the pip packages', else a system toolkit's; empty when there are none."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(p) / "cu13" / "include" for p in (spec.submodule_search_locations or [])] if spec else []
    roots += [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    for root in roots:
        if (root / "cuda_fp16.h").is_file():
            return [root, root / "cccl"]
    return []


def compiler_for(flags: Sequence[str] = ()) -> str | None:
    """What compiles with these flags; None when nothing here does.

    For ThreadSanitizer it is clang: g++'s reports a race in a program of fibers that has none.
    """
    sanitizers = [flag for flag in flags if flag.startswith("-fsanitize")]
    return compiler(*sanitizers, names=CLANG if "-fsanitize=thread" in flags else GCC_OR_CLANG)


def lacks(flags: Sequence[str]) -> str:
    """Why a test that needs these flags is skipped."""
    kind = "clang" if flags == TSAN else "g++ or clang"
    return f"no {kind} that compiles, links and runs a program with {flags[0]}"


needs_cuda_headers = pytest.mark.skipif(
    not cuda_headers(), reason="no CUDA headers: pip install 'maskring[cuda]'"
)
needs_compiler = pytest.mark.skipif(compiler_for() is None, reason="no C++ compiler")
needs_asan = pytest.mark.skipif(compiler_for(ASAN) is None, reason=lacks(ASAN))
needs_tsan = pytest.mark.skipif(compiler_for(TSAN) is None, reason=lacks(TSAN))


def build(
    flags: Sequence[str] = ("-O1",), mutation: Mutation | None = None, rows: Sequence[str] | None = None
) -> Path:
    """The program ``run_cases``, of the kernels as they are or with a planted bug.

    Args:
        flags: of the compiler.
        mutation: the bug.
        rows: rows of the dispatch table that are wanted, None for all: fewer are compiled sooner.
    """
    BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILDS) as scratch:
        kernels = Path(shutil.copytree(KERNELS, Path(scratch) / "cuda"))
        if mutation is not None:
            mutation.apply(kernels)
        if rows is not None:
            keep_rows(kernels, rows)
        sources = [*kernels.glob("*.cu"), *kernels.glob("*.cpp"), *HERE.glob("*.cpp")]
        return _program("run_cases", sources, kernels, flags)


def keep_rows(kernels: Path, rows: Sequence[str]) -> None:
    """Take all rows but these out of a copy of the kernels: from the dispatch table, and what is compiled for them."""
    table = kernels / "dispatch.cpp"
    found = re.findall(r'^    \{"(.+?)", .*, (launch_\w+<.*>)\},\n', table.read_text(), re.MULTILINE)
    dropped = {name: function for name, function in found if name not in rows}
    if len(dropped) != len(found) - len(rows):
        raise ValueError(f"not all of these are rows of {table.name}: {rows}")
    table.write_text(
        re.sub(rf'^    \{{"({"|".join(dropped)})", .*\n', "", table.read_text(), flags=re.MULTILINE)
    )
    for source in kernels.glob("*.cu"):
        text = source.read_text()
        for function in dropped.values():
            instance = re.sub(r"\bF(32|16)\b", r"ElementType::float\1", function)
            text = text.replace(f"template int {instance}(const AffinityProblem&, CUstream_st*);\n", "")
        source.write_text(text)


def run_probe(name: str, flags: Sequence[str] = ("-O1",), **variables: str) -> str:
    """What one of the kernels that try the emulator itself (``probes/probes.cu``) prints."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    program = _program("probes", [HERE / "probes" / "probes.cu", HERE / "runtime.cpp"], KERNELS, flags)
    return _run([str(program), name], **variables)


def objects(flags: Sequence[str] = ("-O1",)) -> list[Path]:
    """Object files of the kernels and the emulator, to be linked into other programs than ``run_cases``."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    sources = [*KERNELS.glob("*.cu"), *KERNELS.glob("*.cpp"), HERE / "runtime.cpp"]
    return [_object(_command(flags), source, KERNELS) for source in sorted(sources)]


def _command(flags: Sequence[str]) -> list[str]:
    command = [compiler_for(flags) or "g++", "-std=c++20", "-DMASKRING_ON_CPU", "-pthread"]
    command += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", *flags, f"-I{HERE}"]
    return command + [f"-isystem{folder}" for folder in cuda_headers()]


def _program(name: str, sources: Sequence[Path], kernels: Path, flags: Sequence[str]) -> Path:
    command = _command(flags)
    objects = [_object(command, source, kernels) for source in sorted(sources)]
    program = BUILDS / f"{name}-{_digest(repr(command), *(path.name for path in objects))}"
    with alone(program) as missing:
        if missing:
            _compile([*command, *map(str, objects)], program)
    return program


def _object(command: list[str], source: Path, kernels: Path) -> Path:
    """The object file of one source, compiled unless the same source with the same headers was before."""
    # Kernels are compiled in a scratch copy: its path, which changes, must not count.
    texts = [path.read_text() for path in _with_includes(source, (kernels, HERE))]
    made = BUILDS / f"{source.stem}-{_digest(repr(command), *texts)}.o"
    with alone(made) as missing:
        if missing:
            language = ["-include", "cuda_on_cpu.h", "-x", "c++"] if source.suffix == ".cu" else []
            _compile([*command, f"-I{kernels}", *language, "-c", str(source)], made)
    return made


def _with_includes(source: Path, folders: Sequence[Path]) -> list[Path]:
    """A source and the project's headers that it includes, directly or not."""
    found = [source] if source.suffix != ".cu" else [source, HERE / "cuda_on_cpu.h"]
    for path in found:
        for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            header = next(folder / name for folder in folders if (folder / name).is_file())
            if header not in found:
                found.append(header)
    return found


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _compile(command: list[str], made: Path) -> None:
    """Runs a compiler; its output appears under its name when it is complete."""
    with tempfile.TemporaryDirectory(dir=BUILDS) as scratch:
        out = Path(scratch) / made.name
        try:
            _run([*command, "-o", str(out)])
        except KernelFailed as error:
            raise CompilationFailed(str(error)) from error
        out.rename(made)


def _run(command: list[str], **variables: str) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    if done.returncode != 0:
        raise KernelFailed(f"{command[0]} ended with {done.returncode}\n{done.stderr[-6000:]}")
    return done.stdout


def configurations(program: Path) -> list[str]:
    """Names of the dispatch table's rows, in their order."""
    return _run([str(program), "--list"]).splitlines()


@dataclass(frozen=True)
class Ran:
    """What came of some problems: the results, and the rows of the dispatch table that computed them."""

    results: list[Array]
    rows: list[str]


def run(
    program: Path, configuration: str | None, problems: Sequence[Inputs], *, sm: int = 90, **variables: str
) -> Ran:
    """Runs problems through a row of the dispatch table.

    Args:
        program: from :func:`build`.
        configuration: the row's name, or None for the one that dispatch chooses.
        problems: in the row's type.
        sm: compute capability that dispatch is told.
        variables: of the environment, such as ``CUDA_ON_CPU_SEED``.

    Raises:
        KernelFailed: the program did not end well, or no row computes a problem.
    """
    index = -1 if configuration is None else configurations(program).index(configuration)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "in", Path(folder) / "out"
        with given.open("wb") as file:
            for problem in problems:
                file.write(_header(index, sm, problem))
                for array in (problem.query, problem.keys, problem.values, problem.dilation, problem.offsets):
                    if array is not None:
                        file.write(np.ascontiguousarray(array).tobytes())
        rows = _run([str(program), str(given), str(made)], **variables).splitlines()
        flat = made.read_bytes()
    results, start = [], 0
    for problem in problems:
        shape = (problem.values.shape[0], *problem.values.shape[2:])
        result = np.frombuffer(flat, problem.values.dtype, int(np.prod(shape)), start).reshape(shape)
        start += result.nbytes
        results.append(result)
    return Ran(results, rows)


def _header(configuration: int, sm: int, problem: Inputs) -> bytes:
    batch, slots, labels, height, width = problem.values.shape
    channels, kind = problem.query.shape[1], TYPES.index(problem.values.dtype.name)
    sizes = (batch, slots, channels, labels, height, width, problem.radius, problem.offsets is not None)
    return struct.pack("11if", configuration, sm, kind, *sizes, problem.scale)
