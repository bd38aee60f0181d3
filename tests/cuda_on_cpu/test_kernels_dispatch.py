"""The kernels' dispatch table: which row is chosen, and with which sentence a problem is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affinity_cases import Case, inputs_of
from cuda_on_cpu.fibers import emulator

pytestmark = [emulator.needs_cuda_headers, emulator.needs_compiler]

USUAL = Case("usual", height=2, width=3, radius=6, channels=64, labels=3, dtype="float16")


@pytest.fixture(scope="module")
def program() -> Path:
    return emulator.build()


@pytest.mark.parametrize(
    ("case", "sm", "row"),
    [
        (USUAL, 87, "mma f16 r8 c64 o7"),
        (replace(USUAL, labels=8), 87, "mma f16 r8 c64 o15"),
        (replace(USUAL, labels=16, radius=12), 120, "mma f16 r12 c64"),
        (USUAL, 75, "simt f16 r6"),
        (replace(USUAL, radius=2), 87, "mma f16 r4 c64 o7"),
        (replace(USUAL, radius=0), 87, "mma f16 r4 c64 o7"),
        (replace(USUAL, radius=5), 87, "mma f16 r8 c64 o7"),
        (replace(USUAL, radius=9), 87, "mma f16 r12 c64 o7"),
        (replace(USUAL, radius=16), 87, "mma f16 r16 c64 o7"),
        (replace(USUAL, radius=5), 75, "simt f16"),
        (replace(USUAL, channels=128, radius=12), 87, "simt f16 r12"),
        (replace(USUAL, dtype="float32"), 87, "simt f32 r6"),
        (replace(USUAL, offsets=2), 87, "gather f16"),
    ],
    ids=str,
)
def test_the_fastest_row_that_can_is_chosen(program: Path, case: Case, sm: int, row: str) -> None:
    assert emulator.run(program, None, [inputs_of(case)], sm=sm).rows == [row]


def test_a_negative_scale_is_left_to_a_kernel_that_can(program: Path) -> None:
    problem = replace(inputs_of(USUAL), scale=-1.0)
    assert emulator.run(program, None, [problem]).rows == ["simt f16 r6"]


def test_a_scale_that_overflows_is_left_to_a_kernel_that_can(program: Path) -> None:
    problem = inputs_of(USUAL)
    problem = replace(problem, query=0 * problem.query, scale=3e8)
    ran = emulator.run(program, None, [problem])
    assert ran.rows == ["simt f16 r6"] and np.isfinite(ran.results[0]).all()
    assert emulator.run(program, None, [replace(problem, scale=2e8)]).rows == ["mma f16 r8 c64 o7"]


def test_the_choice_can_be_overridden_for_measurements(program: Path) -> None:
    problem = inputs_of(USUAL)
    assert emulator.run(program, None, [problem], MASKRING_KERNEL="gather f16").rows == ["gather f16"]
    with pytest.raises(emulator.KernelFailed, match=r"radius.*; use"):
        emulator.run(program, None, [problem], MASKRING_KERNEL="mma f16 r4 c64")
    with pytest.raises(emulator.KernelFailed, match=r"MASKRING_KERNEL.*; unset it"):
        emulator.run(program, None, [problem], MASKRING_KERNEL="nonsense")


@pytest.mark.parametrize(
    ("case", "sm", "message"),
    [
        (USUAL, 70, r"compute capability 7\.5.*; use a newer"),
        (replace(USUAL, channels=12), 87, "multiple of 8.*; pad"),
        (replace(USUAL, channels=264), 87, "multiple of 8.*; pad"),
        (replace(USUAL, labels=33), 87, "labels.*; track fewer"),
        (replace(USUAL, radius=17), 87, "radius.*; export with a smaller"),
        (replace(USUAL, dilation=((1,) * 17,)), 87, "slots.*; export with another memory policy"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_no_kernel_computes_is_refused_with_a_remedy(
    program: Path, case: Case, sm: int, message: str, dtype: str
) -> None:
    problem = inputs_of(replace(case, dtype=dtype))
    with pytest.raises(emulator.KernelFailed, match=message):
        emulator.run(program, None, [problem], sm=sm)


@pytest.mark.parametrize(
    ("row", "case", "sm", "message"),
    [
        ("mma f16 r8 c64 o7", USUAL, 75, r"compute capability 8\.0"),
        ("mma f16 r8 c64 o7", replace(USUAL, labels=8), 87, "labels"),
        ("mma f16 r4 c64", USUAL, 87, "radius"),
        ("simt f16 r12", USUAL, 87, "radius"),
        ("mma f16 r8 c64", replace(USUAL, channels=72), 87, "channels"),
        ("mma f16 r8 c64", replace(USUAL, offsets=1), 87, "offsets"),
        ("simt f32", USUAL, 87, "float32.*float16"),
        ("gather f16", replace(USUAL, dtype="float32"), 87, "float16.*float32"),
    ],
    ids=str,
)
def test_each_kernel_refuses_what_it_was_not_made_for(
    program: Path, row: str, case: Case, sm: int, message: str
) -> None:
    with pytest.raises(emulator.KernelFailed, match=rf"{message}.*; use"):
        emulator.run(program, row, [inputs_of(case)], sm=sm)
