"""Ctrl-C and SIGTERM: where they take effect, and that a second one does not wait.

A handler that raises does so wherever Python looks for signals, also within calls of native libraries that
do not expect it: OpenCV's bindings crash when that happens while they choose between overloads. So work on a
frame is not disturbed: the request takes effect behind it.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130
"""Exit code of an interrupted run: 128 + SIGINT, as shells expect."""

ONE_REQUEST_S = 0.5
"""Signals within this time are one request: programs that start others pass on what the terminal sent too."""

_LAST_WORDS = b"stopped at once: the file that was being written is left out.\n"


IMPORTING_S = 0.002
"""How long to wait for the end of an import before looking again."""


class _State:
    asked: float | None = None  # when, by the monotonic clock
    pending = False
    depth = 0
    reminded = False  # the next signal comes from here


_state = _State()


@contextmanager
def handle_interrupts() -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt the block.

    The first one raises KeyboardInterrupt, behind :func:`defer_interrupts` or an import where one is under way;
    the second one ends the process there and then. Signals that the process was started to ignore stay
    ignored. For the main thread.
    """
    _state.asked, _state.pending, _state.reminded = None, False, False
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _request) for number in numbers}
    try:
        yield
    finally:
        _state.asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """A block that is carried through before an interruption takes effect, within :func:`handle_interrupts`.

    Elsewhere, as in programs that use maskring as a library, it changes nothing.

    Raises:
        KeyboardInterrupt: behind a block that succeeds, when one was asked for.
    """
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
    if _state.pending and not _state.depth:
        _state.pending = False
        raise KeyboardInterrupt


def _request(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    reminded, _state.reminded = _state.reminded, False
    if _state.asked is None or reminded:
        _state.asked = now if _state.asked is None else _state.asked
        if _state.depth:
            _state.pending = True
        elif _is_import(frame):
            _thread.start_new_thread(_remind, (number,))
        else:
            raise KeyboardInterrupt
    elif now - _state.asked > ONE_REQUEST_S:
        os.write(2, _LAST_WORDS)
        os._exit(EXIT_INTERRUPTED)


def _is_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported: left half made, native ones fail with errors of their own."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _remind(number: int) -> None:
    time.sleep(IMPORTING_S)
    if _state.asked is None:
        return  # all is done
    _state.reminded = True
    signal.pthread_kill(threading.main_thread().ident or 0, number)
