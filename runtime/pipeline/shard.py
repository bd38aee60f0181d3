"""Videos shared out over several processes, on one machine or many; a labelled dataset tracked by them.

No process talks to another. Each takes its share of the sequences and leaves its results in a file beside the
measures; whichever finds that no share is missing writes the measures of all.
"""

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
"""Where NVIDIA's driver lists them, a folder each."""


@dataclass(frozen=True)
class Shard:
    """Which of several processes this one is.

    Attributes:
        rank: 0 to ``world_size - 1``.
        world_size: processes on all machines.
        local_rank, local_world_size: the same, of those on this machine.
    """

    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Shard:
        """From the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE.

        Raises:
            UnavailableError: when the first two are missing, or some do not fit together.
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
            found = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise UnavailableError(f"the environment of --shard makes no sense ({found})", START)
        return cls(rank, world_size, local_rank, local_world_size)

    def deal(self, items: list[Item], weight: Callable[[Item], tuple[int, str]]) -> list[Item]:
        """The items of this process; shares weigh about the same, and a name decides between equals."""

        def heaviest_first(item: Item) -> tuple[int, str]:
            heavy, name = weight(item)
            return -heavy, name

        return sorted(items, key=heaviest_first)[self.rank :: self.world_size]

    def threads(self, cores: int) -> int:
        """CPU threads for this process where its machine's ``cores`` are to serve all of them."""
        return max(1, cores // self.local_world_size)

    def gpu(self, visible: str | None, gpus: Path = GPUS) -> str | None:
        """What CUDA_VISIBLE_DEVICES has to be, so that the processes of a machine are spread over its GPUs.

        Args:
            visible: what it is now, None when it is not set.
            gpus: a folder with an entry per GPU.
        """
        known = [name.strip() for name in (visible or "").split(",") if name.strip()]
        if visible is None and gpus.is_dir():
            known = [str(index) for index, _ in enumerate(gpus.iterdir())]
        return known[self.local_rank % len(known)] if known else visible


def join(shard: bool, threads: int) -> tuple[Shard | None, int]:
    """Which of several processes this is, None if not ``shard``; and how many CPU threads it is to use.

    Must be called before anything touches a GPU: of several, one is chosen.

    Raises:
        UnavailableError: when the environment does not say which of them this one is.
    """
    if not shard:
        return None, threads
    this = Shard.of_environment(os.environ)
    gpu = this.gpu(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return this, threads or this.threads(usable_cores())
