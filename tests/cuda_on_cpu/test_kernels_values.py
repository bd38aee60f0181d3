"""The CUDA kernels, executed as C++, against the reference in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from cuda_on_cpu.fibers import emulator
from cuda_on_cpu.kernel_cases import REPRESENTATIVES, ROWS, Row, cases_of, random_cases_of

pytestmark = [emulator.needs_cuda_headers, emulator.needs_compiler]


@pytest.fixture(scope="module")
def program() -> Path:
    return emulator.build()


def check(program: Path, row: Row, cases: Sequence[Case], **variables: str) -> None:
    results = emulator.run(program, row.name, [inputs_of(case) for case in cases], **variables).results
    for case, result in zip(cases, results, strict=True):
        error = np.abs(result - expected_of(case)).max()
        assert error <= TOLERANCE[case.dtype], f"{case}: {error}"


def test_every_row_of_the_table_is_tried(program: Path) -> None:
    assert [row.name for row in ROWS] == emulator.configurations(program)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_agrees_with_the_reference(program: Path, row: Row) -> None:
    check(program, row, cases_of(row))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_agrees_with_the_reference_on_random_cases(program: Path, row: Row) -> None:
    check(program, row, random_cases_of(row, 40))


@pytest.mark.parametrize("processors", ["2", "100"])
def test_slots_may_be_split_over_ctas(program: Path, processors: str) -> None:
    """The more processors, the fewer slots a CTA takes: here three and one."""
    rows = [row for row in REPRESENTATIVES if row.family == "mma"]
    alike = Case("alike", height=40, width=24, radius=6, dilation=((2, 2, 1, 2, 2),), channels=64)
    for row in rows:
        case = row.fit(alike)
        assert case is not None
        check(program, row, [case], CUDA_ON_CPU_PROCESSORS=processors)


SHORT = Case("short", height=9, width=19, radius=6, dilation=((1, 2),), channels=64)
SANITIZED = [row if row in REPRESENTATIVES else pytest.param(row, marks=pytest.mark.slow) for row in ROWS]


@pytest.mark.parametrize("row", REPRESENTATIVES, ids=lambda row: row.name)
@pytest.mark.parametrize("copies", ["late", "early"])
def test_order_of_threads_and_copies_does_not_matter(program: Path, row: Row, copies: str) -> None:
    case = row.fit(SHORT)
    assert case is not None
    once, again = (
        emulator.run(
            program, row.name, [inputs_of(case)], CUDA_ON_CPU_SEED=seed, CUDA_ON_CPU_ASYNC=copies
        ).results[0]
        for seed in ("1", "2")
    )
    assert (once == again).all()


@emulator.needs_asan
@pytest.mark.parametrize("row", SANITIZED, ids=lambda row: row.name)
def test_address_sanitizer_finds_nothing(row: Row) -> None:
    program = sanitized(row, emulator.ASAN)
    check_sanitized(program, row)


@emulator.needs_tsan
@pytest.mark.parametrize("row", SANITIZED, ids=lambda row: row.name)
def test_thread_sanitizer_finds_nothing(row: Row) -> None:
    """Copies are delivered at once: a late one may come when the barrier that it should have awaited is passed."""
    program = sanitized(row, emulator.TSAN)
    check_sanitized(program, row, CUDA_ON_CPU_ASYNC="early")


def sanitized(row: Row, flags: Sequence[str]) -> Path:
    """One program of the rows that are tried every day, another of all, which takes minutes to compile."""
    few = [each.name for each in REPRESENTATIVES]
    return emulator.build(("-O1", *flags), rows=few if row in REPRESENTATIVES else None)


def check_sanitized(program: Path, row: Row, **variables: str) -> None:
    """Widths that are a multiple of 8, even and odd, at two steps; offsets where the row takes them."""
    reach = 9 if row.family == "gather" else None
    cases = [
        row.fit(replace(SHORT, width=width, dilation=dilation, offsets=reach))
        for width, dilation in ((24, ((1,),)), (18, ((2, 9),)), (19, ((1,),)))
    ]
    check(program, row, [case for case in cases if case is not None], **variables)
