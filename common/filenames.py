"""File names in the form that native libraries can open."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError


def opencv_name(path: Path, kind: type[UserError]) -> str:
    """The name by which OpenCV, and FFmpeg inside it, open this file and no other.

    FFmpeg reads ``10:30.mp4`` as a URL unless a folder comes first. OpenCV 4.14 crashes the process when a
    name is not UTF-8.

    Raises:
        UserError: of the class ``kind``, when the name is not UTF-8.
    """
    require_utf8(path, kind, "OpenCV")
    return os.path.join(os.curdir, path)  # noqa: PTH118 (Path drops the folder again)


def require_utf8(path: Path, kind: type[UserError], library: str) -> None:
    """Make sure that a library that takes UTF-8 only can open this file.

    Raises:
        UserError: of the class ``kind``, when the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise kind(f"{library} cannot open {path}: the name is not UTF-8", "rename it") from None
