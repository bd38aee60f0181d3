"""The problems of GPU day, and their tensors."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """A call of the operator; step 0 is an empty slot."""

    steps: tuple[int, ...]
    height: int
    width: int
    radius: int
    labels: int = 3
    channels: int = 64
    dtype: str = "float16"
    offsets: int = 0
    scale: float = 0.125

    def __str__(self) -> str:
        moved = f", offsets up to {self.offsets}" if self.offsets else ""
        steps = " ".join(map(str, self.steps))
        return (
            f"{self.dtype} {self.height}x{self.width}, radius {self.radius}, steps {steps}, "
            f"{self.channels} channels, {self.labels} labels{moved}"
        )

    def useful_pairs(self) -> int:
        """Pairs inside window and frame, without offsets."""
        total = 0
        for step in filter(None, self.steps):

            def along(length: int, step: int = step) -> int:
                places = range(length)
                return sum(
                    1 + min(at // step, self.radius) + min((length - 1 - at) // step, self.radius)
                    for at in places
                )

            total += along(self.height) * along(self.width)
        return total


@dataclass(frozen=True)
class Tensors:
    """The arguments of a call."""

    query: Tensor
    keys: Tensor
    values: Tensor
    dilation: Tensor
    offsets: Tensor | None


def tensors_of(problem: Problem, device: torch.device) -> Tensors:
    """Random arguments, the same for the same problem; slots that are not read hold NaN."""
    generator = torch.Generator().manual_seed(zlib.crc32(str(problem).encode()))
    dtype, slots, frame = getattr(torch, problem.dtype), len(problem.steps), (problem.height, problem.width)
    query = torch.randn(1, problem.channels, *frame, generator=generator)
    keys = torch.randn(1, slots, problem.channels, *frame, generator=generator)
    values = torch.rand(1, slots, problem.labels, *frame, generator=generator) * 2 - 1
    dilation = torch.tensor([problem.steps], dtype=torch.int32)
    for unread in (slot for slot, step in enumerate(problem.steps) if step == 0):
        keys[:, unread] = values[:, unread] = torch.nan
    offsets = None
    if problem.offsets:
        reach = problem.offsets
        offsets = (
            torch.randint(-reach, reach + 1, (1, slots, 2, *frame), generator=generator).int().to(device)
        )
    query, keys, values = (x.to(dtype).to(device) for x in (query, keys, values))
    return Tensors(query, keys, values, dilation.to(device), offsets)


def cases(small: bool = False) -> list[Problem]:
    """What is checked: each row, borders, odd widths, the policy's steps, empty slots, offsets; quick ones first."""
    tiny = [
        Problem((1, 2, 0), 9, 18, 6),
        Problem((1, 0), 9, 7, 3, channels=8, dtype="float32"),
        Problem((1, 3), 9, 7, 2, channels=16, offsets=3),
    ]
    if small:
        return tiny
    whole = [
        Problem(steps, 120, width, radius, labels, dtype=dtype)
        for dtype in ("float16", "float32")
        for radius, steps in ((6, (1, 4, 4, 4, 4)), (12, (1, 3, 3, 3, 3)), (2, (1,)))
        for width in (120, 214, 75)
        for labels in (3, 11, 32)
    ]
    odd = [
        Problem((1, 0, 2, 1, 0, 3, 0, 4), 61, 53, 6, 7),
        Problem((5, 2, 9), 33, 31, 12, 15),
        Problem((2**31 - 1, 1), 12, 35, 6),
        Problem((1, 1), 1, 1, 6),
        Problem((1,) * 16, 24, 40, 6, 2),
        Problem((1, 2), 40, 40, 16, 5, 256),
        Problem((1, 8, 2, 9), 40, 40, 16, 5),
    ]
    moved = [Problem((1, 2, 0), 60, 75, 6, 5, dtype=dtype, offsets=9) for dtype in ("float16", "float32")]
    return [*tiny, *odd, *moved, *whole]
