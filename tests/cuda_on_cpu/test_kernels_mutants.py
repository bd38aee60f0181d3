"""Planted bugs in the CUDA kernels: each must be seen by the execution of the kernels as C++."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from cuda_on_cpu.fibers import emulator
from cuda_on_cpu.fibers.emulator import ASAN, TSAN, Mutation
from cuda_on_cpu.kernel_cases import Row

pytestmark = [emulator.needs_cuda_headers, emulator.needs_compiler]

SIMT, MMA, GATHER = "affinity_simt.cuh", "affinity_mma.cuh", "affinity_gather.cuh"
PHASES, COMBINE = "phases.cuh", "combine.cuh"
TENSOR_CORES = Row("mma f16 r8 c64 o7")
ROW_OF = {
    SIMT: Row("simt f32 r6"),
    MMA: TENSOR_CORES,
    PHASES: TENSOR_CORES,
    COMBINE: TENSOR_CORES,
    GATHER: Row("gather f32"),
}
# Two slots with the same step, an empty one, phases, and a step too wide for phases.
PROBLEM = Case("small", height=23, width=19, radius=6, dilation=((1, 0, 2, 9, 1),), channels=64)


@dataclass(frozen=True)
class Planted:
    """A bug and what must see it: values compared with the reference, or a sanitizer."""

    mutation: Mutation
    flags: tuple[str, ...] = ()
    width: int = PROBLEM.width

    def __str__(self) -> str:
        return f"{self.mutation.file.removesuffix('.cuh')}: {self.mutation}"


def planted(
    name: str, file: str, old: str, new: str, flags: tuple[str, ...] = (), width: int = PROBLEM.width
) -> Planted:
    return Planted(Mutation(name, file, old, new), flags, width)


# One for each kind of bug that a kernel like these may have.
NAMED = [
    planted("barrier missing before keys are read", SIMT, "problem);\n        __syncthreads();", "problem);"),
    planted(
        "halo off by one", SIMT, "tile_x + (first - radius) * step", "tile_x + (first - radius) * step + 1"
    ),
    planted("mask missing left of the frame", SIMT, "step <= radius && key_x >= 0 &&", "step <= radius &&"),
    planted(
        "stale shared memory",
        SIMT,
        "? to_float(row[c * plane + x]) : 0.f;",
        "? to_float(row[c * plane + x]) : shared[c * stage.columns + column];",
    ),
    planted(
        "barrier missing before keys are read",
        MMA,
        "        __syncthreads();  // the stage is complete\n",
        "",
    ),
    planted("wrong lane mapping of queries", MMA, "features[k].r[r] = pack", "features[k].r[r ^ 1] = pack"),
    planted(
        "mask missing in y",
        MMA,
        "pairs_in_x & queries.pairs_in_y(row + i, radius)",
        "pairs_in_x",
    ),
    planted(
        "stale shared memory: one group of copies too few awaited",
        MMA,
        "await_copies<1>",
        "await_copies<2>",
        width=24,
    ),
    planted("halo off by one", MMA, "first_key + KEYS * tile +", "first_key + 1 + KEYS * tile +"),
    planted(
        "barrier missing before the buffer is filled again",
        MMA,
        "        __syncthreads();  // the stage may be filled again\n",
        "",
        TSAN,
    ),
    planted("phases in another order", PHASES, "y % step * step + phase_x", "phase_x * step + y % step"),
    planted(
        "groups of slots added as if their largest logits were equal",
        COMBINE,
        "exp2_approx((workspace.largest[at] - largest) * (problem.scale * LOG2_E))",
        "1.f",
    ),
]

# More of them, the slower ones.
OTHERS = [
    planted("slots of a group dropped", MMA, "group ^= 1u << slot;", "group = 0;"),
    planted("a slot in two groups", PHASES, "before % workspace.slots_at_once != 0", "before < 0"),
    planted("results of a phase side by side", PHASES, "+ x + column * step;", "+ x + column;"),
    planted(
        "phases copied beyond the row",
        PHASES,
        "int(x) < problem.width ? from[x] : __half(0.f);",
        "from[x];",
        ASAN,
    ),
    planted("a wide step's windows cut", PHASES, "x - min(x / step * step, reach)", "x"),
    planted("a wide step's sums not rescaled", PHASES, "sums[i] * rescale +", "sums[i] +"),
    planted("weights of the last group alone", COMBINE, "total += factor", "total = factor"),
    planted(
        "barrier missing before keys are replaced",
        SIMT,
        "        __syncthreads();  // the stage may still be read\n",
        "",
        TSAN,
    ),
    planted(
        "barrier missing before the warps merge",
        SIMT,
        "    __syncthreads();  // the stage is free\n",
        "",
        TSAN,
    ),
    planted(
        "frame's right border not checked",
        SIMT,
        "x >= 0 && x < problem.width;\n            shared",
        "x >= 0;\n            shared",
        ASAN,
    ),
    planted(
        "sums not rescaled", SIMT, "sum = sum * warp.rescale[row] + total[row]", "sum = sum + total[row]"
    ),
    planted("one key row too few", SIMT, "TILE_Y + 2 * radius * step :", "TILE_Y + 2 * radius * step - 1 :"),
    planted(
        "empty slot read",
        SIMT,
        "        if (step == 0) continue;\n",
        "",
    ),
    planted("mask missing in x", MMA, "key_x >= 0 && key_x < width", "key_x >= -width && key_x < 2 * width"),
    planted("labels not rescaled", MMA, "queries.labels[tile].v[2 * half] *= factor;", ""),
    planted("keys not transposed", MMA, "load_matrices_transposed(first", "load_matrices(first"),
    planted("tail tile reads what nobody wrote", MMA, "(both ? matrix % 2 : 0)", "(matrix % 2)"),
    planted(
        "copies beyond the row",
        MMA,
        "x < walk.phase.pitch;",
        "x < walk.phase.pitch + 8;",
        ASAN,
        24,
    ),
    planted("row of ones missing", MMA, "label == labels ? 1.f : 0.f", "0.f"),
    planted(
        "one row of windows dropped by the walk",
        MMA,
        "tile_y + S::TILE_Y + problem.radius);",
        "tile_y + S::TILE_Y + problem.radius - 1);",
    ),
    planted("barrier missing before the warps merge", GATHER, "    __syncthreads();\n", "", TSAN),
    planted("a warp's rows counted twice", GATHER, "for (int i = warp;", "for (int i = warp / WARPS;"),
    planted("sums not rescaled", GATHER, "sums[label] * rescale +", "sums[label] * fmaxf(rescale, 1.f) +"),
]


def is_seen(bug: Planted) -> bool:
    row = ROW_OF[bug.mutation.file]
    case = row.fit(replace(PROBLEM, width=bug.width))
    assert case is not None
    program = emulator.build(("-O1", *bug.flags), bug.mutation, rows=[row.name])
    variables = {"CUDA_ON_CPU_SEED": "1"}
    if bug.flags == TSAN:  # a copy that is delivered late may hide that nothing awaits it
        variables["CUDA_ON_CPU_ASYNC"] = "early"
    try:
        result = emulator.run(program, row.name, [inputs_of(case)], **variables).results[0]
    except emulator.KernelFailed:
        return True
    assert not bug.flags, "the sanitizer saw nothing"
    return not bool(np.abs(result - expected_of(case)).max() <= TOLERANCE[case.dtype])


def by_flags(bugs: list[Planted]) -> list[object]:
    """Bugs for a sanitizer are skipped where no compiler has it."""
    marks = {ASAN: [emulator.needs_asan], TSAN: [emulator.needs_tsan], (): []}
    return [pytest.param(bug, marks=marks[bug.flags], id=str(bug)) for bug in bugs]


@pytest.mark.parametrize("bug", by_flags(NAMED))
def test_planted_bug_is_seen(bug: Planted) -> None:
    assert is_seen(bug)


@pytest.mark.slow
@pytest.mark.parametrize("bug", by_flags(OTHERS))
def test_other_planted_bugs_are_seen(bug: Planted) -> None:
    assert is_seen(bug)


def test_without_a_bug_the_same_check_sees_nothing() -> None:
    """The control: what :func:`is_seen` reports comes from the bug."""
    for file in ROW_OF:
        assert not is_seen(planted("none", file, "#pragma once", "#pragma once "))
