"""Progress bars on stderr. Where that is no terminal nothing is shown, or a few lines for a log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich import progress as bars

from ..runtime.pipeline.progress import Progress
from .console import err, note

if TYPE_CHECKING:
    from ..training.trainer import StepReport

MAX_LINES = 20
"""Lines that a run writes to its log as progress."""

RATE_STEPS = 20
"""Training steps over which the speed is measured."""


class _Speed(bars.ProgressColumn):
    def render(self, task: bars.Task) -> str:
        return f"{task.speed:.1f}/s" if task.speed else ""


@contextmanager
def show_progress(*, nested: bool = False, speed: bool = True, lines: bool = False) -> Iterator[Progress]:
    """A :class:`Progress` that moves a bar.

    Args:
        nested: a bar of its own for each task, until that is done, instead of one for the latest task.
        speed: show steps per second and the time left.
        lines: where stderr is no terminal, as in the log of a cluster's job, write lines.
    """
    if lines and not err.is_terminal:
        yield _Lines()
        return
    columns = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[detail]}"),
        *([_Speed(), bars.TimeRemainingColumn()] if speed else []),
    ]
    with bars.Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        ids: dict[str, bars.TaskID] = {}

        def progress(task: str, done: int, total: int | None, detail: str = "", /) -> None:
            key = task if nested else ""
            if key not in ids:
                ids[key] = bar.add_task(task, total=total, detail=detail)
            if done < bar.tasks[bar.task_ids.index(ids[key])].completed:
                bar.reset(ids[key])  # the next task: its speed is measured anew
            bar.update(ids[key], description=task, completed=done, total=total, detail=detail)
            if nested and total is not None and done >= total:
                bar.remove_task(ids.pop(key))

        yield progress


class _Lines:
    """A :class:`Progress` that writes at most :data:`MAX_LINES` lines, with the time left."""

    def __init__(self) -> None:
        self._started, self._written = time.monotonic(), 0

    def __call__(self, task: str, done: int, total: int | None, detail: str = "", /) -> None:
        if not done or not total or done * MAX_LINES // total <= self._written:
            return
        self._written = done * MAX_LINES // total
        left = timedelta(seconds=round((time.monotonic() - self._started) / done * (total - done)))
        note(", ".join(part for part in (f"{task}: {done} of {total}", detail, f"{left} left") if part))


class StepMeter:
    """Describes a training run in one line.

    Args:
        steps: of the whole run.
        minutes: after which this part of the run stops, None for no limit.
    """

    def __init__(self, steps: int, minutes: float | None) -> None:
        self._steps, self._seconds = steps, math.inf if minutes is None else 60 * minutes
        self._recent: deque[StepReport] = deque(maxlen=RATE_STEPS)
        self._score: float | None = None

    def text(self, report: StepReport) -> str:
        """Speed and mean loss over the latest steps, time left, latest score, clips skipped."""
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
