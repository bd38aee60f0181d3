"""Files on object storage (``s3://``, ``gs://``, ``az://``, ...), read and written by fsspec."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ...common.errors import OutputError, SourceError, UnavailableError, UserError

URL = re.compile(r"[a-z][a-z0-9+.-]*://", flags=re.IGNORECASE)


def is_url(place: str) -> bool:
    """Whether a place is an address on object storage, not a path."""
    return URL.match(place) is not None


def join(place: str, name: str) -> str:
    """A name below a path or address."""
    return f"{place.rstrip('/')}/{name}" if is_url(place) else str(Path(place) / name)


def stem(place: str) -> str:
    """The last name of a path or address, without its suffix."""
    return PurePosixPath(place).stem if is_url(place) else Path(place).stem


def files_below(url: str) -> list[str]:
    """Addresses of the files at or below an address, sorted, without hidden ones.

    Raises:
        SourceError: when it cannot be listed. Where nothing is, the list is empty.
        UnavailableError: when the package for this kind of storage is missing.
    """
    with _reading(url):
        system, path = _open(url)
        try:
            paths = [path] if system.isfile(path) else sorted(system.find(path))
        except FileNotFoundError:
            return []
        visible = [found for found in paths if not PurePosixPath(found).name.startswith(".")]
        return [str(system.unstrip_protocol(found)) for found in visible]


def local_copy(place: str, folder: Path) -> Path:
    """A path as it is; of an address, a copy in ``folder``.

    Raises:
        SourceError: when it cannot be read.
        UnavailableError: when the package for this kind of storage is missing.
    """
    return local_copies([place], folder)[0] if is_url(place) else Path(place)


def local_copies(urls: list[str], folder: Path) -> list[Path]:
    """Copies of files of one storage in ``folder``, loaded side by side; arguments and errors as :func:`local_copy`."""
    if not urls:
        return []
    with _reading(urls[0]):
        system, _ = _open(urls[0])
        copies = [folder / PurePosixPath(url).name for url in urls]
        system.get([_open(url)[1] for url in urls], [str(copy) for copy in copies])
        return copies


def upload(file: Path, url: str) -> None:
    """Copy a file to an address. Object storage shows it when it is complete.

    Raises:
        OutputError: when it cannot be written.
        UnavailableError: when the package for this kind of storage is missing.
    """
    try:
        system, path = _open(url)
        system.put_file(str(file), path)
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # each storage has errors of its own
        raise OutputError(
            f"{url} cannot be written ({_words(error)})", "check the address and your credentials"
        ) from error


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # each storage has errors of its own
        raise SourceError(
            f"{url} cannot be read ({_words(error)})", "check the address and your credentials"
        ) from error


def _words(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _open(url: str) -> tuple[Any, str]:
    """The storage behind an address, and the path in it."""
    fsspec: Any = importlib.import_module("fsspec")
    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise SourceError(
            f"{protocol}:// is no storage that fsspec knows",
            "give a path, or an address such as s3://bucket/folder",
        ) from error
    except ImportError as error:
        raise UnavailableError(f"fsspec cannot open {protocol}://", _words(error).lower()) from error
    system, path = fsspec.url_to_fs(url)
    return system, str(path)
