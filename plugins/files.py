"""Writing results so that an interrupted run never leaves a half-written file under a final name."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
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


def make_directory(path: Path) -> Path:
    """Create ``path`` with its parents and prove that files can be written in it.

    Raises:
        OutputError: when the folder cannot be made or does not accept files.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise output_error(path, error) from error
    return path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that takes its place when the block succeeds.

    The temporary name keeps the suffix of ``path``, since encoders and writers choose the format by it.
    When the block fails, the temporary file is removed and whatever stood at ``path`` is untouched.

    Raises:
        OutputError: when the operating system refuses to write.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def cache_directory() -> Path:
    """``MASKRING_CACHE``, else ``maskring`` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskring"
