"""What nvcc made of the CUDA kernels, and what that lets expect: no GPU needed.

    python bench/kernels.py                     # resources of every kernel; model at 120x120, C=64, O=11
    python bench/kernels.py --architectures 87  # of one architecture

Compiles each kernel for each architecture and reads the machine code: registers, spills, occupancy, and
for the tensor-core kernel the instructions by which a warp's 16 queries take key rows in (two at a time in
windows of step 1, one in wider ones). From these counts and the geometry of the problem follow the
multiply-adds issued per useful one and a roofline model; the assumptions of the model are printed with it.
The counts are facts, the times a model: nothing here has run on a GPU.
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

from maskring.runtime.tracking.memory import MemoryPolicy

REPOSITORY = Path(__file__).resolve().parents[1]
KERNELS = REPOSITORY / "plugins" / "windowed_affinity" / "cuda"
BUILDS = REPOSITORY / "build" / "kernels"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)
HEIGHT = WIDTH = 120
CHANNELS, LABELS = 64, 11
Steps = tuple[int, ...]
"""Of the windows, one for each slot; 1 = undilated."""
UNDILATED: Steps = (1, 1, 1, 1, 1)
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
# Of a warp for each stage outside the body: walk, masks, copies of 16 bytes, barriers; counted in sm_87's
# code. With wider steps, for each row that is staged and each that the warp takes in, too.
STAGE_INSTRUCTIONS = 133
WIDE_INSTRUCTIONS = {"stage": 105, "row staged": 17, "row taken in": 9}
STAGE_LATENCY = 100  # of two barriers
# The tensor-core kernel's shapes: warps take in two key rows of step 1 at once, or one of a wider step
# (True), of which the CTA stages more; they have one row of 16 queries then, and three key tiles a pass.
ROWS_AT_ONCE = {False: 2, True: 1}
WIDE_STAGE_ROWS = {2: 6, 3: 6, 4: 4}
WIDE_BLOCK_X, WIDE_KEY_TILES, KEYS = 16, 3, 8
LAUNCH_US = 3.0
ASSUMPTIONS = f"""Model: an SM has {PARTITIONS} partitions, each issues one instruction per clock;
{EXPONENTIALS_PER_CLOCK} exponentials and {SHARED_BYTES_PER_CLOCK} bytes of shared memory per clock and SM.
Clocks until a result is usable: {LATENCY}.
A stage takes a warp the busiest pipe's time plus the latency of its longest chain divided by the
resident warps of the partition (no other overlap). Copies and barriers add {STAGE_LATENCY} clocks and
{STAGE_INSTRUCTIONS} instructions; with wider steps: {WIDE_INSTRUCTIONS}.
CTAs are dealt evenly and the fullest SM decides.
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


BRANCH = re.compile(r"^BRA(?!\.DIV).*?(\.L_x_\d+)")


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

    def body(self, wide: bool = False) -> Counter[str]:
        """Instructions by which a warp takes key rows in: two of step 1, or one of wider steps.

        What a branch after a vote skips is left out: the rescaling of sums when a larger logit turns up,
        which is seldom after a window's first rows.
        """
        lines = self._region(wide)
        skipped: set[int] = set()
        targets = self._targets()
        votes = [i for i in lines if self.code[i].startswith("VOTE")]
        for branch in (next(i for i in range(vote, lines.stop) if i in targets) for vote in votes):
            skipped.update(range(branch + 1, targets[branch]))
        kept = [self.code[i] for i in lines if i not in skipped]
        return Counter("EX2" if "EX2" in line else re.split(r"[ .]", line)[0] for line in kept)

    def product_loop(self) -> Counter[str]:
        """Instructions of a CUDA-core kernel's loop over channels at step 1, several channels in a round.

        Queries come from global memory, which tells it from the loop over labels; at wider steps it computes
        addresses, too, so the leanest one is meant.
        """
        loops = [range(to, at + 1) for at, to in self._targets().items() if to < at]
        inner = [one for one in loops if not any(o != one and o[0] in one and o[-1] in one for o in loops)]
        counts = [
            Counter(re.split(r"[ .]", line)[0] for line in self.code[one.start : one.stop]) for one in inner
        ]
        products = [count for count in counts if count["LDG"] and count["FFMA"]]
        return min(products, key=lambda count: count.total() / count["FFMA"])

    def _targets(self) -> dict[int, int]:
        """Branches with where they lead, less those of code out of line, behind the last EXIT."""
        last = max(i for i, line in enumerate(self.code) if line.startswith("EXIT"))
        found = ((i, BRANCH.search(line)) for i, line in enumerate(self.code[:last]))
        return {i: self.labels[target[1]] for i, target in found if target}

    def _region(self, wide: bool) -> range:
        """The smallest loop or skippable part that holds all HMMA of one loop over stages.

        These loops are the outermost that hold HMMA: that of step 1, then that of wider steps.
        """
        multiplies = [i for i, line in enumerate(self.code) if line.startswith("HMMA")]
        branches = self._targets().items()
        loops = [(to, at) for at, to in branches if to < at and any(to < i < at for i in multiplies)]
        outermost = [a for a in loops if not any(b[0] <= a[0] and a[1] <= b[1] for b in loops if b != a)]
        start, end = sorted(outermost)[wide]
        inside = [i for i in multiplies if start < i < end]
        parts = [range(to, at + 1) if to < at else range(at + 1, to) for at, to in branches]
        return min((p for p in parts if inside[0] in p and inside[-1] in p), key=len)


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
    """What a tensor-core kernel does for one slot at the size of the bench, with the frame's borders."""

    step: int
    useful_pairs: int
    taken: int
    """How often a warp takes key rows in."""
    staged_per_element: float
    """How often a key element is copied from global to shared memory: the CTAs whose halos hold it."""

    @property
    def wide(self) -> bool:
        return self.step > 1

    @property
    def taken_per_stage(self) -> float:
        """How often, by one warp, between two barriers."""
        return WIDE_STAGE_ROWS[self.step] / self.step if self.wide else 1

    @staticmethod
    def of(row: Row, step: int) -> Work:
        reach = row.radius * step

        def rows_of(y: int, size: int) -> int:
            """Rows inside the frame of the windows of ``size`` query rows."""
            return min(HEIGHT, y + size + reach) - max(0, y - reach)

        def window(at: int, length: int) -> int:
            """Positions inside the frame of one query's window along an axis."""
            return 1 + min(at // step, row.radius) + min((length - 1 - at) // step, row.radius)

        pairs = sum(window(y, HEIGHT) for y in range(HEIGHT)) * sum(window(x, WIDTH) for x in range(WIDTH))
        staged_rows = sum(rows_of(y, row.tile_y) for y in range(0, HEIGHT, row.tile_y))
        if step == 1:
            blocks_x, columns = -(-WIDTH // row.block_x), -(-WIDTH // row.tile_x) * row.columns
            taken = sum(_dense_stages(row, y) for y in range(0, HEIGHT, row.block_y)) * blocks_x
        else:
            passes = sum(_passes(x, reach) for x in range(0, WIDTH, row.tile_x))
            columns = passes * WIDE_KEY_TILES * KEYS
            taken = sum(window(y, HEIGHT) for y in range(HEIGHT)) * passes
        return Work(step, pairs, taken, staged_rows * columns / (HEIGHT * WIDTH))


def _dense_stages(row: Row, y: int) -> int:
    """Stages of step 1 that hold a key row of a block's windows, counted from the CTA's first key row."""
    first, rows = max(0, y // row.tile_y * row.tile_y - row.radius), ROWS_AT_ONCE[False]
    last = min(HEIGHT, y + row.block_y + row.radius)
    return -(-(last - first) // rows) - (max(0, y - row.radius) - first) // rows


def _passes(x: int, reach: int) -> int:
    """Column passes of a CTA in windows of a wider step, those beside the frame left out."""
    columns = WIDE_KEY_TILES * KEYS
    starts = range((x - reach) // KEYS * KEYS, min(WIDTH, x + WIDE_BLOCK_X + reach), columns)
    return sum(start + columns > 0 for start in starts)


def works(row: Row, steps: Steps) -> list[Work]:
    """The work for each slot."""
    return [Work.of(row, step) for step in steps]


def issued_over_useful(kernel: Kernel, steps: Steps = UNDILATED) -> float:
    """Multiply-adds that the tensor cores are given, over those that the operator needs."""
    work = works(kernel.row, steps)
    issued = sum(one.taken * kernel.body(one.wide)["HMMA"] for one in work) * MACS_OF_MMA
    return issued / (sum(one.useful_pairs for one in work) * (CHANNELS + LABELS))


def exponentials_per_pair(kernel: Kernel, wide: bool = False) -> float:
    """MUFU.EX2 of a lane over the pairs that it computes."""
    tiles = WIDE_KEY_TILES if wide else kernel.row.key_tiles
    return kernel.body(wide)["EX2"] / (4 * tiles * ROWS_AT_ONCE[wide])


def stage_clocks(kernel: Kernel, gpu: Gpu, work: Work) -> dict[str, float]:
    """Clocks of a partition that each pipe is busy while a warp takes key rows in."""
    body, beside = kernel.body(work.wide), float(STAGE_INSTRUCTIONS)
    if work.wide:
        staged = WIDE_INSTRUCTIONS["stage"] + WIDE_INSTRUCTIONS["row staged"] * WIDE_STAGE_ROWS[work.step]
        beside = staged / work.taken_per_stage + WIDE_INSTRUCTIONS["row taken in"]
    return {
        "tensor": body["HMMA"] * MACS_OF_MMA * PARTITIONS / gpu.macs_per_clock,
        "exp": (body["EX2"] + body["MUFU"]) * 32 * PARTITIONS / EXPONENTIALS_PER_CLOCK,
        "shared": body["LDSM"] * 512 * PARTITIONS / SHARED_BYTES_PER_CLOCK,
        "issue": body.total() + beside,
    }


def stage_latency(row: Row, work: Work) -> float:
    """Clocks of the longest chain while a warp takes key rows in."""
    rows, tiles = ROWS_AT_ONCE[work.wide], WIDE_KEY_TILES if work.wide else row.key_tiles
    products = LATENCY["LDSM"] + CHANNELS / 16 * LATENCY["HMMA"]
    largest = 2 * tiles * rows * LATENCY["FMNMX"] + 2 * (LATENCY["SHFL"] + LATENCY["FMNMX"])
    weights = LATENCY["FFMA"] + LATENCY["MUFU"] + LATENCY["F2FP"]
    labels = rows * -(-tiles // 2) * LATENCY["HMMA"]
    return products + largest + weights + labels + STAGE_LATENCY / work.taken_per_stage


def modelled_ms(kernel: Kernel, gpu: Gpu, steps: Steps = UNDILATED) -> float:
    """Time of one call, by the assumptions above."""
    row, warps = kernel.row, kernel.row.threads // 32
    blocks = -(-WIDTH // row.tile_x) * -(-HEIGHT // row.tile_y)
    blocks_of_fullest = -(-blocks // gpu.processors)
    resident = min(blocks_of_fullest, kernel.blocks_per_sm) * warps / PARTITIONS
    clocks = 0.0
    for work in works(row, steps):
        each = max(stage_clocks(kernel, gpu, work).values()) + stage_latency(row, work) / resident
        clocks += work.taken / blocks * blocks_of_fullest / PARTITIONS * each
    size = 2 * HEIGHT * WIDTH * (CHANNELS + LABELS) * (len(steps) + 1)
    return max(clocks / gpu.ghz, size / gpu.gb_per_s) / 1e6 + LAUNCH_US / 1e3


def policy_steps(radius: int) -> Steps:
    """Those of the slots under the tracker's default memory policy, late in a stream."""
    policy = MemoryPolicy()
    shorter_side = min(HEIGHT, WIDTH)
    ages = (*policy.short_term, *(10_000 - frame for frame in policy.long_term))
    return tuple(policy.dilation(age, shorter_side / radius) for age in ages)


@dataclass(frozen=True)
class CoreWork:
    """What a CUDA-core kernel compiled for a radius does for slots of step 1, at the size of the bench."""

    useful: int
    """Multiply-adds of keys and labels that the operator needs, of one slot."""
    warp_rows: int
    """Key rows that warps take in, one slot: each warp has 4 query rows, 32 columns and half of the steps."""
    products: int
    """FFMA of a lane for one channel of a key row."""

    @staticmethod
    def of(row: Row) -> CoreWork:
        window_steps = row.columns - row.tile_x + 1
        bands = range(0, HEIGHT, row.block_y)
        rows = sum(min(HEIGHT, y + row.block_y + row.radius) - max(0, y - row.radius) for y in bands)
        pairs = Work.of(row, 1).useful_pairs
        return CoreWork(
            pairs * (CHANNELS + LABELS), rows * -(-WIDTH // row.tile_x) * 2, row.block_y * window_steps // 2
        )


def core_ms(kernel: Kernel, gpu: Gpu) -> float:
    """Time of one call by CUDA cores as far as the issue of products alone decides it: a lower bound."""
    work, loop = CoreWork.of(kernel.row), kernel.product_loop()
    blocks = -(-WIDTH // kernel.row.tile_x) * -(-HEIGHT // kernel.row.tile_y)
    instructions = work.warp_rows * (CHANNELS + LABELS) * work.products * loop.total() / loop["FFMA"]
    share = -(-blocks // gpu.processors) / blocks
    return len(UNDILATED) * instructions * share / PARTITIONS / gpu.ghz / 1e6


def cores(kernels: Iterable[Kernel]) -> Table:
    names = (
        "kernel",
        "sm",
        "FFMA",
        "LDS",
        "LDG",
        "all",
        "all / FFMA",
        "MACs issued / useful",
        "at least, ms",
    )
    table = Table(*names, title="CUDA cores: the loop over channels, step 1; lower bound by issue alone")
    for k in kernels:
        loop, work = k.product_loop(), CoreWork.of(k.row)
        issued = 32 * work.warp_rows * (CHANNELS + LABELS) * work.products / work.useful
        least = ", ".join(f"{gpu.name} {core_ms(k, gpu):.2f}" for gpu in GPUS if gpu.sm == k.sm)
        counts = (k.sm, loop["FFMA"], loop["LDS"], loop["LDG"], loop.total())
        ratios = (f"{loop.total() / loop['FFMA']:.2f}", f"{issued:.2f}")
        table.add_row(k.row.name, *map(str, counts), *ratios, least)
    return table


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
        "step",
        "HMMA",
        "LDSM",
        "EX2",
        "all",
        "MACs issued / useful",
        "EX2 / pair",
        "staged",
    )
    table = Table(
        *names,
        title=f"A warp takes in 2 key rows, or 1 of a wider step; {HEIGHT}x{WIDTH}, C={CHANNELS}, O={LABELS}",
    )
    for k in kernels:
        for step in (1, 2, 3, 4):
            body, work = k.body(step > 1), Work.of(k.row, step)
            ratios = (
                issued_over_useful(k, (step,)),
                exponentials_per_pair(k, step > 1),
                work.staged_per_element,
            )
            counts = (k.sm, step, body["HMMA"], body["LDSM"], body["EX2"], body.total())
            table.add_row(k.row.name, *map(str, counts), *(f"{ratio:.2f}" for ratio in ratios))
    return table


def times(kernels: Sequence[Kernel]) -> Table:
    names = ("kernel", "GPU", "steps", "tensor", "exp", "shared", "issue", "latency", "modelled ms")
    table = Table(*names, title="Model: clocks of each step's taking in, time of a call")
    for gpu in GPUS:
        for k in kernels:
            if k.sm != gpu.sm:
                continue
            for steps in (UNDILATED, policy_steps(k.row.radius)):
                work = [Work.of(k.row, step) for step in sorted(set(steps))]
                clocks = [[*stage_clocks(k, gpu, w).values(), stage_latency(k.row, w)] for w in work]
                columns = ("/".join(f"{c:.0f}" for c in column) for column in zip(*clocks, strict=True))
                told = " ".join(map(str, steps))
                table.add_row(k.row.name, gpu.name, told, *columns, f"{modelled_ms(k, gpu, steps):.3f}")
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
    console = Console(width=130)
    console.print(resources(kernels))
    # The row that dispatch takes for LABELS labels: of those that hold them, the one for the fewest.
    fitting = [k for k in kernels if k.row.key_tiles and LABELS <= k.row.most_labels < 16]
    console.print(instructions(fitting))
    console.print(times(fitting))
    console.print(cores(k for k in kernels if k.row.name.startswith("simt") and " r" in k.row.name))
    console.print(ASSUMPTIONS, highlight=False)


if __name__ == "__main__":
    main()
