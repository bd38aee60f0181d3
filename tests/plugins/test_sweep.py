"""Every implementation of windowed affinity against the reference in float64, over one set of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from affinity_cases import TOLERANCE, Array, Case, Inputs, corner_cases, expected_of, inputs_of, random_case

from maskring.plugins.windowed_affinity import torch_blocks
from maskring.plugins.windowed_affinity.torch_op import windowed_affinity

CASES = [*corner_cases(), *map(random_case, range(60))]


@dataclass(frozen=True)
class Implementation:
    """One way to compute the operator.

    Attributes:
        name: for the test's name.
        run: from the arguments to the result, in the type of the values.
        can_run: why it cannot run a case, as a sentence; empty when it can.
    """

    name: str
    run: Callable[[Inputs], Array]
    can_run: Callable[[Case], str] = lambda case: ""


def _tensors(data: Inputs) -> list[torch.Tensor | None]:
    arrays = (data.query, data.keys, data.values, data.dilation, data.offsets)
    return [None if array is None else torch.from_numpy(array) for array in arrays]


def run_operator(data: Inputs) -> Array:
    out = windowed_affinity(*_tensors(data), radius=data.radius, scale=data.scale, top_k=data.top_k)
    return out.numpy()


def run_blocks(data: Inputs) -> Array:
    return torch_blocks.forward(*_tensors(data), data.radius, data.scale, data.top_k).numpy()


IMPLEMENTATIONS = [
    Implementation("torch operator", run_operator),
    Implementation("plain torch", run_blocks),
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case: Case, implementation: Implementation) -> None:
    if reason := implementation.can_run(case):
        pytest.skip(reason)
    out, expected = implementation.run(inputs_of(case)), expected_of(case)
    assert out.dtype == case.dtype
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() <= TOLERANCE[case.dtype]
