"""Writing results so that an interrupted run never leaves a half-written file under a final name."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

CACHE_VARIABLE = "MASKRING_CACHE"


def output_error(path: Path, error: OSError) -> OutputError:
    """Translate the operating system's refusal to write ``path`` into one sentence with its remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space is left on the disk that holds {path}", "free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} is not writable", "choose another output path or change its permissions")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(
            f"{path} is in the way of the output", "choose another output path or move it aside"
        )
    return OutputError(f"{path} cannot be written ({error.strerror or error})", "choose another output path")


def require_name(path: Path) -> Path:
    """Make sure that the system could have a file of this name.

    Raises:
        OutputError: when the name holds what no file's name can hold.
    """
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name:
        raise OutputError(f"no file can have the name {path}", "choose another output path")
    return path


def make_directory(path: Path) -> Path:
    """Create ``path`` with its parents and prove that files can be written in it.

    Raises:
        OutputError: when the folder cannot be made or does not accept files.
    """
    require_name(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise output_error(path, error) from error
    return path


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """:func:`make_directory` for a block; what it had to make and the block left empty is removed.

    Raises:
        OutputError: when the folder cannot be made or does not accept files.
    """
    require_name(path)
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        yield make_directory(path)
    finally:
        with contextlib.suppress(OSError):  # of the first that holds something, or was never made
            for folder in missing:
                folder.rmdir()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that takes its place when the block succeeds.

    The temporary name keeps the suffix of ``path``, since encoders and writers choose the format by it.
    When the block fails, the temporary file is removed and whatever stood at ``path`` is untouched. What
    writers left that were killed is removed by the next process that writes into the folder.

    Raises:
        OutputError: when the operating system refuses to write.
    """
    require_name(path)
    remove_abandoned(path.parent)
    partial = path.with_name(f".{path.stem}.{_owner(os.getpid())}-{next(_numbers)}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # of a name too long, which was reported above
            partial.unlink(missing_ok=True)


PARTIAL_NAME = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]+)-([0-9]+)-[0-9]+\.partial(\.[^.]*)?")
"""Temporary names: machine, process, when that was started, a number."""

FORSAKEN = 24 * 3600
"""Seconds without a change after which a temporary file has no writer, wherever that ran."""

PROCESSES = Path("/proc")
"""Where the system shows its processes, on Linux."""

_numbers = itertools.count()


@functools.lru_cache(maxsize=256)
def remove_abandoned(folder: Path) -> None:
    """Remove temporary files of writers that no longer live from ``folder``; done once by a process.

    Of this machine, as long as it runs, processes are known by number and start, for numbers come again.
    Those of others, which may share the folder, of other containers, and of the time before a restart, are
    taken for living until their file has not been touched for a day.
    """
    with contextlib.suppress(OSError):  # whether the folder can be written to is found out by writing
        for path in folder.iterdir():
            named = PARTIAL_NAME.fullmatch(path.name)
            if named is not None and _is_abandoned(path, *named.group(1, 2, 3)):
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path, machine: str, process: str, started: str) -> bool:
    if machine != _machine() or not PROCESSES.is_dir():
        return path.stat().st_mtime < time.time() - FORSAKEN
    return _started(int(process)) != started


@functools.lru_cache(maxsize=1)
def _owner(process: int) -> str:
    return f"{_machine()}-{process}-{_started(process)}"


def _machine() -> str:
    """Eight digits for this machine since it was started, and for this container of it."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # Linux alone tells
        parts.append((PROCESSES / "sys/kernel/random/boot_id").read_text())
        parts.append(str((PROCESSES / "self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(process: int) -> str:
    """When a process was started, in ticks since the machine was; 0 when there is none, or no telling."""
    try:
        stat = (PROCESSES / str(process) / "stat").read_text()
    except OSError:
        return "0"
    return stat.rpartition(")")[2].split()[19]  # the name before it may hold anything


def cache_directory() -> Path:
    """``MASKRING_CACHE``, else ``maskring`` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskring"
