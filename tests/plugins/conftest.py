"""The cases here are tiny: torch's threads would only wait for each other.

They are also compared closely in double precision, where the first exp that MKL computes in several threads
at once is now and then exact to 1e-9 only.
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
