"""The torch operator ``maskring::windowed_affinity``. Importing this module registers it.

The (H * W) x (N * P^2) weights are never stored. Only inputs and result are saved for the backward pass,
which computes the weights again, block by block (:mod:`.torch_blocks`). On a CPU, the forward pass uses the
native kernel if :func:`native_can_run`; on a GPU, the compiled kernels that support the problem
(:mod:`.torch_cuda`), or else, as the backward pass does, Triton's if :func:`.torch_triton.can_run`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from . import torch_blocks, torch_cuda, torch_triton
from .torch_float32 import exact_float32

NAME = "maskring::windowed_affinity"

torch.library.define(
    NAME,
    "(Tensor query, Tensor keys, Tensor values, Tensor dilation, Tensor? offsets=None, *,"
    " int radius, float scale, int top_k=0) -> Tensor",
)
torch.library.define(
    f"{NAME}_backward",
    "(Tensor grad, Tensor out, Tensor query, Tensor keys, Tensor values, Tensor dilation, Tensor? offsets, *,"
    " int radius, float scale, int top_k, bool[3] needs) -> (Tensor, Tensor, Tensor)",
)


def windowed_affinity(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None = None,
    *,
    radius: int,
    scale: float,
    top_k: int = 0,
) -> Tensor:
    """Copy labels from memory frames by feature similarity inside a window; differentiable.

    Arguments, result and meaning are those of :func:`.reference.windowed_affinity`. Gradients reach
    ``query``, ``keys`` and ``values``. Half types are accumulated in float32. The blocks wait for a GPU in each
    call, because the values of ``dilation`` decide how the frame is tiled; the kernels do not.

    Raises:
        ValueError: if shapes or types of the arguments do not match.
    """
    result: Tensor = torch.ops.maskring.windowed_affinity(
        query, keys, values, dilation, offsets, radius=radius, scale=scale, top_k=top_k
    )
    return result


def _check(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    radius: int,
    top_k: int,
) -> None:
    """Check shapes and types only, so that this works during tracing as well."""
    for name, tensor, rank in (("query", query, 4), ("keys", keys, 5), ("values", values, 5)):
        if tensor.dim() != rank or not tensor.is_floating_point():
            raise ValueError(f"{name} must have {rank} dimensions and a float type, not {_described(tensor)}")
    batch, channels, height, width = query.shape
    slots = keys.shape[1]
    expected: list[tuple[str, Tensor, tuple[int, ...]]] = [
        ("keys", keys, (batch, slots, channels, height, width)),
        ("values", values, (batch, slots, values.shape[2], height, width)),
        ("dilation", dilation, (batch, slots)),
    ]
    if offsets is not None:
        expected.append(("offsets", offsets, (batch, slots, 2, height, width)))
    for name, tensor, shape in expected:
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {list(shape)} to fit query, not {_described(tensor)}")
    for name, indices in (("dilation", dilation), ("offsets", offsets)):
        if indices is not None and indices.dtype != torch.int32:
            raise ValueError(f"{name} must be int32, not {_described(indices)}")
    if radius < 0 or top_k < 0:
        raise ValueError(f"radius and top_k must not be negative, not {radius} and {top_k}")


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def native_can_run(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> bool:
    """Whether the native CPU kernel supports these arguments; plain torch supports all."""
    one_type = query.dtype == keys.dtype == values.dtype
    on_cpu = query.device.type == keys.device.type == values.device.type == "cpu"
    supported = query.dtype in (torch.float32, torch.float16) and 0 <= scale < math.inf
    return one_type and on_cpu and supported and 0 not in query.shape[1:]


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()


@torch.library.impl(NAME, "CompositeExplicitAutograd")
def _forward(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None = None,
    *,
    radius: int,
    scale: float,
    top_k: int = 0,
) -> Tensor:
    _check(query, keys, values, dilation, offsets, radius, top_k)
    if native_can_run(query, keys, values, scale):
        from . import cpu_op  # only here: CUDA tensors need no CPU module

        out = cpu_op.windowed_affinity(
            _array(query),
            _array(keys),
            _array(values),
            _array(dilation),
            None if offsets is None else _array(offsets),
            radius=radius,
            scale=scale,
            top_k=top_k,
            threads=torch.get_num_threads(),
        )
        return torch.from_numpy(out)
    if top_k == 0:
        computed = torch_cuda.forward(query, keys, values, dilation, offsets, radius, scale)
        if computed is not None:
            return computed
    if torch_triton.can_run(query, keys, values, dilation, offsets, top_k):
        return torch_triton.forward(torch_triton.Problem(query, keys, values, dilation, radius, scale))
    with exact_float32():
        return torch_blocks.forward(query, keys, values, dilation, offsets, radius, scale, top_k)


@torch.library.register_fake(NAME)  # type: ignore[untyped-decorator]
def _forward_fake(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None = None,
    *,
    radius: int,
    scale: float,
    top_k: int = 0,
) -> Tensor:
    _check(query, keys, values, dilation, offsets, radius, top_k)
    batch, _, height, width = query.shape
    return values.new_empty(batch, values.shape[2], height, width)


@torch.library.impl(f"{NAME}_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    out: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    *,
    radius: int,
    scale: float,
    top_k: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    if torch_triton.can_run(query, keys, values, dilation, offsets, top_k):
        problem = torch_triton.Problem(query, keys, values, dilation, radius, scale)
        gradients = torch_triton.backward(grad, out, problem, needs)
    else:
        with exact_float32():
            gradients = torch_blocks.backward(
                grad, out, query, keys, values, dilation, offsets, radius, scale, top_k, needs
            )

    def returned(gradient: Tensor | None, like: Tensor) -> Tensor:
        return like.new_empty(0) if gradient is None else gradient.to(like.dtype)

    return (
        returned(gradients.query, query),
        returned(gradients.keys, keys),
        returned(gradients.values, values),
    )


@torch.library.register_fake(f"{NAME}_backward")  # type: ignore[untyped-decorator]
def _backward_fake(
    grad: Tensor,
    out: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    *,
    radius: int,
    scale: float,
    top_k: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    def returned(need: bool, like: Tensor) -> Tensor:
        return like.new_empty(like.shape if need else 0)

    return returned(needs[0], query), returned(needs[1], keys), returned(needs[2], values)


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor
) -> None:
    query, keys, values, dilation, offsets = inputs
    ctx.save_for_backward(output, query, keys, values, dilation, offsets)
    ctx.settings = keyword_only_inputs


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = [bool(need) for need in ctx.needs_input_grad[:3]]
    gradients = torch.ops.maskring.windowed_affinity_backward(
        grad, *ctx.saved_tensors, **ctx.settings, needs=needs
    )
    needed = [gradient if need else None for gradient, need in zip(gradients, needs, strict=True)]
    return *needed, None, None


torch.library.register_autograd(NAME, _autograd, setup_context=_setup_context)
