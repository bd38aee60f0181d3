"""Tests of the operator run with one torch thread, because their cases are tiny.

Also, the first exp that MKL computes on several threads is sometimes exact to 1e-9 only, which is too little for
the comparisons in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
