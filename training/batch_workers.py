"""Processes that prepare batches. A batch depends on seed, step and files alone, so any process may make it."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import cv2
import torch

from ..common.processes import serve_parent
from .batches import Batch, TrainingData, passes_of
from .distributed import DistributedContext
from .recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """What a worker made: the passes of a step, and what its clips and stills were skipped for so far."""

    passes: list[Batch]
    clips: dict[Path, str]
    stills: dict[Path, str]


class BatchWorkers:
    """A pool of processes; each has its own decoded frames in memory, and all share those on disk.

    A thread receives what they made and, for a CUDA GPU, pins its memory, while the network computes.

    Args:
        workers: number of processes.
        recipe, data, world: as for :func:`.batches.passes_of`. Clips that workers skip are added to ``data``.
    """

    def __init__(self, workers: int, recipe: Recipe, data: TrainingData, world: DistributedContext) -> None:
        self._data, self._device = data, world.device
        # Not forked: the parent has threads of torch and OpenCV, and perhaps a GPU.
        self._pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(recipe, data, world.rank, world.size),
        )
        self._receiver = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> BatchWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._receiver.shutdown(cancel_futures=True)

    def submit(self, step: int) -> Future[Prepared]:
        """Begin to prepare the passes of a step."""
        return self._receiver.submit(self._receive, self._pool.submit(_make, step))

    def _receive(self, made: Future[bytes]) -> Prepared:
        prepared: Prepared = pickle.loads(made.result())
        return replace(prepared, passes=[batch.ready_for(self._device) for batch in prepared.passes])

    def result(self, future: Future[Prepared]) -> list[Batch]:
        """Wait for the passes of a step.

        Raises:
            UserError: what preparing them raised.
        """
        prepared = future.result()
        for clip, reason in prepared.clips.items():
            self._data.clips.skipped.setdefault(clip, reason)
        if self._data.stills is not None:
            for still, reason in prepared.stills.items():
                self._data.stills.skipped.setdefault(still, reason)
        return prepared.passes


_of_this_worker: tuple[Recipe, TrainingData, DistributedContext]


def _start(recipe: Recipe, data: TrainingData, rank: int, size: int) -> None:
    global _of_this_worker  # a pool has no other way to give its processes a state
    _of_this_worker = recipe, data, DistributedContext(rank, size, torch.device("cpu"))
    serve_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _make(step: int) -> bytes:
    """The passes of a step and what was skipped, as bytes: tensors themselves would travel in shared memory.

    Containers give little of that (64 MB in Docker).
    """
    recipe, data, world = _of_this_worker
    stills = {} if data.stills is None else data.stills.skipped
    return pickle.dumps(Prepared(passes_of(recipe, data, step, world), data.clips.skipped, stills))
