"""Compiles the CUDA kernels with nvcc and reads registers, spills and instructions from their machine code."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
KERNELS = REPOSITORY / "plugins" / "windowed_affinity" / "cuda"
BUILDS = REPOSITORY / "build" / "kernels"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
CHANNELS = 64


@dataclass(frozen=True)
class Limits:
    """Capacity of an SM (CUDA C++ Programming Guide, compute capabilities)."""

    warps: int
    blocks: int
    shared_bytes: int


LIMITS = {
    75: Limits(32, 16, 64 << 10),
    80: Limits(64, 32, 164 << 10),
    86: Limits(48, 16, 100 << 10),
    87: Limits(48, 16, 164 << 10),
    89: Limits(48, 24, 100 << 10),
    90: Limits(64, 32, 228 << 10),
    100: Limits(64, 32, 228 << 10),
    110: Limits(48, 24, 228 << 10),
    120: Limits(48, 24, 100 << 10),
}
RESERVED_SHARED = 1 << 10  # per CTA, by the system, from sm_80 on


@dataclass(frozen=True)
class Row:
    """A row of the dispatch table, as printed by C++."""

    name: str
    threads: int
    shared_bytes: int
    tile_x: int
    tile_y: int
    columns: int
    block_x: int
    block_y: int
    key_tiles: int

    @property
    def source(self) -> str:
        return self.name.split()[0] + ".cu"

    @property
    def compiled_radius(self) -> int:
        """The largest on tensor cores, the only one on CUDA cores."""
        return int(next(word[1:] for word in self.name.split() if word[0] == "r"))

    @property
    def radius(self) -> int:
        """Of the benchmark: on tensor cores that of smoothing, of training at stride 8 and 4, and the largest."""
        return {4: 2, 8: 6}.get(self.compiled_radius, self.compiled_radius)

    @property
    def max_labels(self) -> int:
        return int(next((word[1:] for word in self.name.split() if word[0] == "o"), 32))

    @property
    def symbol(self) -> str:
        """A part of the kernel's mangled name that is unique."""
        family, kind, *rest = self.name.split()
        if family == "mma":
            tiles = self.max_labels // 8 + 1
            return f"ShapeILi{self.compiled_radius}ELi{CHANNELS}ELi{tiles}E"
        element = {"f32": "f", "f16": "6__half"}[kind]
        return f"{family}8affinityI{element}" + (
            f"Li{rest[0][1:] if rest else 0}E" if family == "simt" else "E"
        )


BRANCH = re.compile(r"^BRA(?!\.DIV).*?(\.L_x_\d+)")


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture: what ptxas reports, and its machine code."""

    row: Row
    sm: int
    registers: int
    spilled_bytes: int
    code: tuple[str, ...]
    labels: dict[str, int]

    @property
    def blocks_per_sm(self) -> int:
        """CTAs that can be resident on an SM."""
        limits, warps = LIMITS[self.sm], self.row.threads // 32
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = 65536 // per_warp // 4 * 4 // warps
        reserved = RESERVED_SHARED if self.sm >= 80 else 0
        by_shared = limits.shared_bytes // (self.row.shared_bytes + reserved)
        return min(limits.blocks, limits.warps // warps, by_registers, by_shared)

    @property
    def occupancy(self) -> float:
        return self.blocks_per_sm * self.row.threads / 32 / LIMITS[self.sm].warps

    def body(self) -> Counter[str]:
        """Instructions of a warp per stage of two key rows.

        Code that a branch after a vote skips is not counted: it rescales sums when the maximum grows, which is
        rare after a window's first rows.
        """
        lines = self._region()
        skipped: set[int] = set()
        targets = self._targets()
        votes = [i for i in lines if self.code[i].startswith("VOTE")]
        for branch in (next(i for i in range(vote, lines.stop) if i in targets) for vote in votes):
            skipped.update(range(branch + 1, targets[branch]))
        executed = [self.code[i] for i in lines if i not in skipped]
        return Counter("EX2" if "EX2" in line else re.split(r"[ .]", line)[0] for line in executed)

    def product_loop(self) -> Counter[str]:
        """Instructions of a CUDA-core kernel's loop over channels at step 1; one iteration takes several channels.

        Its loads of queries from global memory distinguish it from the loop over labels. The loop for wider
        steps also computes addresses, so the one with fewer instructions per FFMA is returned.
        """
        loops = [range(to, at + 1) for at, to in self._targets().items() if to < at]
        inner = [one for one in loops if not any(o != one and o[0] in one and o[-1] in one for o in loops)]
        counts = [
            Counter(re.split(r"[ .]", line)[0] for line in self.code[one.start : one.stop]) for one in inner
        ]
        products = [count for count in counts if count["LDG"] and count["FFMA"]]
        return min(products, key=lambda count: count.total() / count["FFMA"])

    def _targets(self) -> dict[int, int]:
        """Branches and their targets, without those after the last EXIT (out-of-line code)."""
        last = max(i for i, line in enumerate(self.code) if line.startswith("EXIT"))
        matches = ((i, BRANCH.search(line)) for i, line in enumerate(self.code[:last]))
        return {i: self.labels[target[1]] for i, target in matches if target}

    def _region(self) -> range:
        """The smallest loop or skippable part of the loop over stages that contains all HMMA."""
        multiplies = [i for i, line in enumerate(self.code) if line.startswith("HMMA")]
        parts = [range(to, at + 1) if to < at else range(at + 1, to) for at, to in self._targets().items()]
        return min((p for p in parts if multiplies[0] in p and multiplies[-1] in p), key=len)


def toolkit(program: str) -> str:
    """The path of a program of the CUDA toolkit, from pip or else from the system."""
    spec = importlib.util.find_spec("nvidia")
    folders = [f"{root}/cu13/bin" for root in spec.submodule_search_locations or []] if spec else []
    path = shutil.which(program, path=":".join(folders)) or shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} was not found; pip install 'maskring[cuda]'.")
    return path


def command(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{Path(arguments[0]).name} failed:\n{done.stderr[-3000:]}")
    return done


def table_rows() -> list[Row]:
    """The dispatch table, printed by a C++ program that does not need CUDA."""
    source = """
        #include <cstdio>
        #include "dispatch.hpp"
        int main() {
            for (int i = 0; i < maskring::configuration_count(); ++i) {
                const auto& row = maskring::configuration(i);
                const auto& s = row.sizes;
                std::printf("%s;%d;%d;%d;%d;%d;%d;%d;%d\\n", row.name, s.threads, s.shared_bytes, s.tile_x,
                            s.tile_y, s.columns, s.block_x, s.block_y, s.key_tiles);
            }
        }"""
    with tempfile.TemporaryDirectory() as folder:
        main, program = Path(folder) / "main.cpp", Path(folder) / "main"
        main.write_text(source)
        # The table points to launchers in CUDA code, which are not called here.
        flags = ("-std=c++20", f"-I{KERNELS}", "-no-pie", "-Wl,--unresolved-symbols=ignore-all")
        command(["g++", *flags, main, KERNELS / "dispatch.cpp", "-o", program])
        lines = command([program]).stdout.splitlines()
    return [Row(name, *map(int, numbers)) for name, *numbers in (line.split(";") for line in lines)]


def compiled(source: str, sm: int) -> tuple[str, str]:
    """The report of ptxas on a source file, and its disassembly; cached in ``build/kernels``."""
    texts = [path.read_bytes() for path in sorted(KERNELS.glob("*.*"))]
    digest = hashlib.sha256(b"\0".join([f"{source} {sm}".encode(), *texts])).hexdigest()[:16]
    report, listing = (BUILDS / f"{source}-{sm}-{digest}.{end}" for end in ("txt", "sass"))
    if not listing.exists():
        BUILDS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILDS) as folder:
            cubin = Path(folder) / "kernel.cubin"
            options = ("-std=c++17", "-O3", f"-arch=sm_{sm}", "-Xptxas=-v", "-cubin")
            done = command([toolkit("nvcc"), *options, KERNELS / source, "-o", cubin])
            report.write_text(done.stderr)
            scratch = Path(folder) / "listing"
            scratch.write_text(command([toolkit("nvdisasm"), "-c", cubin]).stdout)
            scratch.rename(listing)
    return report.read_text(), listing.read_text()


def spills(source: str, sm: int) -> dict[str, int]:
    """Spilled bytes of every kernel in a source file."""
    parts = compiled(source, sm)[0].split("Compiling entry function")[1:]
    return {part.split("'")[1]: sum(map(int, re.findall(r"(\d+) bytes spill", part))) for part in parts}


def kernels_of(rows: Iterable[Row], sm: int) -> list[Kernel]:
    """The compiled kernels of one architecture, without those that are empty on it."""
    kernels = []
    for row in rows:
        if row.key_tiles and sm < 80:
            continue
        report, listing = compiled(row.source, sm)
        about = next(
            p for p in report.split("Compiling entry function")[1:] if row.symbol in p.splitlines()[0]
        )
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", about)))
        registers = int(re.findall(r"Used (\d+) registers", about)[0])
        section = next(p for p in listing.split(".section\t.text.")[1:] if row.symbol in p.splitlines()[0])
        kernels.append(Kernel(row, sm, registers, spilled, *_code(section)))
    return kernels


def _code(section: str) -> tuple[tuple[str, ...], dict[str, int]]:
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in section.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?(.*?)\s*;", line):
            lines.append(instruction[1])
    return tuple(lines), labels
