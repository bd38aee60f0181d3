"""How the command line speaks: progress, results, and errors as one sentence."""

from __future__ import annotations

import errno
import functools
import math
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..common.errors import UserError
from ..common.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from ..training.trainer import StepReport

EXIT_USER_ERROR = 2

OF_THE_TRAIN_EXTRA = ("torch", "onnxscript", "safetensors", "tomli")
"""Modules that an installation without ``[train]`` does not have."""

RATE_STEPS = 20  # over which a training run's speed is measured

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ERROR_STYLE: dict[str, Any] = {"style": "red", "markup": False, "soft_wrap": True}

P = ParamSpec("P")
T = TypeVar("T")


LOSSES_SHOWN = 5
"""Objects that are named; of more, which may be hundreds in many videos, only their number is told."""


def tell_losses(losses: Sequence[str]) -> None:
    """Say which objects were lost, a line each."""
    for line in losses[:LOSSES_SHOWN]:
        out.print(line, markup=False, soft_wrap=True)
    if len(losses) > LOSSES_SHOWN:
        out.print(f"and {len(losses) - LOSSES_SHOWN} more")


def report_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turn what a user can mend into one sentence on stderr and exit code 2; Ctrl-C into 130."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err.print(f"error: {error}", **ERROR_STYLE)
            raise typer.Exit(EXIT_USER_ERROR) from error
        except ModuleNotFoundError as error:
            if error.name not in OF_THE_TRAIN_EXTRA:
                raise
            lacking = f"{error.name} is not installed, which this command needs"
            err.print(f"error: {lacking}; run pip install 'maskring[train]'.", **ERROR_STYLE)
            raise typer.Exit(EXIT_USER_ERROR) from error
        except OSError as error:  # names too long, disks that fail: what rooms do not foresee of the system
            named = f"{str(error.filename)[:200]}: " if error.filename else ""
            reason = f"{named}{error.strerror or error}"
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = f"free some space, in {tempfile.gettempdir()} too" if full else "check the paths"
            err.print(f"error: the system refuses {reason}; {remedy}.", **ERROR_STYLE)
            raise typer.Exit(EXIT_USER_ERROR) from error
        except MemoryError as error:
            err.print("error: there is not enough memory; use smaller frames or settings.", **ERROR_STYLE)
            raise typer.Exit(EXIT_USER_ERROR) from error
        except KeyboardInterrupt as error:
            err.print("interrupted: what was written so far is complete and valid.", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from error

    return guarded


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Say what is being done while it lasts, where there are no steps to count.

    Nothing is shown when stderr is no terminal.
    """
    with err.status(doing) if err.is_terminal else nullcontext():
        yield


@contextmanager
def build_callback() -> Iterator[Callable[[str, int, int], None]]:
    """A callback for the phases of an engine's build; each has a progress bar while it lasts.

    Nothing is shown when stderr is no terminal.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def advance(phase: str, done: int, steps: int) -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=steps)
            progress.update(bars[phase], completed=done, total=steps)
            if done >= steps:
                progress.remove_task(bars.pop(phase))

        yield advance


@contextmanager
def frame_callback(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A callback to call once per frame; it moves a progress bar with frames per second and time left.

    Nothing is shown when stderr is no terminal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f} frames"),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=total, fps="")

        def advance(*_: Any) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, fps=f"{speed:.1f} fps" if speed else "")

        yield advance


@contextmanager
def adaptation_callback() -> Iterator[Callable[[int, int, float], None]]:
    """A callback for the steps of refinement's adaptation; it moves a progress bar with loss and time left.

    Nothing is shown when stderr is no terminal.
    """
    columns = (
        TextColumn("adapting"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} iterations, loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("adapting", total=None, loss="")

        def advance(done: int, planned: int, loss: float) -> None:
            progress.update(task, completed=done, total=planned, loss=f"{loss:.3f}")

        yield advance


@contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """A question to ask where work may stop: whether Ctrl-C or SIGTERM has asked for it.

    The second Ctrl-C does not wait for the answer.
    """
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        err.print("stopping after this step; Ctrl-C again stops at once.", soft_wrap=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def step_callback(steps: int, minutes: float | None) -> Iterator[Callable[[StepReport], None]]:
    """A callback to call after each training step; it moves a progress bar with rate, loss and time left.

    Nothing is shown when stderr is no terminal.

    Args:
        steps: of the whole run.
        minutes: after which this part of the run stops, None for no limit.
    """
    columns = (
        TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
    )
    meter = StepMeter(steps, minutes)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=steps, state="")
        yield lambda report: progress.update(task, completed=report.step, state=meter.text(report))


class StepMeter:
    """What a training run says of itself in one line.

    Args:
        steps, minutes: as for :func:`step_callback`.
    """

    def __init__(self, steps: int, minutes: float | None) -> None:
        self._steps, self._seconds = steps, math.inf if minutes is None else 60 * minutes
        self._recent: deque[StepReport] = deque(maxlen=RATE_STEPS)
        self._score: float | None = None

    def text(self, report: StepReport) -> str:
        """Rate over the latest steps, mean loss over them, latest score, clips skipped, time left."""
        self._recent.append(report)
        self._score = self._score if report.score is None else report.score
        loss = sum(recent.loss for recent in self._recent) / len(self._recent)
        parts = [f"loss {loss:.4f}"]
        taken = report.seconds - self._recent[0].seconds
        if taken > 0:
            frames = sum(recent.frames for recent in self._recent) - self._recent[0].frames
            needed = (self._steps - report.step) * taken / (len(self._recent) - 1)
            left = timedelta(seconds=round(max(0, min(needed, self._seconds - report.seconds))))
            parts = [f"{frames / taken:.1f} frames/s", *parts, f"{left} left"]
        if self._score is not None:
            parts.append(f"score {self._score:.1f}")
        if report.skipped:
            parts.append(f"{report.skipped} clips skipped")
        return ", ".join(parts)


@contextmanager
def split_callback(shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (sequence, frames done, frames in all) that moves a progress bar with time left.

    Nothing is shown when stderr is no terminal, or ``shown`` is false.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("frame {task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not (shown and err.is_terminal)) as progress:
        task = progress.add_task("", total=None)
        yield lambda name, done, total: progress.update(task, description=name, completed=done, total=total)
