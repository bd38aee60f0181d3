"""Every implementation of windowed affinity against the reference in float64, over one set of cases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from affinity_cases import (
    TOLERANCE,
    Array,
    Case,
    Inputs,
    any_case,
    corner_cases,
    expected_of,
    inputs_of,
    random_case,
)
from hypothesis import HealthCheck, given, settings
from operator_models import named_inputs, read_model

from maskring.plugins import onnxruntime_library
from maskring.plugins.windowed_affinity import (
    cpu_op,
    onnx_function,
    torch_blocks,
    torch_op,
)

CASES = [*corner_cases(), *map(random_case, range(60))]


@dataclass(frozen=True)
class Implementation:
    """One way to compute the operator.

    Attributes:
        name: for the test's name.
        run: from the arguments to the result, in the type of the values.
    """

    name: str
    run: Callable[[Inputs], Array]


def run_torch(function: Callable[..., torch.Tensor], data: Inputs) -> Array:
    arrays = (data.query, data.keys, data.values, data.dilation, data.offsets)
    tensors = [None if array is None else torch.from_numpy(array) for array in arrays]
    return function(*tensors, radius=data.radius, scale=data.scale, top_k=data.top_k).numpy()


def run_native(instruction_set: str, data: Inputs) -> Array:
    with mock.patch.dict(os.environ, {cpu_op.ISA_VARIABLE: instruction_set}):
        return cpu_op.windowed_affinity(
            data.query,
            data.keys,
            data.values,
            data.dilation,
            data.offsets,
            radius=data.radius,
            scale=data.scale,
            top_k=data.top_k,
        )


def model_of(data: Inputs) -> onnx.ModelProto:
    """A model of the one node and its body."""
    body = onnx_function.function_body(offsets=data.offsets is not None, top_k=data.top_k > 0)
    model = read_model(data, functions=[body])
    onnx.checker.check_model(model)
    return model


def run_onnxruntime(with_library: bool, data: Inputs) -> Array:
    options, model = onnxruntime.SessionOptions(), model_of(data)
    if with_library:
        options.register_custom_ops_library(str(onnxruntime_library()))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    out: Array = session.run(None, named_inputs(data))[0]
    return out


def implementations() -> Iterator[Implementation]:
    yield Implementation("torch operator", partial(run_torch, torch_op.windowed_affinity))
    yield Implementation("plain torch", partial(run_torch, torch_blocks.forward))
    for instruction_set in cpu_op.instruction_sets():
        yield Implementation(f"native {instruction_set}", partial(run_native, instruction_set))
    yield Implementation("onnxruntime, function body", partial(run_onnxruntime, False))
    yield Implementation("onnxruntime, operator library", partial(run_onnxruntime, True))


IMPLEMENTATIONS = [*implementations()]


def check(implementation: Implementation, case: Case) -> None:
    out, expected = implementation.run(inputs_of(case)), expected_of(case)
    assert out.dtype == case.dtype
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() <= TOLERANCE[case.dtype]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case: Case, implementation: Implementation) -> None:
    check(implementation, case)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_case())
def test_agrees_with_the_reference_on_anything(case: Case) -> None:
    for implementation in IMPLEMENTATIONS:
        check(implementation, case)
