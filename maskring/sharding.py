"""Being one of several processes; ``maskring evaluate`` by one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .plugins.machine import usable_cores
from .runtime.engine_file import sha256
from .runtime.evaluation import Evaluation, SequenceTracker
from .runtime.evaluation import evaluate as evaluate_split
from .runtime.sharding import Shard, evaluate_shard


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


@dataclass
class DatasetRun:
    """A labelled dataset to be tracked.

    Args:
        davis, split, out_dir, json_file, size: see :func:`maskring.runtime.evaluation.evaluate`.
    """

    davis: Path
    split: str
    out_dir: Path
    json_file: Path
    size: int | None
    _shard: Shard | None = field(default=None, init=False)

    def join(self, shard: bool, threads: int) -> int:
        """Be one of several processes if ``shard``; returns the CPU threads to use of ``threads`` asked for.

        Must be called before anything touches a GPU.

        Raises:
            UnavailableError: when the environment does not say which of them this one is.
        """
        self._shard, threads = join(shard, threads)
        return threads

    @property
    def shows_progress(self) -> bool:
        """Whether this process has the terminal to itself."""
        return self._shard is None or self._shard.local_rank == 0

    @property
    def name(self) -> str:
        """Of this process among the others."""
        assert self._shard is not None
        return f"shard {self._shard.rank + 1} of {self._shard.world_size}"

    def evaluate(
        self,
        new_tracker: Callable[[], SequenceTracker],
        files: Sequence[Path | None],
        settings: tuple[object, ...],
        on_frame: Callable[[str, int, int], None],
    ) -> Evaluation | None:
        """Track the dataset, or this process's share of it.

        Args:
            new_tracker, on_frame: see :func:`maskring.runtime.evaluation.evaluate`.
            files: that decide the masks beside the dataset; their content counts, not their place.
            settings: that decide the masks.

        Returns:
            None when other processes have not done their share.

        Raises:
            UserError: see :func:`maskring.runtime.evaluation.evaluate`.
        """
        places = (self.davis, self.split, new_tracker, self.out_dir, self.json_file)
        if self._shard is None:
            return evaluate_split(*places, size=self.size, on_frame=on_frame)
        decided = json.dumps(
            [*(sha256(file) for file in files if file and file.is_file()), *map(repr, settings)]
        )
        return evaluate_shard(*places, shard=self._shard, settings=decided, size=self.size, on_frame=on_frame)
