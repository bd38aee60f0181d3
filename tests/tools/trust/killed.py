"""``python -m trust.killed WHAT NUMBER ARGUMENT...``: the command line, killed in the middle of writing.

WHAT is ``write``: half of the NUMBER-th temporary file is written when SIGKILL comes; or ``replace``: the
NUMBER-th file was given its name just now. Nothing gets to clean up.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any


def kill_at(what: str, number: int) -> None:
    """Let this process be killed there."""
    counted = 0
    write_bytes, replace = Path.write_bytes, Path.replace

    def is_due(path: Path) -> bool:
        nonlocal counted
        counted += ".partial" in path.name
        return counted == number

    def half(path: Path, data: Any, *_: Any, **__: Any) -> int:
        content = data.encode() if isinstance(data, str) else bytes(data)
        if is_due(path):
            write_bytes(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(path, content)

    def renamed(path: Path, target: Path) -> Path:
        due, result = is_due(path), replace(path, target)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if what == "write":
        Path.write_bytes, Path.write_text = half, half  # type: ignore[method-assign, assignment]
    else:
        Path.replace = renamed  # type: ignore[method-assign, assignment]


def main() -> None:
    from maskring.cli import app

    kill_at(sys.argv[1], int(sys.argv[2]))
    app(sys.argv[3:])


if __name__ == "__main__":
    main()
