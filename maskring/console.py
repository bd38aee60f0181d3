"""How the command line speaks: progress, results, and errors as one sentence."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .plugins.errors import UserError

if TYPE_CHECKING:
    from .training.trainer import StepReport

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells expect

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")
T = TypeVar("T")


def one_sentence(command: Callable[P, T]) -> Callable[P, T]:
    """Turn what a user can mend into one sentence on stderr and exit code 2; Ctrl-C into 130."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        signal.signal(signal.SIGTERM, _interrupt)  # a service manager's stop closes outputs like Ctrl-C
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_USER_ERROR) from error
        except KeyboardInterrupt as error:
            err.print("interrupted: what was written so far is complete and valid.", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from error

    return guarded


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


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
def step_callback(description: str, total: int) -> Iterator[Callable[[StepReport], None]]:
    """A callback to call after each training step; it moves a progress bar with loss and time left.

    Nothing is shown when stderr is no terminal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=total, loss="")
        yield lambda report: progress.update(task, completed=report.step, loss=f"loss {report.loss:.4f}")


@contextmanager
def split_callback() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (sequence, frames done, frames in all) that moves a progress bar with time left.

    Nothing is shown when stderr is no terminal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("frame {task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda name, done, total: progress.update(task, description=name, completed=done, total=total)
