"""Work on the nodes of a Ray cluster, one task an item."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Hashable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import metadata
from typing import Any

from ...common.errors import UnavailableError
from ...common.interrupts import STOP_SIGNALS
from ...common.machine import usable_cores
from .jobs import Work, WorkerLost, Workers, attempt

LOCAL = "local"
"""Address of a cluster that is started on this machine and ends with the work."""

RETRIES = 5
"""How often Ray begins an item anew whose process or node died."""

ANSWER_S = 10
"""Seconds that a cluster has to accept a connection."""

IN_FLIGHT = 1000
"""Tasks that Ray knows at once: enough to keep a cluster busy and to show an autoscaler what is needed."""


class RayCluster:
    """A cluster that exists, or one on this machine.

    A task holds the item alone. What all tasks share is stored in the cluster once.

    Raises:
        ModuleNotFoundError: when Ray is not installed.
        UnavailableError: when the cluster does not answer, or a local one lacks what an item takes.
    """

    slots = IN_FLIGHT

    def __init__(self, work: Work[Any, Any], workers: Workers) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its vendor
        ray: Any = importlib.import_module("ray")
        self._ray = ray
        assert workers.ray is not None
        self._closing = ExitStack()
        # Ray prints what happens to nodes; stdout is for the result.
        self._closing.enter_context(redirect_stdout(sys.stderr))
        try:
            _connect(ray, workers.ray)
            self._closing.callback(ray.shutdown)
            if workers.ray == LOCAL:
                _check_local(ray.cluster_resources(), workers)
            needs = {"num_cpus": workers.threads_each, "num_gpus": workers.gpus}
            self._task = ray.remote(max_retries=RETRIES, **needs)(_task)
            self._shared = ray.put((work, workers.version))
        except BaseException:
            self._closing.close()
            raise

    def start(self, item: Any) -> Hashable:
        handle: Hashable = self._task.remote(self._shared, item)
        return handle

    def wait(self, handles: Collection[Any]) -> Collection[Any]:
        finished: Collection[Any] = self._ray.wait(list(handles))[0]
        return finished

    def result(self, handle: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            if isinstance(error.cause, ModuleNotFoundError):
                raise _other_install(f"lacks {error.cause.name}") from error
            raise
        except errors.RayError as error:
            words = str(error).strip().partition("\n")[0]
            return WorkerLost(
                f"Ray began it {RETRIES + 1} times without success ({type(error).__name__}: {words})",
                "run the command again, with more memory for a task if that was short",
            )

    def close(self) -> None:
        self._closing.close()


def _connect(ray: Any, address: str) -> None:
    try:
        _knock(address)
        _initialize(ray, address)
    except Exception as error:  # Ray raises nothing more special
        words = str(error).strip().partition("\n")[0]
        if address == LOCAL:
            raise UnavailableError(
                f"Ray did not start on this machine ({words})",
                "run the command again while the machine does less (Ray waits 30 seconds for its own processes), "
                "or use --processes N instead of --ray local",
            ) from error
        raise UnavailableError(
            f"no Ray cluster answers at {address} ({words})",
            "start one with ray start --head, give its address HOST:PORT, or use --ray local",
        ) from error


def _knock(address: str) -> None:
    """Where nobody listens, Ray itself would try again for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()


def _initialize(ray: Any, address: str) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        settings |= {"num_cpus": usable_cores(), "include_dashboard": False}
    with _own_signal_handlers():
        ray.init(address, **settings)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers of signals, which ``ray.init`` replaces."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_local(resources: dict[str, float], workers: Workers) -> None:
    """A task that nothing can run would wait for ever. A larger cluster may grow; this machine does not."""
    for name, wanted in (("CPU", workers.threads_each), ("GPU", workers.gpus)):
        if resources.get(name, 0) < wanted:
            raise UnavailableError(
                f"a video takes {wanted:g} {name} and this machine has {resources.get(name, 0):g}",
                "use fewer --threads"
                if name == "CPU"
                else "use --device cpu and an .onnx, or another cluster",
            )


def _other_install(difference: str) -> UnavailableError:
    return UnavailableError(
        f"a node of the Ray cluster {difference}", "install the same version of maskring on every node"
    )


def _task(shared: tuple[Work[Any, Any], str], item: Any) -> Any:
    """On a node: work on an item."""
    work, version = shared
    if (installed := metadata.version("maskring")) != version:
        return _other_install(f"({socket.gethostname()}) has maskring {installed}, not {version}")
    return attempt(work, item)
