"""Processes that prepare batches. A batch is a pure function of seed, step and files, so who makes it is no matter."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType

import cv2
import torch

from .batches import Batch, TrainingData, passes_of
from .distributed import DistributedContext
from .recipe import Recipe


class BatchWorkers:
    """A pool of processes; each has its own decoded frames in memory, and all share those on disk.

    Args:
        workers: number of processes.
        recipe, data, world: as for :func:`.batches.passes_of`. Clips that workers skip are added to ``data``.
    """

    def __init__(self, workers: int, recipe: Recipe, data: TrainingData, world: DistributedContext) -> None:
        self._data = data
        # Not forked: the parent has threads of torch and OpenCV, and perhaps a GPU.
        self._pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(recipe, data, world.rank, world.size),
        )

    def __enter__(self) -> BatchWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, step: int) -> Future[bytes]:
        """Begin to prepare the passes of a step."""
        return self._pool.submit(_make, step)

    def result(self, future: Future[bytes]) -> list[Batch]:
        """Wait for the passes of a step.

        Raises:
            UserError: what preparing them raised.
        """
        passes, clips, stills = pickle.loads(future.result())
        for clip, reason in clips.items():
            self._data.clips.skipped.setdefault(clip, reason)
        if self._data.stills is not None:
            for still, reason in stills.items():
                self._data.stills.skipped.setdefault(still, reason)
        made: list[Batch] = passes
        return made


_of_this_worker: tuple[Recipe, TrainingData, DistributedContext]


def _start(recipe: Recipe, data: TrainingData, rank: int, size: int) -> None:
    global _of_this_worker  # a pool has no other way to give its processes a state
    _of_this_worker = recipe, data, DistributedContext(rank, size, torch.device("cpu"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(step: int) -> bytes:
    """The passes of a step and what was skipped, as bytes: tensors themselves would travel in shared memory.

    Containers give little of that (64 MB in Docker).
    """
    recipe, data, world = _of_this_worker
    stills = {} if data.stills is None else data.stills.skipped
    return pickle.dumps((passes_of(recipe, data, step, world), data.clips.skipped, stills))
