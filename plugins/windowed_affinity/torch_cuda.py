"""The operator's forward pass on CUDA tensors by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .cuda_op import ALIGNMENT, ELEMENT_TYPES, CudaKernels, Problem, installed_kernels

_TYPES = {torch.float32: ELEMENT_TYPES["float32"], torch.float16: ELEMENT_TYPES["float16"]}


def forward(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    radius: int,
    scale: float,
) -> Tensor | None:
    """The result, started on the current stream of the query's GPU; None if no compiled kernel can.

    Arguments are those of :func:`.torch_op.windowed_affinity`, without ``top_k``.
    """
    tensors = [x for x in (query, keys, values, dilation, offsets) if x is not None]
    if query.device.type != "cuda" or any(x.device != query.device for x in tensors):
        return None
    kernels = installed_kernels()
    if kernels is None:
        return None
    major, minor = torch.cuda.get_device_capability(query.device)
    with torch.cuda.device(query.device):
        stream = torch.cuda.current_stream().cuda_stream
        settings = (radius, scale, 10 * major + minor, stream)
        return compute(kernels, query, keys, values, dilation, offsets, *settings)


def compute(
    kernels: CudaKernels,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    dilation: Tensor,
    offsets: Tensor | None,
    radius: int,
    scale: float,
    sm: int,
    stream: int,
) -> Tensor | None:
    """Launch the row that the dispatch table chooses for compute capability ``sm``; None if there is none."""
    if query.dtype not in _TYPES or not query.dtype == keys.dtype == values.dtype:
        return None
    batch, channels, height, width = query.shape
    out = values.new_empty(batch, values.shape[2], height, width)
    given = {
        "query": query,
        "keys": keys,
        "values": values,
        "dilation": dilation,
        "offsets": offsets,
    }
    dense = {name: _dense(tensor) for name, tensor in given.items() if tensor is not None}
    problem = Problem(
        type=_TYPES[query.dtype],
        batch=batch,
        slots=keys.shape[1],
        channels=channels,
        labels=values.shape[2],
        height=height,
        width=width,
        radius=radius,
        scale=scale,
        out=out.data_ptr(),
        **{name: tensor.data_ptr() for name, tensor in dense.items()},
    )
    row = kernels.choose(problem, sm)
    if row is None:
        return None
    # Memory of torch is reused in the order of its stream, so the workspace may go once the kernels are queued.
    workspace = out.new_empty(kernels.workspace_bytes(row, problem), dtype=torch.uint8)
    problem.workspace = workspace.data_ptr()
    kernels.launch(row, problem, stream)
    return out


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that begins where the kernels can read it."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
