"""GPU day: are the kernels right, and how fast are they?"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable

import torch
from gpu_day_cases import Problem, Tensors, cases, tensors_of
from gpu_day_state import Day, described, kernels, reason, stream_of, with_workspace
from torch import Tensor

from maskring.plugins.windowed_affinity import torch_blocks
from maskring.plugins.windowed_affinity.cuda_op import CudaKernels

TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
CANARY = 1234.0
CANARIES = 256
"""Elements before and after an output that no kernel may touch."""

MIB = 1 << 20


# ---- correctness


def correctness(day: Day) -> None:
    """Every row against the blocks in float64: values, bits of a second run and of a graph, bounds, unread slots."""
    library, wrong, checked = kernels(), [], 0
    for problem in cases(small=day.dry_run):
        given = tensors_of(problem, day.device)
        rows = [row for row in range(len(library.names)) if not reason(day, library, row, problem, given)]
        if day.dry_run:
            rows = rows[:1]
        if not rows:
            wrong.append(f"{problem}: no row computes it")
            continue
        expected = reference(problem, given)
        for row in rows:
            if not day.in_time:
                day.note("unfinished", f"stopped before {problem}")
                break
            fault = fault_of(day, library, row, problem, given, expected)
            checked += 1
            if fault:
                wrong.append(f"{library.names[row]}, {problem}: {fault}")
        day.note("checked", checked)
        day.note("wrong", wrong)
    if wrong:
        raise SystemExit(f"{len(wrong)} of {checked} are wrong; the first: {wrong[0]}")


def reference(problem: Problem, given: Tensors) -> Tensor:
    """The blocks in float64, with the slots that are not read set to 0."""
    unread = (given.dilation == 0)[:, :, None, None, None]
    keys, values = (x.double().masked_fill(unread, 0) for x in (given.keys, given.values))
    settings = (given.offsets, problem.radius, problem.scale, 0)
    return torch_blocks.forward(given.query.double(), keys, values, given.dilation, *settings)


def fault_of(
    day: Day, library: CudaKernels, row: int, problem: Problem, given: Tensors, expected: Tensor
) -> str | None:
    """What is wrong with a row's result; None if nothing is."""
    size = expected.numel()
    guarded = torch.full((size + 2 * CANARIES,), CANARY, dtype=given.query.dtype, device=day.device)
    out = guarded[CANARIES : CANARIES + size].view(expected.shape)
    described_problem = described(problem, given, out)
    workspace = with_workspace(library, row, described_problem, day)

    def run() -> Tensor:
        out.fill_(float("nan"))
        workspace.fill_(0xFF)
        library.launch(row, described_problem, stream_of(day))
        day.synchronize()
        return out.clone()

    first = run()
    error = float((first.double() - expected).abs().max())
    if not error <= TOLERANCE[problem.dtype]:
        return f"error {error}"
    if not torch.equal(first, run()):
        return "a second run gives other bits"
    if not bool((guarded[:CANARIES] == CANARY).all() and (guarded[-CANARIES:] == CANARY).all()):
        return "it writes beyond its output"
    if day.dry_run:
        return None
    out.fill_(float("nan"))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        library.launch(row, described_problem, torch.cuda.current_stream().cuda_stream)
    graph.replay()
    day.synchronize()
    return None if torch.equal(first, out) else "a captured graph gives other bits"


# ---- speed


def roofs(day: Day) -> None:
    """What this GPU reaches: copies through memory and in its cache, f16 products, mma.sync, exponentials."""
    small = day.dry_run
    for name, nbytes in (
        ("copy_gb_s", MIB if small else 1024 * MIB),
        ("cached_copy_gb_s", MIB if small else 8 * MIB),
    ):
        source = torch.zeros(nbytes, dtype=torch.uint8, device=day.device)
        target = torch.empty_like(source)
        ms = day.milliseconds(functools.partial(target.copy_, source))
        day.note(name, round(2 * nbytes / ms / 1e6, 1))
    side = 64 if small else 8192
    matrix = torch.randn(side, side, dtype=torch.float16, device=day.device)
    day.note("f16_tflop_s", round(2 * side**3 / day.milliseconds(lambda: matrix @ matrix) / 1e9, 1))
    mma_sync_roof(day)
    numbers = torch.zeros(MIB, device=day.device)
    day.note("exp2_g_s", round(MIB / day.milliseconds(numbers.exp2) / 1e6, 1))


def mma_sync_roof(day: Day, rounds: int = 20_000) -> None:
    """The instruction of the kernels for tensor cores, on registers alone; cuBLAS may use a faster one."""
    library = ctypes.CDLL(os.environ["MASKRING_ONNXRUNTIME_LIBRARY"])
    if not hasattr(library, "maskring_roof_launch"):
        return day.note("mma_sync_tflop_s", "the library was not built by gpu_day_pack.py")
    library.maskring_roof_operations.restype = ctypes.c_double
    out = torch.empty(256 * library.maskring_roof_ctas(), device=day.device)
    pointer, stream = ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(stream_of(day))

    def launch() -> None:
        if code := library.maskring_roof_launch(pointer, rounds, stream):
            raise SystemExit(f"mma.sync on registers failed with CUDA error {code}")

    ms = day.milliseconds(launch)
    return day.note("mma_sync_tflop_s", round(library.maskring_roof_operations(rounds) / ms / 1e9, 1))


TUNED = tuple(
    Problem(steps, size[0], size[1], radius, labels=11, dtype=dtype)
    for dtype, radius, size, steps in itertools.product(
        ("float16", "float32"),
        (6, 12, 2),
        ((120, 120), (120, 214), (120, 216)),
        ((1, 1, 1, 1, 1), (1, 3, 3, 3, 3)),
    )
)
COLD_BYTES = 256 * MIB
"""Written before a cold launch: more than a GPU's cache holds."""


def tuning(day: Day) -> None:
    """Every row that computes a problem, warm and cold, fastest first, and whether dispatch chooses that one."""
    library = kernels()
    flush = torch.empty(MIB if day.dry_run else COLD_BYTES, dtype=torch.uint8, device=day.device)
    problems = [Problem((1, 2), 9, 12, 6, dtype="float16")] if day.dry_run else TUNED
    for problem in problems:
        given = tensors_of(problem, day.device)
        out = torch.empty_like(given.values[:, 0])
        described_problem = described(problem, given, out)
        rows = [row for row in range(len(library.names)) if not reason(day, library, row, problem, given)]
        times = {}
        for row in rows:
            if not day.in_time:
                day.note("unfinished", f"stopped at {problem}")
                return
            workspace = with_workspace(library, row, described_problem, day)
            launch = functools.partial(library.launch, row, described_problem, stream_of(day))
            warm = day.milliseconds(launch)
            both = day.milliseconds(functools.partial(flushed, flush, launch), 10)
            cold = both - day.milliseconds(flush.zero_, 10)
            del workspace
            times[library.names[row]] = {"warm_ms": warm, "cold_ms": round(cold, 4)}
        ordered = dict(sorted(times.items(), key=lambda item: item[1]["warm_ms"]))
        chosen = library.choose(described_problem, day.sm)
        useful = 2 * problem.useful_pairs() * (problem.channels + problem.labels)
        best = next(iter(ordered.values()))["warm_ms"]
        day.note(
            str(problem),
            {
                "times": ordered,
                "chosen": None if chosen is None else library.names[chosen],
                "useful_tflop_s": round(useful / best / 1e9, 2),
            },
        )


def flushed(flush: Tensor, launch: Callable[[], None]) -> None:
    """A launch whose inputs are no longer in the cache."""
    flush.zero_()
    launch()


def small(day: Day) -> None:
    """One small case per row, for the tools."""
    library = kernels()
    for problem in cases(small=True):
        given = tensors_of(problem, day.device)
        out = torch.empty_like(given.values[:, 0])
        for row in range(len(library.names)):
            if not reason(day, library, row, problem, given):
                described_problem = described(problem, given, out)
                workspace = with_workspace(library, row, described_problem, day)
                library.launch(row, described_problem, stream_of(day))
                del workspace
    day.synchronize()
