"""What nvcc made of the CUDA kernels, and what that lets expect: no GPU needed.

    python bench/kernels.py                     # resources of every kernel; model at 120x120, C=64, N=5, O=11
    python bench/kernels.py --architectures 87  # of one architecture

Compiles each kernel for each architecture and reads the machine code: registers, spills, occupancy, and
for the tensor-core kernel the instructions for one stage (two key rows and a warp's 16 queries). From these
counts and the geometry of the problem follow the multiply-adds issued per useful one and a roofline model;
the assumptions of the model are printed with it. The counts are facts, the times a model: nothing here has
run on a GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
KERNELS = REPOSITORY / "plugins" / "windowed_affinity" / "kernels"
BUILDS = REPOSITORY / "build" / "kernels"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)
HEIGHT = WIDTH = 120
CHANNELS, SLOTS, LABELS = 64, 5, 11
MACS_OF_MMA = 16 * 8 * 16


@dataclass(frozen=True)
class Limits:
    """What an SM holds (CUDA C++ Programming Guide, compute capabilities)."""

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
    120: Limits(48, 24, 100 << 10),
}
RESERVED_SHARED = 1 << 10  # per CTA, by the system, from sm_80 on


@dataclass(frozen=True)
class Gpu:
    """A GPU of the model: data sheet figures."""

    name: str
    sm: int
    processors: int
    ghz: float
    macs_per_clock: int
    """f16 multiply-adds with f32 sums of one SM, by mma.sync."""
    gb_per_s: float


# H100's tensor cores do twice as much when fed by wgmma; mma.sync is taken to reach what an A100's SM does.
GPUS = (
    Gpu("AGX Orin", 87, 16, 1.3, 1024, 205),
    Gpu("A100", 80, 108, 1.41, 1024, 1555),
    Gpu("H100", 90, 132, 1.755, 1024, 3350),
)
PARTITIONS = 4  # of an SM: each issues one instruction per clock
EXPONENTIALS_PER_CLOCK = 16  # of an SM
SHARED_BYTES_PER_CLOCK = 128  # of an SM
# Clocks until a result can be used, rounded up from microbenchmarks in the literature on Ampere.
LATENCY = {"LDSM": 33, "HMMA": 33, "SHFL": 25, "MUFU": 25, "FMNMX": 5, "FFMA": 5, "F2FP": 5}
STAGE_INSTRUCTIONS = (
    165  # of a warp outside the body: walk, masks, copies of 16 bytes, barriers; sm_87's code
)
STAGE_LATENCY = 100  # of two barriers
STAGE_ROWS = 2
LAUNCH_US = 3.0
ASSUMPTIONS = f"""Model: an SM has {PARTITIONS} partitions, each issues one instruction per clock;
{EXPONENTIALS_PER_CLOCK} exponentials and {SHARED_BYTES_PER_CLOCK} bytes of shared memory per clock and SM.
Clocks until a result is usable: {LATENCY}.
A stage takes a warp the busiest pipe's time plus the latency of its longest chain divided by the
resident warps of the partition (no other overlap). {STAGE_INSTRUCTIONS} instructions and
{STAGE_LATENCY} clocks are added for copies and barriers. CTAs are dealt evenly and the fullest SM decides.
Memory traffic overlaps. A launch costs {LAUNCH_US} us."""


@dataclass(frozen=True)
class Row:
    """A row of the dispatch table, as C++ tells it."""

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
    def radius(self) -> int:
        return int(next(word[1:] for word in self.name.split() if word[0] == "r"))

    @property
    def most_labels(self) -> int:
        return int(next((word[1:] for word in self.name.split() if word[0] == "o"), 32))

    @property
    def symbol(self) -> str:
        """A part of the kernel's mangled name that no other kernel has."""
        family, kind, *rest = self.name.split()
        if family == "mma":
            tiles = self.most_labels // 8 + 1
            return f"ShapeILi{self.radius}ELi{CHANNELS}ELi{tiles}E"
        element = {"f32": "f", "f16": "6__half"}[kind]
        return f"{family}8affinityI{element}" + (
            f"Li{rest[0][1:] if rest else 0}E" if family == "simt" else "E"
        )


BRANCH = re.compile(r"^BRA.*?(\.L_x_\d+)")


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel on one architecture, and its machine code."""

    row: Row
    sm: int
    registers: int
    spilled_bytes: int
    code: tuple[str, ...]
    labels: dict[str, int]

    @property
    def blocks_per_sm(self) -> int:
        """CTAs that an SM holds at once."""
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
        """Instructions that a warp executes for one stage of key rows: the branch that holds all HMMA.

        What a branch after a vote skips is left out: the rescaling of sums when a larger logit turns up,
        which is seldom after a window's first rows.
        """
        at = [i for i, line in enumerate(self.code) if line.startswith("HMMA")]
        targets = {i: self.labels[t[1]] for i, line in enumerate(self.code) if (t := BRANCH.search(line))}
        around = [
            (end - start, start, end) for start, end in targets.items() if start < at[0] <= at[-1] < end
        ]
        _, start, end = min(around)
        skipped: set[int] = set()
        votes = [i for i in range(start, end) if self.code[i].startswith("VOTE")]
        for branch in (next(i for i in range(vote, end) if i in targets) for vote in votes):
            skipped.update(range(branch + 1, targets[branch]))
        lines = [self.code[i] for i in range(start + 1, end) if i not in skipped]
        return Counter("EX2" if "EX2" in line else re.split(r"[ .]", line)[0] for line in lines)


def toolkit(program: str) -> str:
    """A program of the CUDA toolkit: pip's, else the system's."""
    spec = importlib.util.find_spec("nvidia")
    folders = [f"{root}/cu13/bin" for root in spec.submodule_search_locations or []] if spec else []
    found = shutil.which(program, path=":".join(folders)) or shutil.which(program)
    if found is None:
        raise SystemExit(f"{program} was not found; pip install 'maskring[cuda]' brings it.")
    return found


def command(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{Path(arguments[0]).name} failed:\n{done.stderr[-3000:]}")
    return done


def table_rows() -> list[Row]:
    """The dispatch table, printed by a program that needs no CUDA."""
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
        # The launchers that the table points to are CUDA code, and nobody calls them here.
        flags = ("-std=c++20", f"-I{KERNELS}", "-no-pie", "-Wl,--unresolved-symbols=ignore-all")
        command(["g++", *flags, main, KERNELS / "dispatch.cpp", "-o", program])
        lines = command([program]).stdout.splitlines()
    return [Row(name, *map(int, numbers)) for name, *numbers in (line.split(";") for line in lines)]


def compiled(source: str, sm: int) -> tuple[str, str]:
    """What ptxas reports of a file of kernels, and its disassembly; kept under ``build/kernels``."""
    texts = [path.read_bytes() for path in sorted(KERNELS.glob("*.*"))]
    digest = hashlib.sha256(b"\0".join([f"{source} {sm}".encode(), *texts])).hexdigest()[:16]
    report, listing = (BUILDS / f"{source}-{sm}-{digest}.{end}" for end in ("txt", "sass"))
    if not listing.exists():
        BUILDS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILDS) as folder:
            cubin = Path(folder) / "kernel.cubin"
            options = ("-std=c++17", "-O3", f"-arch=sm_{sm}", "-Xptxas=-v", "-Werror=all-warnings", "-cubin")
            done = command([toolkit("nvcc"), *options, KERNELS / source, "-o", cubin])
            report.write_text(done.stderr)
            scratch = Path(folder) / "listing"
            scratch.write_text(command([toolkit("nvdisasm"), "-c", cubin]).stdout)
            scratch.rename(listing)
    return report.read_text(), listing.read_text()


def kernels_of(rows: Iterable[Row], sm: int) -> list[Kernel]:
    """The compiled kernels of one architecture, those that are empty on it left out."""
    found = []
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
        found.append(Kernel(row, sm, registers, spilled, *_code(section)))
    return found


def _code(section: str) -> tuple[tuple[str, ...], dict[str, int]]:
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in section.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?(.*?)\s*;", line):
            lines.append(instruction[1])
    return tuple(lines), labels


@dataclass(frozen=True)
class Work:
    """What a tensor-core kernel does at the size of the bench, counted over the frame with its borders."""

    useful_pairs: int
    stages: int
    """Stages of key rows that warps compute, all slots."""
    blocks: int
    staged_per_element: float
    """How often a key element is copied from global to shared memory: the CTAs whose halos hold it."""

    @staticmethod
    def of(row: Row) -> Work:
        def reach(size: int, block: int) -> list[int]:
            """Of each block along an axis: positions inside the frame and within the radius of any of it."""
            starts = range(0, size, block)
            return [min(size, s + block + row.radius) - max(0, s - row.radius) for s in starts]

        def stages_of(y: int) -> int:
            """Stages that hold a key row of a block's windows, counted from the CTA's first key row."""
            first = max(0, y // row.tile_y * row.tile_y - row.radius)
            last = min(HEIGHT, y + row.block_y + row.radius)
            return -(-(last - first) // STAGE_ROWS) - (max(0, y - row.radius) - first) // STAGE_ROWS

        pairs = sum(reach(HEIGHT, 1)) * sum(reach(WIDTH, 1)) * SLOTS
        tiles_x = -(-WIDTH // row.tile_x)
        staged = sum(reach(HEIGHT, row.tile_y)) * tiles_x * row.columns / (HEIGHT * WIDTH)
        stages = sum(map(stages_of, range(0, HEIGHT, row.block_y))) * -(-WIDTH // row.block_x) * SLOTS
        return Work(pairs, stages, tiles_x * -(-HEIGHT // row.tile_y), staged)


def issued_over_useful(kernel: Kernel) -> float:
    """Multiply-adds that the tensor cores are given, over those that the operator needs."""
    work = Work.of(kernel.row)
    return work.stages * kernel.body()["HMMA"] * MACS_OF_MMA / (work.useful_pairs * (CHANNELS + LABELS))


def exponentials_per_pair(kernel: Kernel) -> float:
    """MUFU.EX2 of a lane over the pairs that it computes."""
    return kernel.body()["EX2"] / (4 * kernel.row.key_tiles * STAGE_ROWS)


def stage_clocks(kernel: Kernel, gpu: Gpu) -> dict[str, float]:
    """Clocks of a partition that a warp's stage keeps each pipe busy."""
    body = kernel.body()
    return {
        "tensor": body["HMMA"] * MACS_OF_MMA * PARTITIONS / gpu.macs_per_clock,
        "exp": (body["EX2"] + body["MUFU"]) * 32 * PARTITIONS / EXPONENTIALS_PER_CLOCK,
        "shared": body["LDSM"] * 512 * PARTITIONS / SHARED_BYTES_PER_CLOCK,
        "issue": body.total() + STAGE_INSTRUCTIONS,
    }


def stage_latency(row: Row) -> float:
    """Clocks of the longest chain through a warp's stage."""
    products = LATENCY["LDSM"] + CHANNELS / 16 * LATENCY["HMMA"]
    largest = 2 * row.key_tiles * STAGE_ROWS * LATENCY["FMNMX"] + 2 * (LATENCY["SHFL"] + LATENCY["FMNMX"])
    weights = LATENCY["FFMA"] + LATENCY["MUFU"] + LATENCY["F2FP"]
    labels = STAGE_ROWS * -(-row.key_tiles // 2) * LATENCY["HMMA"]
    return products + largest + weights + labels + STAGE_LATENCY


def modelled_ms(kernel: Kernel, gpu: Gpu) -> float:
    """Time of one call, by the assumptions above."""
    work, warps = Work.of(kernel.row), kernel.row.threads // 32
    blocks_of_fullest = -(-work.blocks // gpu.processors)
    resident = min(blocks_of_fullest, kernel.blocks_per_sm) * warps / PARTITIONS
    stages = work.stages / work.blocks * blocks_of_fullest / PARTITIONS
    per_stage = max(stage_clocks(kernel, gpu).values()) + stage_latency(kernel.row) / resident
    compute = stages * per_stage / gpu.ghz / 1e6
    size = 2 * HEIGHT * WIDTH * (CHANNELS + LABELS) * (SLOTS + 1)
    return max(compute, size / gpu.gb_per_s / 1e6) + LAUNCH_US / 1e3


def resources(kernels: Iterable[Kernel]) -> Table:
    table = Table(
        "kernel", "sm", "registers", "spilled", "shared KB", "CTAs/SM", "occupancy", title="Resources"
    )
    for k in kernels:
        shared = f"{k.row.shared_bytes / 1024:.1f}"
        numbers = (k.sm, k.registers, k.spilled_bytes, shared, k.blocks_per_sm, f"{100 * k.occupancy:.0f} %")
        table.add_row(k.row.name, *map(str, numbers))
    return table


def instructions(kernels: Iterable[Kernel]) -> Table:
    names = (
        "kernel",
        "sm",
        "HMMA",
        "LDSM",
        "EX2",
        "all",
        "MACs issued / useful",
        "EX2 / pair",
        "staged / element",
    )
    table = Table(
        *names,
        title=f"A warp's stage; {HEIGHT}x{WIDTH}, N={SLOTS}, C={CHANNELS}, O={LABELS}",
    )
    for k in kernels:
        body = k.body()
        ratios = (issued_over_useful(k), exponentials_per_pair(k), Work.of(k.row).staged_per_element)
        counts = (k.sm, body["HMMA"], body["LDSM"], body["EX2"], body.total())
        table.add_row(k.row.name, *map(str, counts), *(f"{ratio:.2f}" for ratio in ratios))
    return table


def times(kernels: Sequence[Kernel]) -> Table:
    names = ("kernel", "GPU", "tensor", "exp", "shared", "issue", "latency", "modelled ms")
    table = Table(*names, title="Model: clocks of a stage, time of a call")
    for gpu in GPUS:
        for k in kernels:
            if k.sm == gpu.sm:
                clocks = (*stage_clocks(k, gpu).values(), stage_latency(k.row))
                row = (*(f"{c:.0f}" for c in clocks), f"{modelled_ms(k, gpu):.3f}")
                table.add_row(k.row.name, gpu.name, *row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", type=int, nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    wanted = parser.parse_args().architectures
    rows = table_rows()
    with ThreadPoolExecutor(2) as pool:
        kernels = [kernel for found in pool.map(lambda sm: kernels_of(rows, sm), wanted) for kernel in found]
    console = Console(width=110)
    console.print(resources(kernels))
    # The row that dispatch takes for LABELS labels: of those that hold them, the one for the fewest.
    fitting = [k for k in kernels if k.row.key_tiles and LABELS <= k.row.most_labels < 16]
    console.print(instructions(fitting))
    console.print(times(fitting))
    console.print(ASSUMPTIONS, highlight=False)


if __name__ == "__main__":
    main()
