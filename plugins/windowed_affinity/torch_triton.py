"""Forward and backward pass by the Triton kernels, on CUDA tensors without offsets and top-k.

Results are the same bits in every run. Nothing waits for the GPU. Like the blocks, the backward pass computes the
weights again; a pass over the logits alone gives what normalises them.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .torch_blocks import Gradients

SWITCH = "MASKRING_TRITON"
"""Environment variable: 0 leaves everything to the blocks."""

SIDE = 8
"""Of a tile. A larger one reads keys less often and computes more logits outside the windows."""

MIN_CAPABILITY = (8, 0)
"""The first with TF32 and asynchronous copies."""

MAX_CHANNELS = 128
MAX_LABELS = 32
"""Wider tiles would not fit into the shared memory of all GPUs."""

MIN_DOT = 16
"""The shortest side of a Triton product."""

HALF = (torch.float16, torch.bfloat16)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One read: arguments of :func:`.torch_op.windowed_affinity` that the kernels support."""

    query: Tensor
    keys: Tensor
    values: Tensor
    dilation: Tensor
    radius: int
    scale: float


def can_run(
    query: Tensor, keys: Tensor, values: Tensor, dilation: Tensor, offsets: Tensor | None, top_k: int
) -> bool:
    """Whether the kernels compute this, here."""
    if offsets is not None or top_k > 0 or not on_one_gpu(query, keys, values, dilation):
        return False
    modern = torch.cuda.get_device_capability(query.device) >= MIN_CAPABILITY
    return modern and supports(query, keys, values) and available()


def on_one_gpu(*tensors: Tensor) -> bool:
    return all(x.device.type == "cuda" and x.device == tensors[0].device for x in tensors)


def supports(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether the kernels are made for these shapes and types."""
    types = all(x.dtype in (torch.float32, *HALF) for x in (query, keys, values))
    _, channels, height, width = query.shape
    depth = max(channels, values.shape[2])
    modest = 0 < channels <= MAX_CHANNELS and 0 < values.shape[2] <= MAX_LABELS
    # Within a frame, and for programs, indices have 32 bits.
    programs = math.ceil(height / SIDE) * math.ceil(width / SIDE) * keys.shape[0] * max(1, keys.shape[1])
    return types and modest and depth * height * width < 1 << 31 and 0 < programs < 1 << 31


@functools.cache
def available() -> bool:
    """Whether Triton is installed, wanted, and able to compile for this machine's GPU; warns where it is not able."""
    if os.environ.get(SWITCH) == "0" or importlib.util.find_spec("triton") is None:
        return False
    ones = torch.ones(1, 1, 1, 1, 1, device="cuda")
    steps = torch.ones(1, 1, dtype=torch.int32, device="cuda")
    try:
        forward(Problem(ones[0], ones, ones, steps, radius=0, scale=1.0))
    except (
        Exception
    ) as error:  # no C compiler, no Python headers, a driver that is too old: each has its own type
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning(
            "Triton cannot compile here (%s), so the affinity is computed in plain torch, which is slower; install "
            "a C compiler and Python's headers, or set %s=0",
            reason,
            SWITCH,
        )
        return False
    return True


def forward(problem: Problem) -> Tensor:
    """The operator's result, [B, O, H, W] in the type of the values."""
    with torch.cuda.device_of(problem.query):  # type: ignore[no-untyped-call]
        _, total, weighted = _Launch(problem).read(with_values=True)
    # Where all slots are empty, both are 0.
    return weighted.div_(total.clamp_(min=torch.finfo(total.dtype).tiny).unsqueeze(1)).to(
        problem.values.dtype
    )


def backward(grad: Tensor, out: Tensor, problem: Problem, needs: list[bool]) -> Gradients:
    """Gradients of the inputs, in their types, from the result and its gradient [B, O, H, W].

    Args:
        needs: whether query, keys and values need one.
    """
    with torch.cuda.device_of(problem.query):  # type: ignore[no-untyped-call]
        launch = _Launch(problem)
        maximum, total, _ = launch.read(with_values=False)
        # The weight of the largest logit. A single log-sum-exp would be too coarse where logits are large.
        factor = total.reciprocal_().nan_to_num_(posinf=0.0)
        grad = grad.contiguous()
        given = (maximum, factor, grad, (grad.float() * out.float()).sum(1))
        into_query = launch.query_gradient(*given) if needs[0] else None
        into_keys, into_values = launch.memory_gradients(*given, needs[1], needs[2])
    return Gradients(into_query, into_keys, into_values)


class _Launch:
    """Prepares tensors for the kernels and launches them."""

    def __init__(self, problem: Problem) -> None:
        from . import torch_triton_kernels  # only here: Triton is not installed everywhere

        self.kernels: Any = torch_triton_kernels
        self.problem = problem
        self.query = problem.query.detach().movedim(1, -1).contiguous()  # [B, H, W, C]
        self.keys = problem.keys.detach().movedim(2, -1).contiguous()  # [B, N, H, W, C]
        self.values = problem.values.detach().contiguous()
        self.steps = problem.dilation.contiguous()
        batch, self.slots, labels, height, width = self.values.shape
        channels = self.query.shape[-1]
        self.frame = (batch, height, width)
        self.programs = math.ceil(height / SIDE) * math.ceil(width / SIDE)
        self.geometry = (self.slots, height, width, min(problem.radius, max(height, width)))
        self.base_two_scale = problem.scale * math.log2(math.e)
        self.options: dict[str, Any] = {
            "CHANNELS": channels,
            "CHANNEL_WIDTH": _width(channels),
            "LABELS": labels,
            "LABEL_WIDTH": _width(labels),
            "SIDE": SIDE,
            **precisions(problem.query.dtype, problem.keys.dtype),
            **shape_of_work(is_hopper(self.query.device)),
        }

    def read(self, with_values: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Per query, for logits in powers of two: the largest, the sum of 2 ** (logit - largest), and labels alike."""
        maximum = self.query.new_full(self.frame, torch.finfo(torch.float32).min, dtype=torch.float32)
        total = torch.zeros_like(maximum)
        shape = (self.frame[0], self.values.shape[2], *self.frame[1:])
        weighted = maximum.new_zeros(shape if with_values else 0)
        tensors = (self.query, self.keys, self.values, self.steps, maximum, total, weighted)
        for slot in range(self.slots):
            self.kernels.read[(self.frame[0] * self.programs,)](
                *tensors,
                slot,
                *self.geometry,
                self.base_two_scale,
                self.programs,
                WITH_VALUES=with_values,
                **self.options,
            )
        return maximum, total, weighted

    def query_gradient(self, maximum: Tensor, factor: Tensor, grad: Tensor, row_sums: Tensor) -> Tensor:
        into = torch.zeros_like(
            self.problem.query, dtype=torch.float32, memory_format=torch.contiguous_format
        )
        tensors = (self.query, self.keys, self.values, self.steps, maximum, factor, grad, row_sums, into)
        for slot in range(self.slots):
            self.kernels.query_gradient[(self.frame[0] * self.programs,)](
                *tensors, slot, *self.geometry, self.base_two_scale, self.programs, **self.options
            )
        return into.mul_(self.problem.scale).to(self.problem.query.dtype)

    def memory_gradients(
        self,
        maximum: Tensor,
        factor: Tensor,
        grad: Tensor,
        row_sums: Tensor,
        for_keys: bool,
        for_values: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        keys, values = self.problem.keys, self.problem.values
        into_keys = keys.new_empty(keys.shape) if for_keys else None
        into_values = values.new_empty(values.shape) if for_values else None
        if self.slots and (for_keys or for_values):
            tensors = (self.query, self.keys, self.values, self.steps, maximum, factor, grad, row_sums)
            unused = maximum  # in place of what is not written
            self.kernels.memory_gradients[(self.frame[0] * self.slots * self.programs,)](
                *tensors,
                unused if into_keys is None else into_keys,
                unused if into_values is None else into_values,
                *self.geometry,
                self.base_two_scale,
                self.problem.scale,
                self.programs,
                FOR_KEYS=for_keys,
                FOR_VALUES=for_values,
                **self.options,
            )
        return into_keys, into_values


def _width(depth: int) -> int:
    """Triton's arrays have sides that are powers of two."""
    return max(MIN_DOT, 1 << (depth - 1).bit_length())


def precisions(query: torch.dtype, keys: torch.dtype) -> dict[str, str]:
    """How products are computed on tensor cores with float32's precision.

    TF32 holds half types exactly. Three of its products make one of float32.
    """
    halves = query in HALF and keys in HALF
    return {"LOGIT_PRECISION": "tf32" if halves else "tf32x3", "PRECISION": "tf32x3"}


def is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def shape_of_work(hopper: bool) -> dict[str, int]:
    """Keys (or queries) that a tile is multiplied with at once, warps, and stages of the pipeline.

    These fill the registers without spilling. Hopper multiplies in groups of four warps, from shared memory.
    """
    return {"BLOCK": 32 if hopper else 16, "num_warps": 4 if hopper else 8, "num_stages": 2}
