"""The operator in ONNX files: its function bodies, and the library that replaces them.

``test_sweep.py`` compares values with the reference.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from maskring.plugins import onnxruntime_library
from maskring.plugins.windowed_affinity import onnx_function, onnx_op, reference

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def model_with_reads(
    count: int, element_type: int = SINGLE, *, offsets: bool = False, top_k: int = 0
) -> onnx.ModelProto:
    """``count`` memory reads in a chain: the output of each is the query of the next."""
    names = ["keys", "values", "dilation", *(["offsets"] if offsets else [])]
    kinds = [element_type, element_type, TensorProto.INT32, *([TensorProto.INT32] if offsets else [])]
    ranks = [5, 5, 2, *([5] if offsets else [])]
    inputs = [helper.make_tensor_value_info("read_0", element_type, [None] * 4)]
    inputs += [
        helper.make_tensor_value_info(*spec)
        for spec in zip(names, kinds, ([None] * r for r in ranks), strict=True)
    ]
    nodes = [
        helper.make_node(
            onnx_op.OP_TYPE,
            [f"read_{i}", *names],
            [f"read_{i + 1}"],
            domain=onnx_op.DOMAIN,
            radius=1,
            scale=0.5,
            top_k=top_k,
        )
        for i in range(count)
    ]
    graph = helper.make_graph(
        nodes, "reads", inputs, [helper.make_tensor_value_info(f"read_{count}", element_type, [None] * 4)]
    )
    opsets = [
        helper.make_opsetid("", onnx_function.BODY_OPSET),
        helper.make_opsetid(onnx_op.DOMAIN, onnx_op.OPSET_VERSION),
    ]
    body = onnx_function.function_body(offsets=offsets, top_k=top_k > 0)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body])


def feeds(element_type: int, offsets: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    arrays = {
        "read_0": rng.normal(size=(1, 3, 4, 5)).astype(dtype),
        "keys": rng.normal(size=(1, 2, 3, 4, 5)).astype(dtype),
        "values": rng.random((1, 2, 3, 4, 5)).astype(dtype),
        "dilation": np.ones((1, 2), np.int32),
    }
    if offsets:
        arrays["offsets"] = rng.integers(-2, 3, (1, 2, 2, 4, 5)).astype(np.int32)
    return arrays


@pytest.mark.parametrize(("offsets", "top_k"), list(itertools.product([False, True], [0, 3])))
def test_bodies_pass_the_checker(offsets: bool, top_k: int) -> None:
    onnx.checker.check_model(model_with_reads(1, offsets=offsets, top_k=top_k), full_check=True)


def test_bodies_use_standard_operators_alone() -> None:
    for offsets, top_k in itertools.product([False, True], repeat=2):
        body = onnx_function.function_body(offsets=offsets, top_k=top_k)
        assert {node.domain for node in body.node} == {""}
        assert [(entry.domain, entry.version) for entry in body.opset_import] == [
            ("", onnx_function.BODY_OPSET)
        ]


def test_loops_carry_a_state() -> None:
    """TensorRT's ONNX parser refuses a ``Scan`` without one."""
    for offsets, top_k in itertools.product([False, True], repeat=2):
        body = onnx_function.function_body(offsets=offsets, top_k=top_k)
        (loop,) = (node for node in body.node if node.op_type == "Scan")
        (scanned,) = (a.i for a in loop.attribute if a.name == "num_scan_inputs")
        assert len(loop.input) > scanned


def test_the_schema_names_what_the_body_takes() -> None:
    schema, body = onnx_op.op_schema(), onnx_function.function_body(offsets=True)
    assert [parameter.name for parameter in schema.inputs] == list(body.input)
    assert sorted(schema.attributes) == sorted(body.attribute)


@pytest.mark.parametrize("element_type", [SINGLE, HALF])
@pytest.mark.parametrize("offsets", [False, True])
def test_the_library_computes_what_the_body_computes(element_type: int, offsets: bool) -> None:
    """Two reads in a row: intermediate tensors get the right type, too."""
    model, arrays = model_with_reads(2, element_type, offsets=offsets), feeds(element_type, offsets)
    plain = onnxruntime.InferenceSession(model.SerializeToString()).run(None, arrays)[0]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(onnxruntime_library()))
    fast = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, arrays)[0]
    assert fast.dtype == plain.dtype
    np.testing.assert_allclose(fast, plain, atol=1e-5 if element_type == SINGLE else 2e-3)


@pytest.mark.parametrize("element_type", [SINGLE, HALF])
@pytest.mark.parametrize("top_k", [0, 3])
def test_the_body_without_matrix_products_agrees_with_the_reference(element_type: int, top_k: int) -> None:
    model, arrays = model_with_reads(1, element_type, top_k=top_k), feeds(element_type, False)
    before = model.SerializeToString()
    changed = onnx_function.without_matrix_products(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(changed, full_check=True)
    operators = [operators_of(body) for body in (model.functions[0], changed.functions[0])]
    assert "MatMul" in operators[0] and "MatMul" not in operators[1]
    assert ("TopK" in operators[1]) == (top_k > 0)
    out = onnxruntime.InferenceSession(changed.SerializeToString()).run(None, arrays)[0]
    query, keys, values, dilation = map(torch.from_numpy, arrays.values())
    expected = reference.windowed_affinity(
        query.double(), keys.double(), values.double(), dilation, radius=1, scale=0.5, top_k=top_k
    )
    np.testing.assert_allclose(out, expected, atol=1e-6 if element_type == SINGLE else 1e-3)


def operators_of(body: onnx.FunctionProto) -> set[str]:
    """Operators of a body, those of its loop included."""
    (loop,) = (node for node in body.node if node.op_type == "Scan")
    (inner,) = (a.g for a in loop.attribute if a.name == "body")
    return {node.op_type for node in (*body.node, *inner.node)}


def test_a_read_with_offsets_keeps_its_body() -> None:
    model = model_with_reads(1, offsets=True)
    assert onnx_function.without_matrix_products(model) == model
    with pytest.raises(ValueError, match=r"offsets.*matrix_products"):
        onnx_function.function_body(offsets=True, matrix_products=False)
