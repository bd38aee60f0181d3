"""Workers of online refinement: they adapt the U-Net while the stream runs.

A worker takes samples and publishes snapshots; tracker and worker never wait for each other. On a CPU it is a
process of the lowest priority, on a GPU a thread with its own CUDA stream. :class:`StepsPerFrame` adapts inside
the call instead: frames are delayed, and every run gives the same masks.
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

from ...common.errors import UnavailableError, UserError
from ...common.forks import tell_of_forks
from ...common.interrupts import STOP_SIGNALS
from .network.adaptation import Adaptation
from .network.predictor import Predictor
from .samples import Sample, SampleBuffer
from .settings import RefinementSettings

PUBLISH_EVERY = 5
"""Optimiser steps between two snapshots."""

WAITING_SAMPLES = 4
"""Most samples that wait for a busy worker; the stream does not wait, so further ones are dropped."""

LOWEST_PRIORITY = 19
CLOSING_SECONDS = 10.0
ORPHAN_SECONDS = 5.0
"""Seconds after which an idle process checks whether its parent is alive."""

NOT_GUARDED = (
    "error: the process that adapts the U-Net imports this script, which starts another one; "
    'put what the script does under: if __name__ == "__main__":'
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The newest weights of a worker.

    Attributes:
        ids: objects of the U-Net's outputs 1, 2, ...
        weights: all of them in one vector, see :meth:`.predictor.Predictor.weights`.
        fallback_reasons: objects that must keep their propagated mask for now -> why.
        iterations: optimiser steps taken.
    """

    ids: tuple[int, ...]
    weights: NDArray[np.float32]
    fallback_reasons: Mapping[int, str]
    iterations: int


class Worker(Protocol):
    """Adapts a U-Net to the samples it is offered."""

    def offer(self, sample: Sample) -> None:
        """Give a sample. A worker that is behind may drop it, unless its mask is true."""

    def newest(self) -> Snapshot | None:
        """The newest snapshot, None when it was returned before.

        Raises:
            UserError: when the worker has died.
        """

    def close(self) -> None:
        """Stop and release everything. Closing twice does nothing.

        Raises:
            UserError: when the worker has died and :meth:`newest` has not raised that yet. Everything is
                released all the same.
        """


class Learner:
    """A buffer of samples and the adaptation to it, which all workers share."""

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        self._buffer = SampleBuffer(settings.buffer)
        self._adaptation = Adaptation(settings, predictor)
        self._newest: Sample | None = None

    @property
    def ready(self) -> bool:
        """Whether a true mask and a propagated one are there, which is so from the second frame on."""
        return bool(self._buffer.true and self._buffer.pseudo)

    def take(self, sample: Sample) -> None:
        """Add a sample to the buffer."""
        self._buffer.add(sample)
        self._newest = sample

    def step(self) -> None:
        """One optimiser step."""
        self._adaptation.step(self._buffer, anneal=False)

    @property
    def due(self) -> bool:
        """Whether a snapshot is due."""
        return self._adaptation.iterations % PUBLISH_EVERY == 0

    def snapshot(self) -> Snapshot:
        """The present weights, with the guard's verdict on them."""
        predictor = self._adaptation.predictor
        assert self._newest is not None
        reasons = self._adaptation.unsure(self._newest) | self._adaptation.not_learned(self._buffer)
        return Snapshot(tuple(predictor.ids), predictor.weights(), reasons, self._adaptation.iterations)


class StepsPerFrame:
    """Adapts inside :meth:`offer` for a fixed number of steps, so every run gives the same masks.

    Args:
        settings: see :class:`RefinementSettings`.
        steps: optimiser steps per frame.
        predictor: adapted before; None to start from random weights.
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
        """The snapshot after the last call of :meth:`offer`."""
        fresh, self._fresh = self._fresh, False
        return self._learner.snapshot() if fresh else None

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


@contextlib.contextmanager
def _block_signals() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C, SIGTERM and SIGHUP.

    Terminals and service managers send these to every process of a run; this one must end in order.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessWorker:
    """Adapts in a process of the lowest priority with one thread, on the time that the tracker leaves.

    Args:
        settings: see :class:`RefinementSettings`.
        predictor: adapted before; None to start from random weights.

    Attributes:
        process: adapts.
        arrived: set while a snapshot waits for :meth:`newest`.

    Raises:
        SystemExit: in a worker whose script starts a worker while it is imported.
        UnavailableError: where there is no /dev/shm that can be written to.
    """

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(NOT_GUARDED)
        self.arrived = threading.Event()
        context = multiprocessing.get_context("spawn")  # a fork would copy the tracker's threads' locks
        try:
            self._samples = context.Queue()
            self._waiting = context.Semaphore(WAITING_SAMPLES)
        except OSError as error:  # semaphores are files there
            raise UnavailableError(
                f"/dev/shm cannot be used ({error.strerror}), and adapting in a process of its own needs it",
                "mount it (mount -t tmpfs tmpfs /dev/shm), or run with --refine offline",
            ) from error
        receiver, sender = context.Pipe(duplex=False)
        self._received: Snapshot | None = None
        start = None if predictor is None else (tuple(predictor.ids), predictor.weights())
        self.process = context.Process(
            target=_work, args=(settings, start, self._samples, self._waiting, sender), daemon=True
        )
        with _block_signals():
            self.process.start()
        sender.close()
        self._listener = threading.Thread(target=self._listen, args=(receiver,), daemon=True)
        self._listener.start()
        self._closed = self._death_reported = False
        atexit.register(self.close)  # before multiprocessing would send SIGTERM, which the process ignores
        tell_of_forks(self)

    def offer(self, sample: Sample) -> None:
        """Queue the sample, unless the process is behind; a feeder thread does the copying."""
        free = self._waiting.acquire(block=False)
        if free or sample.true:
            self._samples.put((sample, free))

    def newest(self) -> Snapshot | None:
        """See :class:`Worker`."""
        if not self._closed and not self.process.is_alive():
            self._death_reported = True
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
        if died and not self._death_reported:
            raise self._death()

    def after_fork(self) -> None:
        """See :class:`maskring.common.forks.Forkable`."""
        self._closed = True
        atexit.unregister(self.close)

    def _death(self) -> UserError:
        return UserError(
            f"the process that adapts the U-Net has died (exit code {self.process.exitcode})",
            "read its error above, or run with --refine off",
        )

    def _listen(self, receiver: Connection) -> None:
        """Receive in a thread, so that a slow snapshot holds up no frame."""
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
    """The main function of the process. It ends at a None among the samples, or when its parent dies."""
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
    """The next entry of the queue; None at the end, or when the parent was killed."""
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
    """Adapts in a thread, with its own CUDA stream where there is a GPU.

    Args:
        settings: see :class:`RefinementSettings`.
        predictor: adapted before; None to start from random weights.

    Attributes:
        thread: adapts.
        arrived: set while a snapshot waits for :meth:`newest`.
        samples: samples that wait.
    """

    def __init__(self, settings: RefinementSettings, predictor: Predictor | None = None) -> None:
        self.arrived = threading.Event()
        self.samples: queue.Queue[Sample | None] = queue.Queue()
        self._received: Snapshot | None = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(settings, predictor), daemon=True)
        self.thread.start()

    def offer(self, sample: Sample) -> None:
        """Queue the sample, unless the thread is behind."""
        if sample.true or self.samples.qsize() < WAITING_SAMPLES:
            self.samples.put(sample)

    def newest(self) -> Snapshot | None:
        """See :class:`Worker`."""
        self._raise_error()
        self.arrived.clear()
        snapshot, self._received = self._received, None
        return snapshot

    def close(self) -> None:
        """Stop the thread, see :class:`Worker`."""
        self.samples.put(None)
        self.thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise UserError(f"the adaptation of the U-Net failed: {error}", "run with --refine off")

    def _run(self, settings: RefinementSettings, predictor: Predictor | None) -> None:
        try:
            stream = torch.cuda.Stream() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                _learn(Learner(settings, predictor), settings.budget, self.samples.get, self._publish)
        except Exception as error:  # raised again by newest(), in the thread of the tracker
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
    """Adapt until ``receive`` returns None. It raises queue.Empty when it may not block and has no sample."""
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
