"""Frames of a stream on their way to the pages and to what is drawn on them. All memory here is bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from ..common.types import Labels
from ..runtime.tracking.result import ObjectState
from ..runtime.video.frame import Frame
from .frames import jpeg, mask_png

JPEG_QUALITY = 85

RECENT_BYTES = 64 << 20
"""The latest frames, of which a page can freeze one."""

MIN_RECENT = 4

MAX_MISSED = 48
"""Frames that are kept while a user draws. Where there are more, every second one is given up."""

MISSED_BYTES = 192 << 20

LATENCIES = 500
"""Frames that the shown latency is taken from."""


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame of the stream, and its result.

    Attributes:
        frame: the frame.
        labels: [H, W] ids; None as long as nothing is tracked.
        objects: the tracked objects.
        arrived: when the frame came, by the monotonic clock.
    """

    frame: Frame
    labels: Labels | None
    objects: tuple[ObjectState, ...]
    arrived: float
    _encoded: list[bytes] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def encoded(self) -> tuple[bytes, bytes]:
        """The frame as JPEG and its labels as PNG, which is empty for none. Made once for all pages."""
        with self._lock:
            if not self._encoded:
                png = b"" if self.labels is None else mask_png(self.labels)
                self._encoded[:] = [jpeg(self.frame.image, JPEG_QUALITY), png]
            return self._encoded[0], self._encoded[1]


class RecentFrames:
    """The latest frames of a stream."""

    def __init__(self) -> None:
        self._frames: deque[LiveFrame] = deque()
        self._bytes = 0

    def add(self, frame: LiveFrame) -> None:
        """Add the newest frame and give up the oldest."""
        self._frames.append(frame)
        self._bytes += frame.frame.image.nbytes
        while self._bytes > RECENT_BYTES and len(self._frames) > MIN_RECENT:
            self._bytes -= self._frames.popleft().frame.image.nbytes

    def since(self, index: int) -> list[LiveFrame]:
        """Frame ``index`` and all later ones; empty when it is gone."""
        frames = list(self._frames)
        return [one for one in frames if one.frame.index >= index] if self._holds(frames, index) else []

    @staticmethod
    def _holds(frames: list[LiveFrame], index: int) -> bool:
        return any(one.frame.index == index for one in frames)


class MissedFrames:
    """Frames that came after a frozen one, for the objects that are drawn on it.

    Args:
        frames: the first ones.
    """

    def __init__(self, frames: list[Frame]) -> None:
        self._frames: list[Frame] = []
        self._stride, self._seen = 1, 0
        for frame in frames:
            self.add(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def add(self, frame: Frame) -> None:
        """Add the newest frame. When there are too many, the ones that stay are equally far apart."""
        if self._seen % self._stride == 0:
            self._frames.append(frame)
        self._seen += 1
        limit = min(MAX_MISSED, max(MIN_RECENT, MISSED_BYTES // frame.image.nbytes))
        if len(self._frames) > limit:
            self._frames = self._frames[::2]
            self._stride *= 2

    def pop(self) -> Frame:
        """The oldest frame, which is given up."""
        return self._frames.pop(0)


class Latency:
    """Time from the arrival of a frame until a page reports that it shows it: p50 and p99 of the latest frames."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATENCIES)

    def add(self, seconds: float) -> None:
        """Count one more frame."""
        self._seconds.append(seconds)

    def told(self) -> dict[str, Any] | None:
        """Milliseconds, None before there are two frames."""
        if len(self._seconds) < 2:
            return None
        cuts = quantiles(self._seconds, n=100, method="inclusive")
        return {"p50": round(1000 * cuts[49]), "p99": round(1000 * cuts[98])}
