"""Compares the operator with its alternatives: speed, memory, and how both grow.

    python bench/peers.py --out docs/results           # writes peers.json and plots, prints tables
    python bench/peers.py --sizes 60 120 --radii 6     # prints only
    python bench/peers.py --device cuda --out results  # the same on a GPU

Each cell is measured in a separate process. First the result is compared with the reference on a small frame
with the cell's radius, slots and labels. Then one call at full size gives the peak memory (on a CPU: additional
resident memory; compiled alternatives have run once before). Then the alternative and maskring's torch operator
run in turns, so that "times maskring" also holds on a busy machine. With --out, cells that are already in
peers.json are not measured again. Alternatives that are not installed are listed with their remedy; none is a
dependency of maskring.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import peer_ways
from peer_ways import SCALE, Case, Maker, NotExpressible

from maskring.common.files import atomic_path, make_directory

matplotlib.use("Agg")

OURS = "maskring"
FORWARD, BACKWARD = "forward", "forward and backward"
TOLERANCE = {FORWARD: 1e-4, BACKWARD: 1e-3}
"""Largest absolute error allowed, of gradients as well if they are measured."""
SMALL, BUDGET, ROUNDS = 30, 8.0, 5
"""Pixels per side of the frame compared with the reference; seconds and maximum rounds of timing."""


@dataclass(frozen=True)
class Way:
    """One alternative: how to make it, what it needs, and whether its windows at borders are the operator's."""

    make: Maker
    module: str = "torch"
    remedy: str = ""
    borders: bool = True
    compiled: bool = False


WAYS = {
    OURS: Way(peer_ways.operator, "maskring"),
    "FlexAttention": Way(peer_ways.flex, compiled=True),
    "NATTEN": Way(peer_ways.neighborhood, "natten", "pip install --no-build-isolation natten", False),
    "correlation sampler": Way(
        peer_ways.correlation, "spatial_correlation_sampler", "see docs/results/peers.md, it is compiled"
    ),
    "ONNX function": Way(peer_ways.function, "onnxruntime"),
    "naive unfold": Way(peer_ways.unfold),
}


@dataclass(frozen=True)
class Cell:
    """One way, one case, one direction; ``note`` says why the figures are missing.

    ``ms`` is the way's median, ``times`` the median of its ratio to maskring's operator in the same round,
    ``peak_mb`` the memory that one call takes.
    """

    way: str
    direction: str
    case: Case
    ms: float = math.nan
    times: float = math.nan
    peak_mb: float = math.nan
    note: str = ""


def call_of(way: Way, case: Case, direction: str) -> Callable[[], list[Any]]:
    """The call that is timed: the output, and with it the gradients where they are measured."""
    import torch

    inputs = case.inputs()
    if direction == FORWARD:
        with torch.no_grad():
            read = way.make(case)

        def forward() -> list[Any]:
            with torch.no_grad():
                return [read(*inputs)]

        return forward
    leaves = [tensor.requires_grad_() for tensor in inputs]
    differentiable = way.make(case)

    def backward() -> list[Any]:
        out = differentiable(*leaves)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]

    return backward


def judged(case: Case, direction: str) -> list[Any]:
    """The reference's result, in float64."""
    import torch

    from maskring.plugins.windowed_affinity.reference import windowed_affinity

    query, keys, values = leaves = [tensor.double().requires_grad_() for tensor in case.inputs()]
    filled = torch.ones(1, case.slots, dtype=torch.int32, device=case.device)
    out = windowed_affinity(query, keys, values, filled, radius=case.radius, scale=SCALE)
    if direction == FORWARD:
        return [out.detach()]
    return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]


def require_right(way: Way, case: Case, direction: str) -> None:
    """Compare a way with the reference on a small frame, without the borders if it treats these differently."""
    small = replace(case, size=max(SMALL, case.window + 5))
    margin = slice(None) if way.borders else slice(case.radius, small.size - case.radius)
    found = call_of(way, small, direction)()
    for ours, right in zip(found, judged(small, direction), strict=True):
        error = (ours.double() - right)[..., margin, margin].abs().max().item()
        if not error <= TOLERANCE[direction]:
            raise SystemExit(f"the result differs from the reference by {error:.1e}")


class Meter:
    """Peak memory of one call, on the device that it runs on."""

    def __init__(self, device: str, limit_gb: float) -> None:
        self.device, self.limit = device, int(limit_gb * 1e9)

    def wait(self) -> None:
        """Wait for the GPU."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def peak_mb(self, call: Callable[[], object]) -> float:
        """Additional megabytes of memory that one call takes."""
        if self.device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            self.wait()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        from affinity import resident_mb

        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + self.limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        ctypes.CDLL(None).malloc_trim(0)  # or what earlier calls have freed would not count
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        resident = resident_mb("VmRSS")
        call()
        return resident_mb("VmHWM") - resident

    def seconds(self, call: Callable[[], object]) -> float:
        """Wall-clock time of one call."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start


def measured(cell: Cell, limit_gb: float) -> Cell:
    """Fill in a cell, in this process."""
    import torch

    torch.set_num_threads(cell.case.threads)
    way, meter = WAYS[cell.way], Meter(cell.case.device, limit_gb)
    try:
        require_right(way, cell.case, cell.direction)
        call = call_of(way, cell.case, cell.direction)
        ours = call_of(WAYS[OURS], cell.case, cell.direction)
        if way.compiled:
            call()
        peak = meter.peak_mb(call)
        ours()
        taken: list[float] = []
        ratios: list[float] = []
        started = time.perf_counter()
        while not taken or (len(taken) < ROUNDS and time.perf_counter() - started < BUDGET):
            taken.append(meter.seconds(call))
            ratios.append(taken[-1] / median(meter.seconds(ours) for _ in range(3)))
    except NotExpressible as reason:
        return replace(cell, note=str(reason))
    except (RuntimeError, MemoryError) as error:  # of torch and onnxruntime, on CPUs and GPUs
        memory = any(word in str(error).lower() for word in ("allocate", "alloc", "memory"))
        note = f"needs more than {limit_gb:g} GB" if memory else str(error).splitlines()[0][:200]
        return replace(cell, note=note)
    return replace(cell, ms=median(taken) * 1e3, times=median(ratios), peak_mb=peak)


def in_child(cell: Cell, options: argparse.Namespace) -> Cell:
    """Fill in a cell in a separate process."""
    job = json.dumps([cell.way, cell.direction, asdict(cell.case), options.limit_gb])
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--child", job],
            capture_output=True,
            text=True,
            timeout=options.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return replace(cell, note=f"not done after {options.timeout:g} s")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return replace(cell, note=last[0][:200])
    found = json.loads(done.stdout.splitlines()[-1])
    return replace(cell, **found)


def child(job: str) -> None:
    """Entry point of the process of one cell: prints the result."""
    name, direction, case, limit_gb = json.loads(job)
    found = asdict(measured(Cell(name, direction, Case(**case)), limit_gb))
    print(json.dumps({key: found[key] for key in ("ms", "times", "peak_mb", "note")}))


def cases(options: argparse.Namespace) -> Iterable[Case]:
    """Growth with the frame at both radii; then with slots and labels around one case."""
    base = Case(device=options.device, threads=options.threads)
    for radius in options.radii:
        for size in options.sizes:
            yield replace(base, radius=radius, size=size)
    middle = replace(base, radius=options.radii[-1], size=options.around)
    yield from (replace(middle, slots=slots) for slots in options.slots)
    yield from (replace(middle, labels=labels) for labels in options.labels)


def missing() -> dict[str, str]:
    """Ways that cannot be measured here, with the remedy."""
    return {
        name: f"{name} is not installed: {way.remedy}"
        for name, way in WAYS.items()
        if importlib.util.find_spec(way.module) is None
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 120, 180, 240], help="H = W of features")
    parser.add_argument("--radii", type=int, nargs="+", default=[6, 12])
    parser.add_argument(
        "--slots", type=int, nargs="+", default=[1], help="in addition to 5, at the last radius"
    )
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[11], help="in addition to 2, at the last radius"
    )
    parser.add_argument("--around", type=int, default=120, help="H = W where slots and labels change")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    both = [FORWARD, BACKWARD]
    parser.add_argument("--directions", nargs="+", choices=both, default=both)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-gb", type=float, default=6.0, help="memory that one call may take")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one cell")
    parser.add_argument("--out", type=Path, help="folder for peers.json and plots")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.child:
        child(options.child)
        return
    absent = missing()
    print("\n".join(absent.values()) or "all peers are installed", flush=True)
    cells = remembered(options.out) if options.out else []
    known = {(cell.way, cell.direction, cell.case) for cell in cells}
    for case in dict.fromkeys(cases(options)):
        for direction in options.directions:
            for name in options.ways:
                if name in absent or (name, direction, case) in known:
                    continue
                cells.append(in_child(Cell(name, direction, case), options))
                print(line(cells[-1]), flush=True)
                if options.out:
                    write(options.out, cells)
    print(tables(cells))


def line(cell: Cell) -> str:
    """One cell as a line of text."""
    case = cell.case
    where = f"{case.size:4d} r={case.radius:<2d} N={case.slots} O={case.labels:<2d} {cell.direction:20}"
    if cell.note:
        return f"{where} {cell.way:20} {cell.note}"
    return f"{where} {cell.way:20} {cell.ms:10.1f} ms {cell.times:8.1f} times maskring {cell.peak_mb:9.1f} MB"


def remembered(out: Path) -> list[Cell]:
    """Results of an earlier run."""
    path = out / "peers.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else []
    return [Cell(**{**cell, "case": Case(**cell["case"])}) for cell in found]


def write(out: Path, cells: list[Cell]) -> None:
    """Write all results so far: cells as JSON, tables as Markdown, and the plots."""
    make_directory(out)
    with atomic_path(out / "peers.json") as partial:
        partial.write_text(json.dumps([asdict(cell) for cell in cells], indent=1), "utf-8")
    for direction, short in ((FORWARD, "forward"), (BACKWARD, "backward")):
        for figure, unit in (("ms", "ms per call"), ("peak_mb", "MB beyond the inputs")):
            plot(out / f"peers_{short}_{figure}.png", cells, direction, figure, unit)


def plot(path: Path, cells: list[Cell], direction: str, figure: str, unit: str) -> None:
    """How a figure grows with the frame: a panel for each radius, a line for each way."""
    grown = [cell for cell in cells if cell.direction == direction and not cell.note]
    grown = [cell for cell in grown if (cell.case.slots, cell.case.labels) == (Case.slots, Case.labels)]
    radii = sorted({cell.case.radius for cell in grown})
    if not radii:
        return
    drawing, panels = plt.subplots(1, len(radii), figsize=(4 * len(radii), 3.4), sharey=True, squeeze=False)
    for axes, radius in zip(panels[0], radii, strict=True):
        for index, name in enumerate(WAYS):
            line = sorted(
                (cell.case.size, getattr(cell, figure))
                for cell in grown
                if cell.way == name and cell.case.radius == radius
            )
            if line:
                axes.plot(*zip(*line, strict=True), "o-", color=f"C{index}", label=name)
        axes.set_xscale("log"), axes.set_yscale("log")
        sizes = sorted({cell.case.size for cell in grown})
        axes.set_xticks(sizes, [str(size) for size in sizes]), axes.minorticks_off()
        axes.set_title(f"{direction}, r = {radius}"), axes.set_xlabel("H = W"), axes.set_ylabel(unit)
    panels[0][0].legend(fontsize=7)
    drawing.tight_layout()
    with atomic_path(path) as partial:
        drawing.savefig(partial, format="png", dpi=90)
    plt.close(drawing)


def tables(cells: list[Cell]) -> str:
    """Markdown: a table for each direction, a row for each case, a column for each way."""
    lines = []
    for direction in (FORWARD, BACKWARD):
        found = {(cell.way, cell.case): cell for cell in cells if cell.direction == direction}
        ways = [
            name for name in WAYS if any(way == name and not cell.note for (way, _), cell in found.items())
        ]
        lines += ["", f"{direction}:", "", "| H = W | r | N | O | " + " | ".join(ways) + " |"]
        lines += ["|" + "---|" * (4 + len(ways))]
        for case in dict.fromkeys(case for _, case in found):
            row = [text_of(found.get((name, case))) for name in ways]
            head = f"| {case.size} | {case.radius} | {case.slots} | {case.labels} | "
            lines.append(head + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def text_of(cell: Cell | None) -> str:
    """Milliseconds, ratio to maskring, megabytes; or why they are missing."""
    if cell is None:
        return ""
    if cell.note:
        return cell.note if cell.note.startswith(("needs", "not done")) else "–"
    times = "" if cell.way == OURS else f" ({cell.times:.0f}x)"
    return f"{brief(cell.ms)} ms{times}, {brief(cell.peak_mb)} MB"


def brief(value: float) -> str:
    """Format a number with at least two digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
