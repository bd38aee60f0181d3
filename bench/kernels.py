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
import heapq
from collections import Counter
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
# for sm_87.
STAGE_INSTRUCTIONS = 133
STAGE_LATENCY = 100  # of two barriers
# Of a CTA before its first stage and after its last: it reads dilation, queries and the first keys, one after the
# other, and writes sums.
CTA_LATENCY, CTA_INSTRUCTIONS = 1200, 500
STAGE_ROWS = 2  # key rows that a warp computes together
KEYS = 8
CTAS_OF_A_PROCESSOR = 8  # a launch splits slots over CTAs until it has as many (mma.cu)
LAUNCHES = 3  # to rearrange slots, to compute, to combine
LAUNCH_US = 3.0
ASSUMPTIONS = f"""Model: an SM has {PARTITIONS} partitions, each issues one instruction per clock;
{EXPONENTIALS_PER_CLOCK} exponentials and {SHARED_BYTES_PER_CLOCK} bytes of shared memory per clock and SM.
Clocks until a result is usable: {LATENCY}.
The time of a stage is that of the busiest pipe plus the latency of its longest chain divided by the
resident warps of the partition (no other overlap). Copies and barriers add {STAGE_LATENCY} clocks and
{STAGE_INSTRUCTIONS} instructions; each CTA adds {CTA_LATENCY} clocks of latency and {CTA_INSTRUCTIONS}
instructions of a warp.
An SM gets the next CTA when it has least to do, and the SM with the most work decides.
Memory traffic of the main kernel overlaps; that of rearranging slots and of adding up partial sums is added.
A launch costs {LAUNCH_US} us, and there are {LAUNCHES}."""


@dataclass(frozen=True)
class Work:
    """The work of a tensor-core kernel for one slot, including borders."""

    step: int
    useful_pairs: int
    computed: tuple[int, ...]
    """How often a warp computes a stage, in each CTA."""
    staged_per_element: float
    """How often a key element is copied to shared memory: the number of CTAs whose halo contains it."""
    arranged: int
    """Pixels of the phases that the slot is rearranged into."""

    @staticmethod
    def of(row: Row, step: int, height: int = HEIGHT, width: int = WIDTH) -> Work:
        def window(at: int, length: int) -> int:
            """Positions inside the frame of one query's window along an axis."""
            return 1 + min(at // step, row.radius) + min((length - 1 - at) // step, row.radius)

        pairs = sum(window(y, height) for y in range(height)) * sum(window(x, width) for x in range(width))
        computed, staged = [], 0
        for of_y in range(min(step, height)):
            rows = -(-(height - of_y) // step)
            for tile_y in range(0, rows, row.tile_y):
                halo = min(rows, tile_y + row.tile_y + row.radius) - max(0, tile_y - row.radius)
                blocks = range(tile_y, min(rows, tile_y + row.tile_y), row.block_y)
                stages = sum(_stages(row, y, rows) for y in blocks)
                for of_x in range(min(step, width)):
                    columns = -(-(width - of_x) // step)
                    for tile_x in range(0, columns, row.tile_x):
                        warps = -(-min(row.tile_x, columns - tile_x) // row.block_x)
                        computed.append(stages * warps)
                        staged += halo * row.columns
        direct = step == 1 and width % KEYS == 0
        rows, columns = -(-height // step), -(-width // step)
        arranged = 0 if direct else step * step * rows * -(-columns // KEYS) * KEYS
        return Work(step, pairs, tuple(computed), staged / (height * width), arranged)


def _stages(row: Row, y: int, rows: int) -> int:
    """Stages that hold a key row of a block's windows, counted from the CTA's first key row."""
    first = max(0, y // row.tile_y * row.tile_y - row.radius)
    last = min(rows, y + row.block_y + row.radius)
    return -(-(last - first) // STAGE_ROWS) - (max(0, y - row.radius) - first) // STAGE_ROWS


def issued_over_useful(kernel: Kernel, steps: Steps = UNDILATED) -> float:
    """Multiply-adds issued to the tensor cores, divided by those that the operator needs."""
    work = [Work.of(kernel.row, step) for step in steps]
    issued = sum(sum(one.computed) for one in work) * kernel.body()["HMMA"] * MACS_OF_MMA
    return issued / (sum(one.useful_pairs for one in work) * (CHANNELS + LABELS))


def exponentials_per_pair(kernel: Kernel) -> float:
    """MUFU.EX2 of a lane over the pairs that it computes."""
    return kernel.body()["EX2"] / (4 * kernel.row.key_tiles * STAGE_ROWS)


def stage_clocks(kernel: Kernel, gpu: Gpu) -> dict[str, float]:
    """Clocks of a partition that each pipe is busy while a warp takes key rows in."""
    body = kernel.body()
    return {
        "tensor": body["HMMA"] * MACS_OF_MMA * PARTITIONS / gpu.macs_per_clock,
        "exp": (body["EX2"] + body["MUFU"]) * 32 * PARTITIONS / EXPONENTIALS_PER_CLOCK,
        "shared": body["LDSM"] * 512 * PARTITIONS / SHARED_BYTES_PER_CLOCK,
        "issue": float(body.total() + STAGE_INSTRUCTIONS),
    }


def stage_latency(row: Row) -> float:
    """Clocks of the longest chain while a warp takes key rows in."""
    products = LATENCY["LDSM"] + CHANNELS / 16 * LATENCY["HMMA"]
    largest = 2 * row.key_tiles * STAGE_ROWS * LATENCY["FMNMX"] + 2 * (LATENCY["SHFL"] + LATENCY["FMNMX"])
    weights = LATENCY["FFMA"] + LATENCY["MUFU"] + LATENCY["F2FP"]
    labels = STAGE_ROWS * -(-row.key_tiles // 2) * LATENCY["HMMA"]
    return products + largest + weights + labels + STAGE_LATENCY


def groups_of(row: Row, gpu: Gpu, steps: Steps, height: int, width: int) -> list[tuple[int, int]]:
    """Step and number of slots of each group that CTAs compute together, as the launcher splits them."""
    tiles = -(-width // row.tile_x) * -(-height // row.tile_y)
    most = min(max(tiles * len(steps) // (CTAS_OF_A_PROCESSOR * gpu.processors), 1), len(steps))
    counts = Counter(steps)
    return [(step, min(most, counts[step] - i)) for step in counts for i in range(0, counts[step], most)]


def modelled_ms(
    kernel: Kernel, gpu: Gpu, steps: Steps = UNDILATED, height: int = HEIGHT, width: int = WIDTH
) -> float:
    """Time of one call, by the assumptions above."""
    row, warps = kernel.row, kernel.row.threads // 32
    work = {step: Work.of(row, step, height, width) for step in set(steps)}
    groups = groups_of(row, gpu, steps, height, width)
    ctas = [(slots * each, slots) for step, slots in groups for each in work[step].computed]
    resident = min(-(-len(ctas) // gpu.processors), kernel.blocks_per_sm)
    clocks = stage_clocks(kernel, gpu)
    stage = max(clocks.values()) + stage_latency(row) * PARTITIONS / (resident * warps)
    whole = CTA_LATENCY / resident + CTA_INSTRUCTIONS * warps / PARTITIONS
    processors = [0.0] * gpu.processors
    for computed, _ in ctas:
        heapq.heappush(processors, heapq.heappop(processors) + computed / PARTITIONS * stage + whole)
    pixel = 2 * (CHANNELS + LABELS)  # bytes of a slot
    pixels, arranged = height * width, sum(work[step].arranged for step in steps)
    partial = 4 * pixels * (8 * (row.max_labels // 8 + 1) + 1) * len(groups)
    alone = len(steps) == 1  # smoothing, where the query is the slot's key
    read = pixels * (pixel * len(steps) + (0 if alone else 2 * CHANNELS))
    main = max(max(processors) / gpu.ghz, (read + partial) / gpu.gb_per_s)
    others = (2 * pixel * arranged + partial + 2 * pixels * LABELS) / gpu.gb_per_s
    return (main + others) / 1e6 + LAUNCHES * LAUNCH_US / 1e3


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
        "radius",
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
        title=f"A warp takes in {STAGE_ROWS} key rows; {HEIGHT}x{WIDTH}, C={CHANNELS}, O={LABELS}",
    )
    for k in kernels:
        for step in (1, 2, 3, 4):
            body, work = k.body(), Work.of(k.row, step)
            ratios = (issued_over_useful(k, (step,)), exponentials_per_pair(k), work.staged_per_element)
            counts = (k.row.radius, k.sm, step, body["HMMA"], body["LDSM"], body["EX2"], body.total())
            table.add_row(k.row.name, *map(str, counts), *(f"{ratio:.2f}" for ratio in ratios))
    return table


def times(kernels: Sequence[Kernel]) -> Table:
    names = (
        "kernel",
        "radius",
        "GPU",
        "steps",
        "width",
        "tensor",
        "exp",
        "shared",
        "issue",
        "latency",
        "modelled ms",
    )
    table = Table(*names, title="Model: clocks of a stage, time of a call")
    for gpu in GPUS:
        for k in (one for one in kernels if one.sm == gpu.sm):
            clocks = [*stage_clocks(k, gpu).values(), stage_latency(k.row)]
            smoothing = k.row.radius == 2
            for steps in ((1,),) if smoothing else (UNDILATED, policy_steps(k.row.radius)):
                for width in (WIDTH, 214, 216):
                    label = " ".join(map(str, steps))
                    ms = f"{modelled_ms(k, gpu, steps, width=width):.3f}"
                    columns = (str(k.row.radius), gpu.name, label, str(width), *(f"{c:.0f}" for c in clocks))
                    table.add_row(k.row.name, *columns, ms)
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
