"""Output of all commands: results on stdout, notes and errors on stderr."""

from __future__ import annotations

import errno
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from ..common.errors import OutputError, UserError
from ..common.interrupts import EXIT_INTERRUPTED
from ..common.libraries import import_failure

EXIT_USER_ERROR = 2

EXTRAS = {
    **dict.fromkeys(("torch", "onnxscript", "tomli"), "train"),
    **dict.fromkeys(("anyio", "starlette", "uvicorn", "websockets"), "studio"),
    **dict.fromkeys(("fsspec", "ray"), "ray"),
}
"""Modules that the base install lacks -> the extra that brings them."""

MAX_LOST_SHOWN = 5
"""Lost objects that are printed by name; of the others only the number is."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")
T = TypeVar("T")


def say(text: str) -> None:
    """Print a line of the result."""
    out.print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a line on stderr that is no error."""
    err.print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print an error in red on stderr."""
    err.print(text, style="red", markup=False, soft_wrap=True)


def say_lost(lost: Sequence[str]) -> None:
    """Print the lost objects, a line each."""
    for line in lost[:MAX_LOST_SHOWN]:
        say(line)
    if len(lost) > MAX_LOST_SHOWN:
        say(f"and {len(lost) - MAX_LOST_SHOWN} more")


def size_mb(path: Path) -> str:
    """The size of a file, for people."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def require_suffix(out_file: Path, suffix: str) -> None:
    """Refuse an output whose name the other commands would not recognise as a model.

    Raises:
        OutputError: when the name ends in something else.
    """
    if out_file.suffix != suffix:
        raise OutputError(f"{out_file} does not end in {suffix}", f"rename it to end in {suffix}")


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Show ``doing`` with a spinner while the block runs; nothing where stderr is no terminal."""
    with err.status(doing) if err.is_terminal else nullcontext():
        yield


def report_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turn errors that a user can mend into one sentence and exit code 2, and Ctrl-C into exit code 130."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            note("interrupted: what was written so far is complete and valid.")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except (UserError, ImportError, OSError, MemoryError) as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            complain(f"error: {sentence}")
            raise typer.Exit(EXIT_USER_ERROR) from error

    return guarded


def _sentence(error: Exception) -> str | None:
    """The error in one sentence with its remedy; None when it is a defect of maskring."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            return None
        return f"{module} is not installed; run pip install 'maskring[{EXTRAS[module]}]'."
    if isinstance(error, (ImportError, OSError)) and (failure := import_failure(error)):
        return str(failure)
    if isinstance(error, ImportError):
        return None
    if isinstance(error, OSError):
        return _system_error(error)
    return "not enough memory; use smaller frames or settings."


def _system_error(error: OSError) -> str:
    """Errors of the system that nothing below foresees, such as names that are too long."""
    name = f"{str(error.filename)[:200]}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = f"free some space, in {tempfile.gettempdir()} too" if full else "check the paths"
    return f"the operating system reports {name}{error.strerror or error}; {remedy}."
