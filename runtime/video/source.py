"""An open stream of frames.

A thread decodes a few frames ahead, so that decoding overlaps with tracking. With ``live`` it keeps only the
newest frame and counts those it dropped. At no time is a whole video in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

from ...common.errors import SourceError
from ...common.forks import forked_error, never_release, tell_of_forks
from ...common.interrupts import defer_interrupts
from .frame import Frame
from .handoff import Handoff
from .readers import Reader


class Source:
    """An open stream. Iterate over it once, and close it (it is a context manager).

    Args:
        reader: reads the frames; closed together with this object.
        live: hand out the newest frame only, and count those dropped.
        first, last: indices of the first and the last frame to hand out; None for no last one.
        stop: set to end waiting; None makes one.

    Attributes:
        fps: frames per second by the source's own account.
        size: (H, W) of every frame, in pixels.
        length: number of frames by the source's own account, None for cameras and endless streams. A video
            of variable rate, or one that was cut off, may hold more or fewer.
        end: index of the last frame that is possible, None where that is unknown.

    Iterating raises :class:`SourceError` when a frame cannot be read, the size changes, a lost camera does
    not come back, or the source ends before ``first``; also when the frame ``first`` of a video is damaged.

    Raises:
        SourceError: when it is certain that no frame lies between ``first`` and ``last``.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        live: bool = False,
        first: int = 0,
        last: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.fps = reader.fps
        self.size = reader.size
        self.length = _length_between(reader, first, last)
        self.end = last if self.length is None or not reader.counted else first + self.length - 1
        self._first, self._last = first, last
        self._reader = reader
        self._stop = stop or threading.Event()
        self._handoff = Handoff(newest_only=live)
        frames = reader.frames(self._stop)
        if live and not reader.endless:
            frames = paced(frames, self._stop)
        self._thread = threading.Thread(
            target=_pump, args=(frames, self._handoff), name="decode", daemon=True
        )
        self._started = self._closed = self._forked = self._released = False
        self._releasing = threading.Lock()
        self._latest: int | None = None
        tell_of_forks(self)

    @property
    def dropped(self) -> int:
        """Frames that live mode has skipped because a newer one was there."""
        return self._handoff.dropped

    @property
    def undecodable(self) -> int:
        """Frames that the file announces but that could not be decoded: it is damaged or cut off."""
        return self._reader.undecodable

    @property
    def reconnects(self) -> int:
        """Number of times that a camera or network stream was lost and came back."""
        return self._reader.reconnects

    @property
    def upcoming(self) -> Frame | None:
        """The frame that will probably come next, None if it is not decoded yet. Does not wait."""
        return self._handoff.first()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._forked:
            raise forked_error("the source")
        if self._closed:
            raise StopIteration
        if not self._started:
            # Starting earlier would hand out stale frames of a camera.
            with defer_interrupts():  # a thread that is only half started cannot be joined
                self._started = True
                self._thread.start()
        try:
            frame = self._next()
        except Exception:
            self.close()
            raise
        if frame is None:
            self.close()
            raise StopIteration
        self._latest = frame.index
        return frame

    def _next(self) -> Frame | None:
        """The next frame between ``first`` and ``last``, None after the last."""
        if self._latest is not None and self._latest == self._last:
            return None  # do not wait for another frame: a camera may never send one
        frame, passed = self._handoff.get(), 0
        while frame is not None and frame.index < self._first:
            passed = frame.index + 1
            frame = self._handoff.get()
        if frame is None and self._latest is None and not self._closed:
            raise _no_frame(self._first, passed)
        if frame is not None and self._latest is None and not self._reader.endless:
            self._check_first(frame.index)
        return None if frame is None or (self._last is not None and frame.index > self._last) else frame

    def _check_first(self, index: int) -> None:
        """The user's mask belongs to the first frame: on a later one it would track something else."""
        is_later = index > self._first and (self._last is None or index <= self._last)
        if is_later and self._reader.undecodable:  # else the reader's frames begin with this one
            raise SourceError(
                f"frame {self._first} of the video is damaged; the next one that can be decoded is {index}",
                f"begin there, with a mask of that frame: --from {index}, in Python first={index}",
            )

    def close(self) -> None:
        """Stop the decoding thread and release file or device. Closing twice does nothing, also at once."""
        if self._forked:
            return
        with defer_interrupts():
            self._closed = True
            self._stop.set()
            self._handoff.close()
            if self._started:
                self._thread.join()
            with self._releasing:  # FFmpeg crashes when two threads close a stream
                if not self._released:
                    self._released = True
                    self._reader.close()

    def after_fork(self) -> None:
        """See :class:`maskring.common.forks.Forkable`."""
        never_release(self._reader)
        self._closed = self._forked = True

    def __reduce__(self) -> NoReturn:
        """Copies would take frames from each other; this also refuses pickling."""
        raise TypeError("a source cannot be copied or pickled; open another one")

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def paced(
    frames: Iterator[Frame], stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> Iterator[Frame]:
    """Hold each frame back until its timestamp, as a camera would deliver it."""
    start = clock()
    for frame in frames:
        if stop.wait(max(0.0, start + frame.timestamp - clock())):
            return
        yield frame


def _pump(frames: Iterator[Frame], handoff: Handoff) -> None:
    error = None
    try:
        for frame in frames:
            if not handoff.put(frame):
                break
    except Exception as caught:  # raised again in the consumer, which would wait forever otherwise
        error = caught
    handoff.end(error)


def _length_between(reader: Reader, first: int, last: int | None) -> int | None:
    """Number of frames from ``first`` to ``last``, None where the source does not tell its length.

    A video that claims to end before ``first`` may be longer than it claims, so it counts as one frame.
    """
    if first < 0 or (last is not None and last < first):
        raise SourceError(
            f"there is no frame from {first} to {last}", "count from 0, and give the first before the last"
        )
    if reader.length is None:
        return None
    if first >= reader.length and reader.counted:
        raise _no_frame(first, reader.length)
    return max(1, (reader.length if last is None else min(reader.length, last + 1)) - first)


def _no_frame(first: int, length: int) -> SourceError:
    return SourceError(
        f"the source has no frame {first}: it has {length} frames",
        "begin earlier (frames are counted from 0)",
    )
