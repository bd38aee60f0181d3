"""Planted bugs in the CUDA kernels: each must be seen by the execution of their PTX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from affinity_cases import TOLERANCE, expected_of, inputs_of
from cuda_on_cpu.fibers.emulator import Mutation
from cuda_on_cpu.ptx import PtxError, host
from cuda_on_cpu.test_kernels_mutants import NAMED, OTHERS, PROBLEM, ROW_OF, Planted

pytestmark = pytest.mark.skipif(host.nvcc() is None, reason="no nvcc: pip install 'maskring[cuda]'")

NOT_A_FINDING = ("syntax", "unsupported", "launch")


def is_seen(planted: Planted) -> bool:
    """Whether the interpreter refuses the kernel with the bug, or its result is wrong."""
    case = ROW_OF[planted.mutation.file].fit(replace(PROBLEM, width=planted.width))
    assert case is not None
    try:
        result = host.run(ROW_OF[planted.mutation.file].name, inputs_of(case), planted.mutation)
    except PtxError as error:
        assert error.kind not in NOT_A_FINDING, error
        print(error.kind, error)
        return True
    error = np.abs(result - expected_of(case)).max()
    print(error)
    return not error <= TOLERANCE[case.dtype]


EVERYDAY = NAMED[::4]
"""A few: nvcc compiles each of them anew, and the interpreter is slower than the execution as C++."""


@pytest.mark.parametrize("planted", EVERYDAY, ids=str)
def test_planted_bug_is_seen(planted: Planted) -> None:
    assert is_seen(planted)


@pytest.mark.slow
@pytest.mark.parametrize("planted", [bug for bug in NAMED + OTHERS if bug not in EVERYDAY], ids=str)
def test_other_planted_bug_is_seen(planted: Planted) -> None:
    assert is_seen(planted)


def test_without_a_bug_the_same_check_sees_nothing() -> None:
    """The control: what :func:`is_seen` reports comes from the bug."""
    for file in ROW_OF:
        assert not is_seen(Planted(Mutation("none", file, "#pragma once", "#pragma once ")))
