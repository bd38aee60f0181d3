"""What the CUDA kernels cost, from their machine code and a roofline model. Needs nvcc, but no GPU.

    python bench/kernels.py                     # resources of every kernel; model at 120x120, C=64, O=11
    python bench/kernels.py --architectures 87  # of one architecture

Compiles each kernel for each architecture and reads registers, spills, occupancy and instructions from the
machine code (``kernel_code.py``). These counts and the geometry of the problem give the multiply-adds issued per useful
one and a modelled time; the assumptions of the model are printed. The counts are facts, the times are not
measured: no kernel has run on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kernel_code import (
    ARCHITECTURES,
    CHANNELS,
    Kernel,
    Row,
    kernels_of,
    table_rows,
)
from rich.console import Console
from rich.table import Table

from maskring.runtime.tracking.memory import MemoryPolicy

HEIGHT = WIDTH = 120
LABELS = 11
Steps = tuple[int, ...]
"""Of the windows, one for each slot; 1 = undilated."""
UNDILATED: Steps = (1, 1, 1, 1, 1)
MACS_OF_MMA = 16 * 8 * 16


@dataclass(frozen=True)
class Gpu:
    """A GPU of the model: data sheet figures, but for Orin's bandwidth, which copies reach (data sheet: 205)."""

    name: str
    sm: int
    processors: int
    ghz: float
    macs_per_clock: int
    """f16 multiply-adds with f32 sums of one SM, by mma.sync."""
    gb_per_s: float


# H100's tensor cores reach twice as much with wgmma; with mma.sync, the rate of an A100's SM is assumed.
GPUS = (
    Gpu("AGX Orin", 87, 16, 1.3, 1024, 153),
    Gpu("A100", 80, 108, 1.41, 1024, 1555),
    Gpu("H100", 90, 132, 1.755, 1024, 3350),
)
PARTITIONS = 4  # of an SM: each issues one instruction per clock
EXPONENTIALS_PER_CLOCK = 16  # of an SM
SHARED_BYTES_PER_CLOCK = 128  # of an SM
# Clocks until a result can be used, rounded up from microbenchmarks in the literature on Ampere.
LATENCY = {"LDSM": 33, "HMMA": 33, "SHFL": 25, "MUFU": 25, "FMNMX": 5, "FFMA": 5, "F2FP": 5}
# Instructions of a warp per stage outside the body: walk, masks, copies of 16 bytes, barriers; counted in the code
# for sm_87. With wider steps also per staged row and per row that the warp computes.
STAGE_INSTRUCTIONS = 133
WIDE_INSTRUCTIONS = {"stage": 105, "row staged": 17, "row computed": 9}
STAGE_LATENCY = 100  # of two barriers
# Shapes of the tensor-core kernel: a warp computes two key rows of step 1 together, or one of a wider step (True).
# With wider steps, the CTA stages more rows and a warp has one row of 16 queries and three key tiles per pass.
ROWS_AT_ONCE = {False: 2, True: 1}
WIDE_STAGE_ROWS = {2: 6, 3: 6, 4: 4}
WIDE_BLOCK_X, WIDE_KEY_TILES, KEYS = 16, 3, 8
LAUNCH_US = 3.0
ASSUMPTIONS = f"""Model: an SM has {PARTITIONS} partitions, each issues one instruction per clock;
{EXPONENTIALS_PER_CLOCK} exponentials and {SHARED_BYTES_PER_CLOCK} bytes of shared memory per clock and SM.
Clocks until a result is usable: {LATENCY}.
The time of a stage is that of the busiest pipe plus the latency of its longest chain divided by the
resident warps of the partition (no other overlap). Copies and barriers add {STAGE_LATENCY} clocks and
{STAGE_INSTRUCTIONS} instructions; with wider steps: {WIDE_INSTRUCTIONS}.
CTAs are spread evenly over the SMs, and the SM with the most CTAs decides.
Memory traffic overlaps. A launch costs {LAUNCH_US} us."""


@dataclass(frozen=True)
class Work:
    """The work of a tensor-core kernel for one slot, at the size of the benchmark, including borders."""

    step: int
    useful_pairs: int
    computed: int
    """How often a warp computes key rows."""
    staged_per_element: float
    """How often a key element is copied to shared memory: the number of CTAs whose halo contains it."""

    @property
    def wide(self) -> bool:
        return self.step > 1

    @property
    def computed_per_stage(self) -> float:
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
            computed = sum(_dense_stages(row, y) for y in range(0, HEIGHT, row.block_y)) * blocks_x
        else:
            passes = sum(_passes(x, reach) for x in range(0, WIDTH, row.tile_x))
            columns = passes * WIDE_KEY_TILES * KEYS
            computed = sum(window(y, HEIGHT) for y in range(HEIGHT)) * passes
        return Work(step, pairs, computed, staged_rows * columns / (HEIGHT * WIDTH))


def _dense_stages(row: Row, y: int) -> int:
    """Stages of step 1 that hold a key row of a block's windows, counted from the CTA's first key row."""
    first, rows = max(0, y // row.tile_y * row.tile_y - row.radius), ROWS_AT_ONCE[False]
    last = min(HEIGHT, y + row.block_y + row.radius)
    return -(-(last - first) // rows) - (max(0, y - row.radius) - first) // rows


def _passes(x: int, reach: int) -> int:
    """Column passes of a CTA in windows of a wider step, without those outside the frame."""
    columns = WIDE_KEY_TILES * KEYS
    starts = range((x - reach) // KEYS * KEYS, min(WIDTH, x + WIDE_BLOCK_X + reach), columns)
    return sum(start + columns > 0 for start in starts)


def works(row: Row, steps: Steps) -> list[Work]:
    """The work for each slot."""
    return [Work.of(row, step) for step in steps]


def issued_over_useful(kernel: Kernel, steps: Steps = UNDILATED) -> float:
    """Multiply-adds issued to the tensor cores, divided by those that the operator needs."""
    work = works(kernel.row, steps)
    issued = sum(one.computed * kernel.body(one.wide)["HMMA"] for one in work) * MACS_OF_MMA
    return issued / (sum(one.useful_pairs for one in work) * (CHANNELS + LABELS))


def exponentials_per_pair(kernel: Kernel, wide: bool = False) -> float:
    """MUFU.EX2 of a lane over the pairs that it computes."""
    tiles = WIDE_KEY_TILES if wide else kernel.row.key_tiles
    return kernel.body(wide)["EX2"] / (4 * tiles * ROWS_AT_ONCE[wide])


def stage_clocks(kernel: Kernel, gpu: Gpu, work: Work) -> dict[str, float]:
    """Clocks of a partition that each pipe is busy while a warp takes key rows in."""
    body, overhead = kernel.body(work.wide), float(STAGE_INSTRUCTIONS)
    if work.wide:
        staged = WIDE_INSTRUCTIONS["stage"] + WIDE_INSTRUCTIONS["row staged"] * WIDE_STAGE_ROWS[work.step]
        overhead = staged / work.computed_per_stage + WIDE_INSTRUCTIONS["row computed"]
    return {
        "tensor": body["HMMA"] * MACS_OF_MMA * PARTITIONS / gpu.macs_per_clock,
        "exp": (body["EX2"] + body["MUFU"]) * 32 * PARTITIONS / EXPONENTIALS_PER_CLOCK,
        "shared": body["LDSM"] * 512 * PARTITIONS / SHARED_BYTES_PER_CLOCK,
        "issue": body.total() + overhead,
    }


def stage_latency(row: Row, work: Work) -> float:
    """Clocks of the longest chain while a warp takes key rows in."""
    rows, tiles = ROWS_AT_ONCE[work.wide], WIDE_KEY_TILES if work.wide else row.key_tiles
    products = LATENCY["LDSM"] + CHANNELS / 16 * LATENCY["HMMA"]
    largest = 2 * tiles * rows * LATENCY["FMNMX"] + 2 * (LATENCY["SHFL"] + LATENCY["FMNMX"])
    weights = LATENCY["FFMA"] + LATENCY["MUFU"] + LATENCY["F2FP"]
    labels = rows * -(-tiles // 2) * LATENCY["HMMA"]
    return products + largest + weights + labels + STAGE_LATENCY / work.computed_per_stage


def modelled_ms(kernel: Kernel, gpu: Gpu, steps: Steps = UNDILATED) -> float:
    """Time of one call, by the assumptions above."""
    row, warps = kernel.row, kernel.row.threads // 32
    blocks = -(-WIDTH // row.tile_x) * -(-HEIGHT // row.tile_y)
    blocks_of_fullest = -(-blocks // gpu.processors)
    resident = min(blocks_of_fullest, kernel.blocks_per_sm) * warps / PARTITIONS
    clocks = 0.0
    for work in works(row, steps):
        each = max(stage_clocks(kernel, gpu, work).values()) + stage_latency(row, work) / resident
        clocks += work.computed / blocks * blocks_of_fullest / PARTITIONS * each
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
                label = " ".join(map(str, steps))
                table.add_row(k.row.name, gpu.name, label, *columns, f"{modelled_ms(k, gpu, steps):.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", type=int, nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    architectures = parser.parse_args().architectures
    rows = table_rows()
    with ThreadPoolExecutor(2) as pool:
        kernels = [
            kernel
            for compiled in pool.map(lambda sm: kernels_of(rows, sm), architectures)
            for kernel in compiled
        ]
    console = Console(width=130)
    console.print(resources(kernels))
    # The row that dispatch uses for LABELS labels: the one for the fewest labels that has enough.
    fitting = [k for k in kernels if k.row.key_tiles and LABELS <= k.row.max_labels < 16]
    console.print(instructions(fitting))
    console.print(times(fitting))
    console.print(cores(k for k in kernels if k.row.name.startswith("simt") and " r" in k.row.name))
    console.print(ASSUMPTIONS, highlight=False)


if __name__ == "__main__":
    main()
