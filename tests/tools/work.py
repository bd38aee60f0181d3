"""Work for processes of their own, which import it by name."""

from __future__ import annotations

import os
import signal

from maskring.common.errors import SourceError
from maskring.runtime.pipeline.progress import Progress


def act(item: str, progress: Progress) -> str:
    """What the item says: ``die``, ``fail``, ``break``, ``wait`` for ever; else the item in capitals."""
    progress(item, 1, 1)
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "wait":
        signal.pause()
    if item == "fail":
        raise SourceError("it failed", "mend it")
    if item == "break":
        raise ZeroDivisionError
    return item.upper()
