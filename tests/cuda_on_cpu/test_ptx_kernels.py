"""The kernels' real PTX, tensor cores included, executed and held to the reference in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from cuda_on_cpu.kernel_cases import REPRESENTATIVES, ROWS, Row, cases_of, random_cases_of
from cuda_on_cpu.ptx import host

pytestmark = pytest.mark.skipif(host.nvcc() is None, reason="no nvcc: pip install 'maskring[cuda]'")


def check(row: Row, cases: Sequence[Case]) -> None:
    for case in cases:
        error = np.abs(host.run(row.name, inputs_of(case)) - expected_of(case)).max()
        assert error <= TOLERANCE[case.dtype], f"{case}: {error}"


def test_every_row_of_the_table_is_tried() -> None:
    assert [row.name for row in ROWS] == host.configurations()


@pytest.mark.parametrize("row", REPRESENTATIVES, ids=lambda row: row.name)
def test_agrees_with_the_reference(row: Row) -> None:
    check(row, cases_of(row)[:2])


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_agrees_with_the_reference_on_all_cases(row: Row) -> None:
    check(row, [*cases_of(row), *random_cases_of(row, 10)])
