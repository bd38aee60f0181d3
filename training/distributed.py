"""Training by several processes that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main_process(self) -> bool:
        """Whether this process (rank 0) writes files and reports to the user."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over all processes; nan if any value is nan."""
        if self.size == 1:
            return value.detach()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in at least one process."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)).item() > 0)


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """Join the processes of ``torchrun``, by gloo on CPUs and NCCL on GPUs; without it, this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if size == 1:
        yield DistributedContext(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield DistributedContext(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
