"""Workers of online refinement: who adapts the U-Net while the stream goes on.

A worker is offered samples and publishes snapshots; neither ever waits for the other. On a CPU it is a
process of the lowest priority, on a GPU a thread with a CUDA stream of its own. :class:`StepsPerFrame` adapts
within the call instead, which delays frames but makes every run the same.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.errors import UserError
from .network.adaptation import Adaptation
from .network.predictor import Predictor
from .samples import Sample, SampleBuffer
from .settings import RefinementSettings

PUBLISH_EVERY = 5
"""Optimiser steps between two snapshots."""

WAITING_SAMPLES = 4
"""Samples that may wait for a busy worker; more are dropped, as the stream does not wait."""

LOWEST_PRIORITY = 19
CLOSING_SECONDS = 10.0
ORPHAN_SECONDS = 5.0
"""After which an idle process looks whether its parent still lives."""

NOT_GUARDED = (
    "error: the process that adapts the U-Net imports this script, which starts another one; "
    'put what the script does under: if __name__ == "__main__":'
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a worker has learned so far.

    Attributes:
        ids: objects of the U-Net's outputs 1, 2, ...
        weights: all of them in one vector, see :meth:`.predictor.Predictor.weights`.
        kept: objects for which the U-Net must not be used now, with the reason.
        iterations: optimiser steps taken.
    """

    ids: tuple[int, ...]
    weights: NDArray[np.float32]
    kept: Mapping[int, str]
    iterations: int


class Worker(Protocol):
    """Adapts a U-Net to the samples it is offered."""

    def offer(self, sample: Sample) -> None:
        """Give a sample; it may be dropped when the worker is behind, but one with a true mask never is."""

    def newest(self) -> Snapshot | None:
        """The newest snapshot that was not taken yet; None when there is none.

        Raises:
            UserError: when the worker has died.
        """

    def close(self) -> None:
        """Stop and release everything. Closing twice does nothing.

        Raises:
            UserError: when the worker has died and :meth:`newest` has not told; everything is released.
        """


class Learner:
    """The part that all workers share: a buffer and the adaptation to it."""

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        self._buffer = SampleBuffer(settings.buffer)
        self._adaptation = Adaptation(settings, predictor)
        self._newest: Sample | None = None

    @property
    def ready(self) -> bool:
        """A true mask and a propagated one are there: the stream's second frame has been predicted."""
        return bool(self._buffer.true and self._buffer.pseudo)

    def take(self, sample: Sample) -> None:
        """Add a sample to the buffer."""
        self._buffer.add(sample)
        self._newest = sample

    def step(self) -> None:
        """One optimiser step."""
        self._adaptation.step(self._buffer, fall=False)

    @property
    def due(self) -> bool:
        """It is time for a snapshot."""
        return self._adaptation.iterations % PUBLISH_EVERY == 0

    def snapshot(self) -> Snapshot:
        """The state of now, with the guard's verdict on it."""
        predictor = self._adaptation.predictor
        assert self._newest is not None
        kept = self._adaptation.unsure(self._newest) | self._adaptation.not_learned(self._buffer)
        return Snapshot(tuple(predictor.ids), predictor.weights(), kept, self._adaptation.iterations)


class StepsPerFrame:
    """Adapts within :meth:`offer`, a fixed number of steps for each frame: every run gives the same masks.

    Args:
        settings: see :class:`RefinementSettings`.
        steps: optimiser steps per frame.
        predictor: one that was adapted before, None to start from scratch.
    """

    def __init__(self, settings: RefinementSettings, steps: int, predictor: Predictor | None = None) -> None:
        self._learner = Learner(settings, predictor)
        self._steps = steps
        self._fresh = False

    def offer(self, sample: Sample) -> None:
        """Take the sample and adapt."""
        self._learner.take(sample)
        if self._learner.ready:
            for _ in range(self._steps):
                self._learner.step()
            self._fresh = self._steps > 0

    def newest(self) -> Snapshot | None:
        """What the last call of :meth:`offer` led to."""
        fresh, self._fresh = self._fresh, False
        return self._learner.snapshot() if fresh else None

    def close(self) -> None:
        """Nothing is held."""


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Processes that are started in the block never hear of Ctrl-C and SIGTERM.

    Terminals and service managers send these to every process of a run; this one has to end in order.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessWorker:
    """Adapts in a process of the lowest priority with one thread, so that it gets what the tracker leaves.

    Args:
        settings: see :class:`RefinementSettings`.
        predictor: one that was adapted before, None to start from scratch.

    Attributes:
        process: the one that adapts.
        arrived: set while a snapshot waits to be taken.

    Raises:
        SystemExit: in a worker that imports the script it was started from, when that starts one in turn.
    """

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(NOT_GUARDED)
        self.arrived = threading.Event()
        context = multiprocessing.get_context("spawn")  # a fork would copy the tracker's threads' locks
        self._samples = context.Queue()
        self._waiting = context.Semaphore(WAITING_SAMPLES)
        receiver, sender = context.Pipe(duplex=False)
        self._received: Snapshot | None = None
        start = None if predictor is None else (tuple(predictor.ids), predictor.weights())
        self.process = context.Process(
            target=_work, args=(settings, start, self._samples, self._waiting, sender), daemon=True
        )
        with _unheard():
            self.process.start()
        sender.close()
        self._listener = threading.Thread(target=self._listen, args=(receiver,), daemon=True)
        self._listener.start()
        self._closed = self._told = False
        atexit.register(self.close)  # before multiprocessing would send SIGTERM, which the process ignores

    def offer(self, sample: Sample) -> None:
        """Hand the sample to the process, if it is not behind; a feeding thread does the copying."""
        free = self._waiting.acquire(block=False)
        if free or sample.true:
            self._samples.put((sample, free))

    def newest(self) -> Snapshot | None:
        """See :class:`Worker`."""
        if not self._closed and not self.process.is_alive():
            self._told = True
            raise self._death()
        self.arrived.clear()
        snapshot, self._received = self._received, None
        return snapshot

    def close(self) -> None:
        """Stop the process, see :class:`Worker`."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._samples.put(None)
        self.process.join(CLOSING_SECONDS)
        died = self.process.exitcode not in (0, None)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self._samples.cancel_join_thread()
        self._samples.close()
        self._listener.join()
        if died and not self._told:
            raise self._death()

    def _death(self) -> UserError:
        return UserError(
            f"the process that adapts the U-Net has died (exit code {self.process.exitcode})",
            "look at its last words above, or run with --refine off",
        )

    def _listen(self, receiver: Connection) -> None:
        """Receive in a thread: a snapshot that arrives slowly must not hold up a frame."""
        with receiver, contextlib.suppress(EOFError, OSError):
            while True:
                self._received = receiver.recv()
                self.arrived.set()


def _work(
    settings: RefinementSettings,
    start: tuple[tuple[int, ...], NDArray[np.float32]] | None,
    samples: Any,
    waiting: Any,
    sender: Connection,
) -> None:
    """The process: its end is a None among the samples, or its parent's."""
    with contextlib.suppress(OSError):
        os.nice(LOWEST_PRIORITY)
    torch.set_num_threads(1)
    predictor = None
    if start is not None:
        predictor = Predictor.untrained(settings.width, settings.seed)
        predictor.adopt(*start)

    def receive(block: bool) -> Sample | None:
        sample, counted = _next_sample(samples, block) or (None, False)
        if counted:
            waiting.release()
        return sample

    with contextlib.suppress(BrokenPipeError, EOFError):
        _learn(Learner(settings, predictor), settings.budget, receive, sender.send)


def _next_sample(samples: Any, block: bool) -> tuple[Sample, bool] | None:
    """The next of the queue; None when the queue says so or its other end was killed."""
    while True:
        try:
            return samples.get(block, ORPHAN_SECONDS)  # type: ignore[no-any-return]
        except queue.Empty:
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                return None
            if not block:
                raise


class ThreadWorker:
    """Adapts in a thread, on a CUDA stream of its own where the U-Net is on a GPU.

    Args:
        settings: see :class:`RefinementSettings`.
        predictor: one that was adapted before, None to start from scratch.

    Attributes:
        thread: the one that adapts.
        arrived: set while a snapshot waits to be taken.
        samples: those that wait.
    """

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        self.arrived = threading.Event()
        self.samples: queue.Queue[Sample | None] = queue.Queue()
        self._received: Snapshot | None = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(settings, predictor), daemon=True)
        self.thread.start()

    def offer(self, sample: Sample) -> None:
        """Queue the sample, if the thread is not behind."""
        if sample.true or self.samples.qsize() < WAITING_SAMPLES:
            self.samples.put(sample)

    def newest(self) -> Snapshot | None:
        """See :class:`Worker`."""
        self._tell()
        self.arrived.clear()
        snapshot, self._received = self._received, None
        return snapshot

    def close(self) -> None:
        """Stop the thread, see :class:`Worker`."""
        self.samples.put(None)
        self.thread.join()
        self._tell()

    def _tell(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise UserError(f"the adaptation of the U-Net failed: {error}", "run with --refine off")

    def _run(self, settings: RefinementSettings, predictor: Predictor | None) -> None:
        try:
            stream = torch.cuda.Stream() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                _learn(Learner(settings, predictor), settings.budget, self.samples.get, self._publish)
        except Exception as error:  # reported by newest(), in the thread that can tell the user
            self._error = error

    def _publish(self, snapshot: Snapshot) -> None:
        self._received = snapshot
        self.arrived.set()


def new_worker(settings: RefinementSettings, predictor: Predictor | None = None) -> Worker:
    """The worker for this machine: a thread where there is a GPU, a process elsewhere."""
    if torch.cuda.is_available():
        return ThreadWorker(settings, predictor)
    return ProcessWorker(settings, predictor)


def _learn(
    learner: Learner,
    budget: float,
    receive: Callable[[bool], Sample | None],
    publish: Callable[[Snapshot], None],
) -> None:
    """Adapt until ``receive`` gives None; it raises queue.Empty when it is not to block and has nothing."""
    while True:
        try:
            sample = receive(not learner.ready)
            if sample is None:
                return
            learner.take(sample)
            continue  # take all that wait before the next step
        except queue.Empty:
            pass
        started = time.perf_counter()
        learner.step()
        if learner.due:
            publish(learner.snapshot())
        spent = time.perf_counter() - started
        time.sleep(spent * (1 - budget) / budget)
