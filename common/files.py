"""Writing files so that an interrupted run never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError, UserError

CACHE_VARIABLE = "MASKRING_CACHE"


def output_error(path: Path, error: OSError) -> OutputError:
    """The operating system's refusal to write ``path``, as one sentence with its remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space is left on the disk that holds {path}", "free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} is not writable", "choose another output path or change its permissions")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(
            f"{path} is in the way: a file where a folder is needed, or the reverse",
            "move it or choose another output path",
        )
    return OutputError(f"{path} cannot be written ({error.strerror or error})", "choose another output path")


def check_utf8(path: Path, kind: type[UserError], library: str) -> None:
    """Make sure that a library that takes UTF-8 only can open this file.

    Raises:
        UserError: of the class ``kind``, when the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise kind(f"{library} cannot open {path}: the name is not UTF-8", "rename it") from None


def require_name(path: Path) -> Path:
    """Make sure that a file can have this name.

    Raises:
        OutputError: when the name holds a character that the file system cannot store.
    """
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name:
        raise OutputError(f"{path} is not a valid file name", "choose another output path")
    return path


def make_directory(path: Path) -> Path:
    """Create ``path`` and its parents, and check that files can be written there.

    Raises:
        OutputError: when the folder cannot be created or written to.
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
    """:func:`make_directory` for a block; folders that it created and that stay empty are removed.

    Raises:
        OutputError: when the folder cannot be created or written to.
    """
    require_name(path)
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    creator = os.getpid()
    try:
        yield make_directory(path)
    finally:
        if os.getpid() == creator:  # a forked process leaves them to its parent
            with contextlib.suppress(OSError):  # the first one that is not empty, or was never created
                for folder in missing:
                    folder.rmdir()


@contextlib.contextmanager
def atomic_path(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that replaces it when the block succeeds.

    When the block fails, the temporary file is removed and ``path`` stays as it was. The temporary name keeps
    the suffix of ``path``, because encoders choose the format by it.

    Other processes see the old file or the new one, never a part. After a power failure the new one may still
    be empty, unless it is flushed.

    Args:
        path: the file to write.
        flush: wait until the disk holds the data (fsync), for what cannot be computed again in minutes.

    Raises:
        OutputError: when the operating system refuses to write.
    """
    require_name(path)
    remove_abandoned(path.parent)
    writer = os.getpid()
    partial = path.with_name(f".{path.stem}.{writer}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        if flush:
            _flush(partial)
        partial.replace(path)
        if flush:
            _flush(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if os.getpid() == writer:  # a forked process leaves the file to its parent
            with contextlib.suppress(OSError):  # of a name that is too long, which was reported above
                partial.unlink(missing_ok=True)


PARTIAL_NAME = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.partial(\.[^.]*)?")
"""Names of temporary files: process, random digits."""

STALE_S = 24 * 3600
"""Seconds without a change after which a temporary file is taken for the remains of a killed process."""


@functools.lru_cache(maxsize=256)
def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that nobody has written to for a day; done once per folder and process."""
    with contextlib.suppress(OSError):  # whether the folder can be written to shows when it is
        for path in folder.iterdir():
            if PARTIAL_NAME.fullmatch(path.name) and path.stat().st_mtime < time.time() - STALE_S:
                path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


ANOTHER_CACHE = f"let the environment variable {CACHE_VARIABLE} name another folder for the cache"


def cache_directory() -> Path:
    """``MASKRING_CACHE``, else ``maskring`` in the user's cache folder.

    Raises:
        OutputError: when the user has no home folder, as in containers that run as a bare user number.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskring"
    except RuntimeError as error:
        raise OutputError(
            "this user has no home folder, so there is no place for the cache", ANOTHER_CACHE
        ) from error


@contextlib.contextmanager
def caching(path: Path) -> Iterator[None]:
    """For a block that writes ``path``, a file of the cache, whose folder is created if necessary.

    Several users may share a cache: whoever may read its folder may read the file, whatever the umask is.

    Raises:
        OutputError: when the cache cannot be written; its remedy names ``MASKRING_CACHE``.
    """
    try:
        make_directory(path.parent)
        yield
        with contextlib.suppress(OSError):  # file systems without permissions
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (path.parent.stat().st_mode & 0o444))
    except OutputError as error:
        raise OutputError(error.problem, ANOTHER_CACHE) from error
