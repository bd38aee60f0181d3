"""Names of files that libraries can open."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError


def opencv_name(path: Path, kind: type[UserError]) -> str:
    """What to call a file so that OpenCV, and FFmpeg within it, open just that one.

    FFmpeg takes ``10:30.mp4`` for an address, unless a folder stands before it. OpenCV 4.14 takes the whole
    process down when a name is not UTF-8.

    Raises:
        UserError: of this kind, when the name is not UTF-8.
    """
    require_utf8(path, kind, "OpenCV")
    return os.path.join(os.curdir, path)  # noqa: PTH118 (Path drops the folder again)


def require_utf8(path: Path, kind: type[UserError], library: str) -> None:
    """Make sure that a library that knows no other names can be told this one.

    Raises:
        UserError: of this kind, when the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        problem = f"{library} cannot open {path}, for that name is not UTF-8"
        raise kind(problem, "give it another name") from None
