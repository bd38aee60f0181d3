"""How the command line speaks: progress, results, and errors as one sentence."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .plugins.errors import UserError

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


def frame_progress() -> Progress:
    """A progress bar for frames: done, total, frames per second, time left. Silent when not on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.completed:.0f} frames"),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
