"""Which share of the work is this process's, when several share it on one machine or many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...common.errors import UnavailableError
from ...common.machine import usable_cores

Item = TypeVar("Item")

START = (
    "start it with torchrun (torchrun --nproc-per-node 4 -m maskring ... --shard), or set RANK and WORLD_SIZE"
)

GPUS = Path("/proc/driver/nvidia/gpus")
"""NVIDIA's driver has a folder here for each GPU."""


@dataclass(frozen=True)
class Shard:
    """Which of several processes this one is.

    Attributes:
        rank: 0 to ``world_size - 1``.
        world_size: number of processes on all machines.
        local_rank, local_world_size: the same among the processes of this machine.
    """

    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Shard:
        """Read the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE.

        Raises:
            UnavailableError: when one of the first two is missing, or the values contradict each other.
        """
        texts = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE")}
        if None in texts.values():
            raise UnavailableError("--shard finds no RANK and WORLD_SIZE in its environment", START)
        texts["LOCAL_RANK"] = environment.get("LOCAL_RANK", "0")
        texts["LOCAL_WORLD_SIZE"] = environment.get("LOCAL_WORLD_SIZE", "1")
        numbers = [
            int(text) if text and text.isdecimal() and len(text) < 10 else -1 for text in texts.values()
        ]
        rank, world_size, local_rank, local_world_size = numbers
        if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
            values = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise UnavailableError(f"the environment of --shard contradicts itself ({values})", START)
        return cls(rank, world_size, local_rank, local_world_size)

    def deal(self, items: list[Item], weight: Callable[[Item], tuple[int, str]]) -> list[Item]:
        """This process's share of the items. All shares weigh about the same.

        Args:
            items: the same in all processes.
            weight: returns an item's weight, and a name that decides between equals.
        """

        def heaviest_first(item: Item) -> tuple[int, str]:
            heavy, name = weight(item)
            return -heavy, name

        return sorted(items, key=heaviest_first)[self.rank :: self.world_size]

    def threads(self, cores: int) -> int:
        """CPU threads for this process: its share of its machine's ``cores``."""
        return max(1, cores // self.local_world_size)

    def gpu(self, visible: str | None, gpus: Path = GPUS) -> str | None:
        """The value of CUDA_VISIBLE_DEVICES that spreads a machine's processes over its GPUs.

        Args:
            visible: its present value, None when it is not set.
            gpus: a folder with an entry per GPU.
        """
        names = [name.strip() for name in (visible or "").split(",") if name.strip()]
        if visible is None and gpus.is_dir():
            names = [str(index) for index, _ in enumerate(gpus.iterdir())]
        return names[self.local_rank % len(names)] if names else visible


def join(shard: bool, threads: int) -> tuple[Shard | None, int]:
    """Become one of several processes: choose a GPU and a number of CPU threads.

    Call this before anything touches a GPU.

    Args:
        shard: whether this process is one of several.
        threads: CPU threads that the user chose, 0 for this process's share of the cores.

    Returns:
        Which process this is, None if not ``shard``, and the CPU threads to use.

    Raises:
        UnavailableError: when the environment does not say which process this is.
    """
    if not shard:
        return None, threads
    process = Shard.of_environment(os.environ)
    gpu = process.gpu(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return process, threads or process.threads(usable_cores())
