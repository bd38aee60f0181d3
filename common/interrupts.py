"""Ctrl-C, SIGTERM and SIGHUP: when they take effect, and that a second one ends the process at once.

A signal handler that raises does so wherever Python happens to check for signals, including inside calls of
native libraries that do not expect it: OpenCV's bindings crash when that happens while they choose between
overloads. So the handler only sets a flag while a frame is processed, and the flag takes effect after it.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
"""Exit code of an interrupted run: 128 + SIGINT, as shells expect."""

ONE_REQUEST_S = 0.5
"""Signals within this time count as one: a program that starts others may repeat what the terminal sends."""

IMPORT_POLL_S = 0.002
"""How long to wait for the end of an import before looking again."""

_STOPPED_AT_ONCE = b"stopped at once: the file that was being written is left out.\n"


STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, a service manager, and a terminal or SSH session that was closed. Windows has no SIGHUP."""


class _State:
    requested_at: float | None = None  # by the monotonic clock
    pending = False
    depth = 0
    repeated = False  # the next signal comes from _repeat
    terminals: tuple[int, ...] = ()  # standard streams that are a terminal


_state = _State()


@contextmanager
def handle_interrupts() -> Iterator[None]:
    """Let :data:`STOP_SIGNALS` interrupt the block.

    The first one raises KeyboardInterrupt, but not before a block of :func:`defer_interrupts` or an import is
    finished. A second one ends the process at once. Signals that the process was started to ignore stay
    ignored, so ``nohup`` works. Call it in the main thread.
    """
    _state.requested_at, _state.pending, _state.repeated = None, False, False
    _state.terminals = tuple(descriptor for descriptor in range(3) if os.isatty(descriptor))
    before = {number: signal.signal(number, _on_signal) for number in signals_to_handle()}
    try:
        yield
    finally:
        _state.requested_at = None
        for number, handler in before.items():
            signal.signal(number, handler)


def signals_to_handle() -> list[signal.Signals]:
    """:data:`STOP_SIGNALS` without those that the process was started to ignore."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Finish the block before an interruption takes effect.

    It changes nothing outside of :func:`handle_interrupts`, as in programs that use maskring as a library.

    Raises:
        KeyboardInterrupt: after a block that succeeds, when one was requested.
    """
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
    if _state.pending and not _state.depth:
        _state.pending = False
        raise KeyboardInterrupt


@contextmanager
def stop_request(on_request: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Let long work choose where it stops: yields a function that says whether a stop was requested.

    A second one of :data:`STOP_SIGNALS` raises KeyboardInterrupt.

    Args:
        on_request: called when the first signal comes.
    """
    requested = False

    def on_signal(number: int, _: Any) -> None:
        nonlocal requested
        _leave_closed_terminal(number)
        if requested:
            raise KeyboardInterrupt
        requested = True
        on_request()

    before = {number: signal.signal(number, on_signal) for number in signals_to_handle()}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _leave_closed_terminal(number)
    now = time.monotonic()
    repeated, _state.repeated = _state.repeated, False
    if _state.requested_at is None or repeated:
        _state.requested_at = now if _state.requested_at is None else _state.requested_at
        if _state.depth:
            _state.pending = True
        elif _is_importing(frame):
            _thread.start_new_thread(_repeat, (number,))
        else:
            raise KeyboardInterrupt
    elif now - _state.requested_at > ONE_REQUEST_S:
        stop_at_once()


def stop_at_once() -> NoReturn:
    """End the process where it is; say so."""
    os.write(2, _STOPPED_AT_ONCE)
    os._exit(EXIT_INTERRUPTED)


def _leave_closed_terminal(number: int) -> None:
    """After SIGHUP, write to nothing: each message to a closed terminal would raise an OSError."""
    if number == getattr(signal, "SIGHUP", None):
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in _state.terminals:
            os.dup2(nothing, descriptor)
        os.close(nothing)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: a native one that is interrupted fails with an error of its own."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _repeat(number: int) -> None:
    time.sleep(IMPORT_POLL_S)
    if _state.requested_at is None:
        return  # the block has ended
    _state.repeated = True
    signal.pthread_kill(threading.main_thread().ident or 0, number)
