"""Readers: a folder of images, a video with an end, an endless stream. They start no threads."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

import cv2

from ...common.errors import SourceError
from ...common.types import Image
from .folders import frames_in
from .frame import Frame, check_pixel_limit
from .images import read_image, to_rgb
from .opencv import Capture

FOLDER_FPS = 24.0
"""Frame rate of folders, which do not tell theirs: that of DAVIS."""

FALLBACK_FPS = 30.0
"""Frame rate of videos and cameras that do not tell theirs."""

MAX_TRUSTED_FPS = 60.0
"""A video that claims a higher rate must show it in the timestamps of its first frames."""

RECONNECT_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Pauses before the attempts to reopen a lost stream; a camera needs some time to restart."""

MAX_FAILURES = 30
"""After so many undecodable frames in a row a stream is lost, and a video of unknown length has ended."""

MAX_FAILURES_OF_KNOWN_LENGTH = 20_000
"""The same for a video that tells its length; without a limit, a false length would keep it reading."""

SILENCE_S = 1.0
"""A stream that gives no frame for so long is lost; a damaged frame fails faster."""

log = logging.getLogger(__name__)


class Reader(Protocol):
    """Reads frames in order.

    Attributes:
        fps: frames per second, by the source's own account.
        size: (H, W) of every frame, in pixels.
        length: number of frames, None where the source does not tell.
        counted: ``length`` is certain; otherwise it is what a container claims.
        endless: a camera or stream, which is opened again when it stops.
        undecodable: frames that could not be decoded so far.
        reconnects: number of times that a lost stream came back.
    """

    @property
    def fps(self) -> float: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def length(self) -> int | None: ...
    @property
    def counted(self) -> bool: ...
    @property
    def endless(self) -> bool: ...
    @property
    def undecodable(self) -> int: ...
    @property
    def reconnects(self) -> int: ...

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield the frames; end early when ``stop`` is set."""

    def close(self) -> None:
        """Release file or device."""


class FolderReader:
    """The images of a folder, in natural order.

    Args:
        folder: holds one image per frame, all of one size.
        ignored: images in it that are no frames.

    Raises:
        SourceError: when there is no image, the first cannot be decoded, or two images have the same name
            without suffix, so that their masks would collide.
    """

    endless = False
    counted = True
    undecodable = reconnects = 0
    fps = FOLDER_FPS

    def __init__(self, folder: Path, ignored: Collection[Path] = ()) -> None:
        self._paths = frames_in(folder, ignored)
        self.length = len(self._paths)
        self.size = _size(read_image(self._paths[0]))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """One frame per file.

        Raises:
            SourceError: when a file cannot be decoded or has another size than the first.
        """
        for index, path in enumerate(self._paths):
            if stop.is_set():
                return
            image = read_image(path)
            if (size := _size(image)) != self.size:
                raise SourceError(
                    f"{path} is {_pixels(size)} pixels, {self._paths[0].name} is {_pixels(self.size)}",
                    "resize all frames to one size",
                )
            yield Frame(image, index, index / self.fps, path.stem)

    def close(self) -> None:
        """Nothing is held open."""


class VideoReader:
    """A video that has an end: a file, or one behind an address.

    Damaged frames are skipped and counted. Index and time of later frames are as if they were there.

    Args:
        capture: an opened video; the reader releases it.
        name: the video's name in errors.

    Raises:
        SourceError: when no frame can be decoded, or frames are giant.
    """

    endless = counted = False
    reconnects = 0

    def __init__(self, capture: Capture, name: str) -> None:
        _check_pixel_limit(capture, name)
        self._capture = capture
        self._name = name
        self.fps = self._told_fps = _frame_rate(capture)
        self.length = frame_count(capture)
        self.undecodable = 0
        self._position = 0  # frames passed, decodable or not
        self._origin, self._timestamp = 0.0, -1.0
        self._digits = max(5, len(str(self.length or 0)))
        first = self._next()
        if first is None:
            capture.release()
            raise SourceError(
                f"no frame of {name} can be decoded", "check that it plays elsewhere, or convert it to MP4"
            )
        self.size = _size(first.image)
        second = self._next()
        self._begun = [first, second]
        if second is not None:
            self.fps = _believable_rate(self.fps, first, second)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The decodable frames.

        Raises:
            SourceError: when the size changes.
        """
        while not stop.is_set():
            frame = self._begun.pop(0) if self._begun else self._next(stop)
            if frame is None:
                return
            _check_size(frame, self.size, self._name)
            yield frame

    def close(self) -> None:
        """Release the file."""
        self._capture.release()

    def _next(self, stop: threading.Event | None = None) -> Frame | None:
        end = self._position + MAX_FAILURES if self.length is None else self.length
        end = min(end, self._position + MAX_FAILURES_OF_KNOWN_LENGTH)
        failed = 0
        while (image := _grab(self._capture)) is None:
            failed += 1  # each failure passes one damaged frame, or the end
            if self._position + failed > end or (stop is not None and stop.is_set()):
                self._count_missing_end()
                return None
        self.undecodable += failed
        self._position += failed + 1
        index = self._position - 1
        return Frame(image, index, self._time_of(index), f"{index:0{self._digits}d}")

    def _count_missing_end(self) -> None:
        # Some containers round their length up by one frame, which is no damage. Others do not store it:
        # OpenCV then divides their duration by the shortest frame time, too many where the rate varies.
        if self.length is not None:
            missing_time = self.length / self._told_fps - self._timestamp
            missing = min(self.length - self._position, round(missing_time * self._told_fps) - 1)
            self.undecodable += missing if missing > 1 else 0

    def _time_of(self, index: int) -> float:
        told = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - self._origin
        if self._timestamp < 0:
            self._origin, self._timestamp = told if math.isfinite(told) else 0.0, 0.0
        # Not every container has timestamps, and those of damaged files may jump back.
        elif self._timestamp < told < math.inf:
            self._timestamp = told
        else:
            self._timestamp = max(index / self.fps, self._timestamp)
        return self._timestamp


class StreamReader:
    """A camera or network stream without end. When it stops it is opened again, a bounded number of times.

    Damaged frames are skipped and counted.

    Args:
        capture: the opened stream; the reader releases it.
        reopen: opens the stream again.
        name: the stream's name in errors.

    Raises:
        SourceError: when no frame arrives, or a giant one.
    """

    endless = True
    counted = False
    length = None

    def __init__(self, capture: Capture, reopen: Callable[[], Capture], name: str) -> None:
        _check_pixel_limit(capture, name)
        self._capture = capture
        self._reopen = reopen
        self._name = name
        self.fps = _frame_rate(capture)
        self.reconnects = self.undecodable = 0
        self._first = self._next()
        if self._first is None:
            capture.release()
            raise SourceError(f"{name} sends no frame", "check that it works in another program")
        self.size = _size(self._first)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Frames as they come.

        Raises:
            SourceError: when the stream stays lost or comes back with another size.
        """
        image, self._first = self._first, None
        index, start = 0, time.monotonic()
        while not stop.is_set():
            if image is None:
                image = self._reconnect(stop)
            if image is None:
                return
            position = index + self.undecodable
            frame = Frame(image, position, time.monotonic() - start if index else 0.0, f"{position:08d}")
            _check_size(frame, self.size, self._name)
            yield frame
            index += 1
            image = self._next()

    def close(self) -> None:
        """Release the device or connection."""
        self._capture.release()

    def _next(self) -> Image | None:
        """The next decodable frame, None when the stream is lost."""
        began = time.perf_counter()
        for failed in range(MAX_FAILURES):
            image = _grab(self._capture)
            if image is not None:
                self.undecodable += failed
                return image
            if time.perf_counter() - began > SILENCE_S:
                break
        return None

    def _reconnect(self, stop: threading.Event) -> Image | None:
        log.warning("%s stopped sending; opening it again", self._name)
        for delay in RECONNECT_DELAYS_S:
            self._capture.release()
            if stop.wait(delay):
                return None
            self._capture = self._reopen()
            image = self._next() if self._capture.isOpened() else None
            if image is not None:
                log.warning("%s is back", self._name)
                self.reconnects += 1
                return image
        raise SourceError(
            f"{self._name} stopped sending and did not come back in {len(RECONNECT_DELAYS_S)} attempts",
            "check its power and its connection",
        )


def _grab(capture: Capture) -> Image | None:
    """The next frame as RGB, None when there is none or it is damaged."""
    try:
        if not capture.grab():
            return None
        decoded, image = capture.retrieve()
    except cv2.error:
        return None
    return to_rgb(image) if decoded and image is not None and image.size else None


def _check_size(frame: Frame, size: tuple[int, int], name: str) -> None:
    now = _size(frame.image)
    if now != size:
        raise SourceError(
            f"{name} changes from {_pixels(size)} to {_pixels(now)} pixels at frame {frame.index}",
            "cut it there, or convert it to one size",
        )


def _check_pixel_limit(capture: Capture, name: str) -> None:
    try:
        check_pixel_limit(name, capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    except SourceError:
        capture.release()
        raise


def _frame_rate(capture: Capture) -> float:
    told = capture.get(cv2.CAP_PROP_FPS)
    # Streams without a rate report 0, or the tick rate of their clock, such as 90000.
    return told if math.isfinite(told) and 0 < told <= 1000 else FALLBACK_FPS


def _believable_rate(told: float, first: Frame, second: Frame) -> float:
    """Frames per second: where the rate varies, what is told may be the ticks of the video's clock."""
    passed = second.timestamp - first.timestamp
    if told <= MAX_TRUSTED_FPS or passed * told < 1.5 * (second.index - first.index):
        return told
    return min(max((second.index - first.index) / passed, FALLBACK_FPS), MAX_TRUSTED_FPS)


def frame_count(capture: Capture) -> int | None:
    told = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # Endless streams report 0 or a huge negative number.
    return round(told) if math.isfinite(told) and told > 0 else None


def _size(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
