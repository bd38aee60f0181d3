"""The torch operator: gradients, memory, and how torch's own machinery sees it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from affinity_cases import Case, inputs_of, random_case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskring.plugins.windowed_affinity import cpu_op, reference, torch_blocks, torch_op

OPERATOR = torch.ops.maskring.windowed_affinity.default

GRADIENT_CASES = [
    Case("one slot", dilation=((1,),)),
    Case("mixed dilations, one slot empty", dilation=((1, 2, 0, 2), (0, 0, 0, 1)), height=11),
    Case("frame smaller than the window", height=3, width=2, radius=4),
    Case("several blocks", height=41, width=38, radius=3, dilation=((1, 1, 1),)),
    Case("offsets that leave the frame", offsets=9, dilation=((1, 2), (3, 0))),
    Case("top k", top_k=5, features="integers"),
    Case("top k of mixed dilations", top_k=7, features="integers", dilation=((1, 2, 3),)),
    Case("top k with offsets", top_k=5, features="integers", offsets=3),
    Case("large logits of mixed dilations", features="large", dilation=((1, 2),)),
    Case("all slots empty", dilation=((0, 0),)),
    *map(random_case, range(20)),
]


def arguments(case: Case, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor | None, dict[str, Any]]:
    """(query, keys, values) that require gradients, dilation, offsets, and the settings."""
    data = inputs_of(case)
    inputs = [torch.from_numpy(x).to(dtype).requires_grad_() for x in (data.query, data.keys, data.values)]
    offsets = None if data.offsets is None else torch.from_numpy(data.offsets)
    settings = {"radius": data.radius, "scale": data.scale, "top_k": data.top_k}
    return inputs, torch.from_numpy(data.dilation), offsets, settings


def gradients(function: Any, case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    inputs, dilation, offsets, settings = arguments(case, dtype)
    out = function(*inputs, dilation, offsets, **settings)
    toward = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return torch.autograd.grad(out, inputs, toward)


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradients_are_those_of_the_reference(case: Case) -> None:
    expected = gradients(reference.windowed_affinity, case, torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        for found, expected_gradient in zip(
            gradients(torch_op.windowed_affinity, case, dtype), expected, strict=True
        ):
            assert found.dtype == dtype
            assert (found - expected_gradient).abs().max() <= tolerance * max(
                1, expected_gradient.abs().max()
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_come_back_as_they_went_in(dtype: torch.dtype) -> None:
    case = Case("half", channels=16)
    steps = torch.finfo(dtype).eps
    expected = gradients(reference.windowed_affinity, case, dtype)
    for found, expected_gradient in zip(
        gradients(torch_op.windowed_affinity, case, dtype), expected, strict=True
    ):
        assert found.dtype == dtype
        assert (found - expected_gradient).abs().max() <= 2 * steps * expected_gradient.abs().max()


class FloatTypes(TorchDispatchMode):
    """Collects the floating-point types of the tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.seen.add(tensor.dtype)
        return result


@pytest.mark.parametrize("offsets", [None, 2])
@pytest.mark.parametrize(
    ("dtype", "computed_in"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_double_precision_is_computed_in_double(
    dtype: torch.dtype, computed_in: torch.dtype, offsets: int | None
) -> None:
    """Twice the precision would be twice the memory and time; half of it would lose small sums."""
    (query, keys, values), dilation, moved, settings = arguments(Case("types", offsets=offsets), dtype)
    inputs = [x.detach() for x in (query, keys, values)]
    with FloatTypes() as types:
        out = torch_blocks.forward(*inputs, dilation, moved, **settings)
        torch_blocks.backward(out, out, *inputs, dilation, moved, **settings, needs=[True] * 3)
    assert types.seen == {dtype, computed_in}


@pytest.mark.parametrize(
    "case",
    [
        Case("centred", 5, 4, 1, ((1, 2),), labels=2, channels=2),
        Case("offsets", 5, 4, 1, ((1, 2),), labels=2, channels=2, offsets=3),
        Case("top k", 5, 4, 1, ((1, 2),), labels=2, channels=2, top_k=4),
    ],
    ids=str,
)
def test_gradcheck(case: Case) -> None:
    inputs, dilation, offsets, settings = arguments(case, torch.float64)

    def function(*inputs: Tensor) -> Tensor:
        return torch_op.windowed_affinity(*inputs, dilation, offsets, **settings)

    assert torch.autograd.gradcheck(function, inputs)


def test_keys_of_a_momentum_encoder_cost_no_gradient() -> None:
    (query, keys, values), dilation, _, settings = arguments(Case("momentum"), torch.float64)
    expected = gradients(reference.windowed_affinity, Case("momentum"), torch.float64)[0]
    out = torch_op.windowed_affinity(query, keys.detach(), values.detach(), dilation, **settings)
    toward = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    out.backward(toward)
    assert query.grad is not None
    assert torch.allclose(query.grad, expected)
    assert keys.grad is None
    assert values.grad is None


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() > 0:
                stored = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, stored)
        return result


@pytest.mark.parametrize("offsets", [None, 4])
def test_the_weights_of_a_frame_never_exist_at_once(offsets: int | None) -> None:
    case = Case("lean", 96, 96, 6, ((1, 1, 1, 1, 1),), channels=8, offsets=offsets)
    inputs, dilation, moved, settings = arguments(case, torch.float32)
    detached = [x.detach() for x in inputs]
    weights = 96 * 96 * 5 * 13**2
    with LargestTensor() as largest:
        out = torch_blocks.forward(*detached, dilation, moved, **settings)
        torch_blocks.backward(out, out, *detached, dilation, moved, **settings, needs=[True] * 3)
    assert 0 < largest.elements < weights / 2


def test_only_arguments_and_result_are_saved() -> None:
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    (query, keys, values), dilation, _, settings = arguments(Case("saved"), torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = torch_op.windowed_affinity(query, keys, values, dilation, **settings)
    assert {x.data_ptr() for x in saved} <= {x.data_ptr() for x in (query, keys, values, dilation, out)}


@pytest.mark.parametrize("offsets", [None, 3])
@pytest.mark.parametrize("top_k", [0, 4])
def test_opcheck(offsets: int | None, top_k: int) -> None:
    case = Case("opcheck", dilation=((1, 2),), offsets=offsets, top_k=top_k)
    inputs, dilation, moved, settings = arguments(case, torch.float32)
    torch.library.opcheck(OPERATOR, (*inputs, dilation, moved), settings)


def test_opcheck_of_the_backward_pass() -> None:
    inputs, dilation, _, settings = arguments(Case("opcheck"), torch.float16)
    detached = [x.detach() for x in inputs]
    out = torch_op.windowed_affinity(*detached, dilation, **settings)
    torch.library.opcheck(
        torch.ops.maskring.windowed_affinity_backward.default,
        (out, out, *detached, dilation, None),
        {**settings, "needs": [True, False, True]},
        test_utils=("test_schema", "test_faketensor"),
    )


class Read(torch.nn.Module):
    """The operator as part of a graph."""

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, dilation: Tensor) -> Tensor:
        return torch_op.windowed_affinity(query * 2, keys, values, dilation, radius=2, scale=0.5) + 1


def test_export_keeps_one_node_of_any_size() -> None:
    example = Case("export", dilation=((1, 1), (2, 1)))
    (query, keys, values), dilation, _, _ = arguments(example, torch.float32)
    b, n, o, h, w = (torch.export.Dim(name) for name in "bnohw")
    memory = {0: b, 1: n, 3: h, 4: w}
    exported = torch.export.export(
        Read(),
        (query, keys, values, dilation),
        dynamic_shapes=({0: b, 2: h, 3: w}, memory, {**memory, 2: o}, {0: b, 1: n}),
    ).run_decompositions()
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    assert [node.target for node in nodes if "maskring" in str(node.target)] == [OPERATOR]
    other = Case("other sizes", 12, 5, dilation=((1, 0, 2),), labels=5)
    (query, keys, values), dilation, _, _ = arguments(other, torch.float32)
    found = exported.module()(query, keys, values, dilation)
    assert torch.equal(found, Read()(query, keys, values, dilation))


def test_compiled_training_keeps_one_node() -> None:
    (query, keys, values), dilation, _, _ = arguments(Case("compiled"), torch.float32)
    compiled = torch.compile(Read(), fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(query, keys, values, dilation).square().sum(), (query, keys, values))
    expected = torch.autograd.grad(
        Read()(query, keys, values, dilation).square().sum(), (query, keys, values)
    )
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("query", torch.zeros(1, 8, 9, 7, dtype=torch.int32)),
        ("keys", torch.zeros(1, 2, 8, 9, 6)),
        ("values", torch.zeros(1, 3, 3, 9, 7)),
        ("values", torch.zeros(1, 3, 9, 7)),
        ("dilation", torch.zeros(2, dtype=torch.int32)),
        ("dilation", torch.zeros(1, 2)),
        ("offsets", torch.zeros(1, 2, 9, 7, dtype=torch.int32)),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_arguments_that_do_not_fit_are_named(name: str, wrong: Tensor, device: str) -> None:
    (query, keys, values), dilation, _, settings = arguments(Case("errors"), torch.float32)
    given = {"query": query, "keys": keys, "values": values, "dilation": dilation, "offsets": None}
    given[name] = wrong
    moved = {key: None if tensor is None else tensor.to(device) for key, tensor in given.items()}
    # A wrong type is reported for the query; everything else for the argument that differs from it.
    with pytest.raises(ValueError, match=name):
        torch_op.windowed_affinity(**moved, **settings)


@pytest.mark.parametrize("setting", ["radius", "top_k"])
def test_negative_settings_are_refused(setting: str) -> None:
    inputs, dilation, _, settings = arguments(Case("errors"), torch.float32)
    with pytest.raises(ValueError, match=setting):
        torch_op.windowed_affinity(*inputs, dilation, **{**settings, setting: -1})


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [(torch.float32, True), (torch.float16, True), (torch.float64, False), (torch.bfloat16, False)],
)
def test_the_native_kernel_takes_what_it_knows(dtype: torch.dtype, taken: bool) -> None:
    inputs, dilation, offsets, settings = arguments(Case("dispatch"), dtype)
    with mock.patch.object(cpu_op, "windowed_affinity", wraps=cpu_op.windowed_affinity) as kernel:
        torch_op.windowed_affinity(*inputs, dilation, offsets, **settings)
    assert kernel.called == taken


def test_arguments_need_not_be_contiguous() -> None:
    (query, keys, values), dilation, _, settings = arguments(Case("strides"), torch.float32)
    expected = torch_op.windowed_affinity(query, keys, values, dilation, **settings)
    scattered = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (query, keys, values)]
    assert torch.equal(torch_op.windowed_affinity(*scattered, dilation, **settings), expected)


def test_a_negative_scale_prefers_the_least_similar() -> None:
    (query, keys, values), dilation, _, _ = arguments(Case("negative"), torch.float32)
    found = torch_op.windowed_affinity(query, keys, values, dilation, radius=2, scale=-0.5)
    mirrored = torch_op.windowed_affinity(-query, keys, values, dilation, radius=2, scale=0.5)
    assert torch.allclose(found, mirrored, atol=1e-5)


def test_a_gpu_does_not_round_features_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    seen = []
    for name in ("forward", "backward"):
        run = getattr(torch_blocks, name)

        def noting(*given: Any, run: Any = run, **named: Any) -> Any:
            seen.append((products.fp32_precision, torch.backends.cudnn.conv.fp32_precision))
            return run(*given, **named)

        monkeypatch.setattr(torch_blocks, name, noting)
    (query, keys, values), dilation, _, settings = arguments(Case("precision"), torch.float64)
    try:
        products.fp32_precision = "tf32"
        torch_op.windowed_affinity(query, keys, values, dilation, **settings).sum().backward()
        assert products.fp32_precision == "tf32", "the caller's setting is back"
    finally:
        products.fp32_precision = before
    assert seen == [("ieee", "ieee")] * 2
