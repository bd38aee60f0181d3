"""Work on many items: in this process, in several, or on a Ray cluster. One loop for all three."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import pickle
from collections.abc import Callable, Collection, Generator, Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

from ...common.errors import UserError
from ...common.machine import usable_cores
from ...common.processes import serve_parent
from .progress import Progress, no_progress

Item = TypeVar("Item")
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Item, Progress], Value]
"""What is done with an item. To leave this process it must be picklable, as a dataclass with ``__call__`` is."""


class WorkerLost(UserError):
    """The process that worked on an item ended before it had finished."""


@dataclass(frozen=True)
class Workers:
    """Who works on the items.

    Attributes:
        processes: on this machine. 1 works in this process.
        ray: address of a Ray cluster; ``local`` for one that is started here and ends with the work, None for
            no Ray.
        threads: CPU threads for each item, 0 for the share of a machine that belongs to it.
        gpus: GPUs that each item takes on a Ray cluster.
        version: of maskring; nodes of a cluster must have the same.
    """

    processes: int = 1
    ray: str | None = None
    threads: int = 0
    gpus: float = 0
    version: str = ""

    @property
    def here(self) -> bool:
        """Whether this process does the work itself."""
        return self.ray is None and self.processes == 1

    @property
    def threads_each(self) -> int:
        """CPU threads for an item. On a cluster one: many items with a thread each are fastest."""
        if self.threads or self.here:
            return self.threads
        return 1 if self.ray is not None else max(1, usable_cores() // self.processes)


HERE = Workers()


class Engine(Protocol):
    """Where work is done.

    Attributes:
        slots: items that may be begun and not finished.
    """

    slots: int

    def start(self, item: Any) -> Hashable:
        """Begin to work on an item; returns a handle."""

    def wait(self, handles: Collection[Any]) -> Collection[Any]:
        """Wait until the work behind one of the handles is finished, and return all such handles."""

    def result(self, handle: Any) -> Any:
        """What came of finished work: its value, or the UserError that it raised.

        Raises:
            Exception: any other exception that the work raised, which is a defect.
        """

    def close(self) -> None:
        """Stop all work."""


def run_each(
    items: Iterable[Item], work: Work[Item, Value], workers: Workers, progress: Progress = no_progress
) -> Generator[tuple[Item, Value | UserError], None, None]:
    """Work on all items and yield each with what came of it, in the order in which they are finished.

    Closing the iterator stops all work.

    Args:
        items: picklable, unless the work is done in this process.
        work: what to do with one.
        workers: who does it.
        progress: given to the work, if this process does it.

    Raises:
        UnavailableError: when Ray is wanted and cannot be reached.
    """
    waiting, running = iter(items), dict[Any, Item]()
    with closing(_engine(work, workers, progress)) as engine:
        while True:
            for item in islice(waiting, engine.slots - len(running)):
                running[engine.start(item)] = item
            if not running:
                return
            for handle in engine.wait(running):
                yield running.pop(handle), engine.result(handle)


def _engine(work: Work[Any, Any], workers: Workers, progress: Progress) -> Engine:
    if workers.ray is not None:
        from .ray_cluster import RayCluster

        return RayCluster(work, workers)
    return ThisProcess(work, progress) if workers.here else Processes(work, workers.processes)


def attempt(work: Work[Item, Value], item: Item, progress: Progress = no_progress) -> Value | UserError:
    """The value of the work, or the UserError that it raised."""
    try:
        return work(item, progress)
    except UserError as error:
        return error


class ThisProcess:
    """One item after the other, here."""

    slots = 1

    def __init__(self, work: Work[Any, Any], progress: Progress) -> None:
        self._work, self._progress = work, progress
        self._result: Any = None

    def start(self, item: Any) -> Hashable:
        self._result = attempt(self._work, item, self._progress)
        return 0

    def wait(self, handles: Collection[Any]) -> Collection[Any]:
        return tuple(handles)

    def result(self, handle: Any) -> Any:
        return self._result

    def close(self) -> None:
        pass


class Processes:
    """A new process for each item, so that one that crashes takes no other item with it."""

    def __init__(self, work: Work[Any, Any], count: int) -> None:
        self.slots = count
        self._work = work
        # Not forked: onnxruntime and OpenCV own threads, which a forked process lacks.
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[Any, Any] = {}  # receiving end of a pipe -> process

    def start(self, item: Any) -> Hashable:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sender, self._work, item))
        self._running[receiver] = process
        process.start()
        sender.close()  # so that the receiver sees the end of the process
        return receiver

    def wait(self, handles: Collection[Any]) -> Collection[Any]:
        return multiprocessing.connection.wait(list(handles))

    def result(self, handle: Any) -> Any:
        with handle:
            try:
                result = pickle.loads(handle.recv_bytes())
            except EOFError:
                result = None
        process = self._running.pop(handle)
        process.join()
        if result is not None:
            return result[0]
        if process.exitcode == 1:  # Python's own, after a traceback on stderr
            raise RuntimeError("a process that worked on one item failed; its traceback stands above")
        return WorkerLost(
            f"its process ended with exit code {process.exitcode}",
            "run the command again, with fewer processes if memory was short",
        )

    def close(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.join()


def _answer(sender: Any, work: Work[Any, Any], item: Any) -> None:
    """Of a new process: work on an item and send what came of it."""
    serve_parent()
    sender.send_bytes(pickle.dumps((attempt(work, item),)))
