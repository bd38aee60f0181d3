"""Frames on their way from the decoding thread to the thread that tracks."""

from __future__ import annotations

import threading
from collections import deque

from ...common.interrupts import defer_interrupts
from .frame import Frame

FRAMES_AHEAD = 3
"""Most decoded frames that wait for the tracker."""

SIGNALS_S = 0.1
"""Longest time that Ctrl-C goes unnoticed while the tracker waits for a frame."""


class Handoff:
    """A bounded queue between one producer and one consumer.

    Args:
        newest_only: the producer never waits; it replaces a frame that was not taken and counts it as
            dropped. Only the first frame waits, because the user's mask belongs to it.
    """

    def __init__(self, *, newest_only: bool) -> None:
        self.dropped = 0
        self._newest_only = newest_only
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._taken = self._ended = self._closed = False
        self._error: Exception | None = None

    def put(self, frame: Frame) -> bool:
        """Add a frame; False when the consumer has closed the queue."""
        with self._changed:
            while self._must_wait() and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if self._newest_only:
                self.dropped += len(self._frames)
                self._frames.clear()
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def end(self, error: Exception | None) -> None:
        """No frame follows. The consumer gets the waiting frames first, then ``error``."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> Frame | None:
        """Wait for the next frame; None after the last."""
        while True:
            # A signal handler that raises while the lock changes hands would leave it locked.
            with defer_interrupts(), self._changed:
                if self._frames or self._ended or self._closed:
                    return self._take()
                self._changed.wait(SIGNALS_S)

    def first(self) -> Frame | None:
        """The frame that :meth:`get` returns next, left in place; None when none waits."""
        with self._changed:
            return self._frames[0] if self._frames else None

    def close(self) -> None:
        """The consumer takes no more frames."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()

    def _take(self) -> Frame | None:
        if self._frames and not self._closed:
            self._taken = True
            self._changed.notify_all()
            return self._frames.popleft()
        if self._error is not None and not self._closed:
            raise self._error
        return None

    def _must_wait(self) -> bool:
        if self._newest_only:
            return bool(self._frames) and not self._taken
        return len(self._frames) >= FRAMES_AHEAD
