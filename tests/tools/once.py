"""What is costly to make is made by one of the processes that run tests at the same time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(made: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder to be made, and say whether it has to be.

    ``False`` when it is there, be it that another process made it meanwhile. Make it under another name and
    rename it, so that it appears when it is complete.
    """
    made.parent.mkdir(parents=True, exist_ok=True)
    with (made.parent / f".{made.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, by an end of the process, too
        yield not made.exists()
