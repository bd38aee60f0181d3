"""Videos with an end, from a file or an address, and network streams without one. Both are read by FFmpeg."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...common.errors import SourceError
from ...common.types import Image
from .containers import FALLBACK_FPS, frame_count
from .decoding import Decoded, Decoder
from .frame import MAX_PIXELS, Frame
from .readers import check_size, size_of

if TYPE_CHECKING:
    from av.container import InputContainer

LIVE_THREADS = 4
"""Threads that decode a live stream; each holds one frame back."""

MAX_TRUSTED_FPS = 60.0
"""A video that claims a higher rate must show it in the timestamps of its first frames."""


class VideoReader:
    """A video that has an end: a file, or one behind an address.

    Damaged frames are skipped and counted. Index and time of later frames are as if they were there.

    Args:
        container: an opened video; closed by the reader.
        name: the video's name in errors.

    Raises:
        SourceError: when no frame can be decoded, or frames are giant.
    """

    endless = counted = False
    reconnects = 0

    def __init__(self, container: InputContainer, name: str) -> None:
        self._container, self._name = container, name
        try:
            self._decoder = Decoder(container, name)
            self.length = frame_count(container, self._decoder.stream)
            self._decoded = self._decoder.frames()
            self._digits = max(5, len(str(self.length or 0)))
            self._begun = [frame for frame in (self._next(), self._next()) if frame is not None]
            if not self._begun:
                raise SourceError(
                    f"no frame of {name} can be decoded",
                    "check that it plays elsewhere and has at most "
                    f"{MAX_PIXELS // 10**6} megapixels a frame, or convert it to MP4",
                )
        except BaseException:
            container.close()
            raise
        self.size = size_of(self._begun[0].image)
        self.fps = _believable_rate(self._decoder.fps, *self._begun)

    @property
    def undecodable(self) -> int:
        """Frames lost so far."""
        return self._decoder.lost

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The decodable frames.

        Raises:
            SourceError: when the size changes.
        """
        while not stop.is_set():
            frame = self._begun.pop(0) if self._begun else self._next()
            if frame is None:
                return
            check_size(frame, self.size, self._name)
            yield frame

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _next(self) -> Frame | None:
        decoded = next(self._decoded, None)
        if decoded is None:
            return None
        place = decoded.place
        return Frame(decoded.image, place.index, place.timestamp, f"{place.index:0{self._digits}d}")


class NetworkStream:
    """A network stream without end, as :class:`.StreamReader` takes it.

    Args:
        container: the opened address; closed by :meth:`close`.
        name: its name in errors.

    Raises:
        SourceError: when it sends no video.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        self._container = container
        try:
            self._decoder = Decoder(container, name)
        except BaseException:
            container.close()
            raise
        self._decoder.stream.codec_context.thread_count = min(LIVE_THREADS, os.cpu_count() or 1)
        self.fps = self._decoder.fps
        self._decoded = self._decoder.frames()
        self._waiting: Decoded | None = None
        self._lost = 0

    def read(self) -> Image | None:
        """The next frame; None for each one that was lost before it, and when none comes."""
        if self._waiting is None:
            self._waiting = next(self._decoded, None)
            self._lost = self._waiting.place.lost if self._waiting is not None else 0
        if self._lost:
            self._lost -= 1
            return None
        decoded, self._waiting = self._waiting, None
        return None if decoded is None else decoded.image

    def close(self) -> None:
        """Close the connection."""
        self._container.close()


def _believable_rate(told: float, first: Frame, second: Frame | None = None) -> float:
    """Frames per second: where the rate varies, what is told may be the ticks of the video's clock."""
    if second is None or told <= MAX_TRUSTED_FPS:
        return told
    passed = second.timestamp - first.timestamp
    if passed * told < 1.5 * (second.index - first.index):
        return told
    return min(max((second.index - first.index) / passed, FALLBACK_FPS), MAX_TRUSTED_FPS)
