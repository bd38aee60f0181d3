"""Where frames come from: a folder of images, a video with an end, an endless stream. No threads in here."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.errors import SourceError
from .folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES, images_in
from .picture_header import check_pixel_limit, told_size
from .png import SIGNATURE, PngError, read_chunks

Image = NDArray[np.uint8]


FOLDER_FPS = 24.0
"""Folders do not know their frame rate; this is that of DAVIS."""

FALLBACK_FPS = 30.0
"""For videos and cameras that do not tell theirs."""

MOST_USUAL_FPS = 60.0
"""Videos that tell a higher rate must show it in the times of their first frames."""

RECONNECT_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Pauses before each attempt to get a lost camera or network stream back: time for a camera to start anew."""

PATIENCE = 30
"""Undecodable frames in a row after which a stream is lost, and a video that tells no length has ended."""

MOST_DAMAGED = 20_000
"""The same for a video that tells its length, which may be any number."""

SILENCE_S = 1.0
"""A camera or stream that gives no frame after so long has not sent a damaged one, but none."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        image: [H, W, 3] uint8 RGB, upright; it belongs to the receiver.
        index: position in the source from 0; dropped and undecodable frames leave gaps.
        timestamp: seconds since the first frame; of cameras and endless streams, the time it was received.
        name: of an image file its name without suffix, otherwise the index with leading zeros.
    """

    image: Image
    index: int
    timestamp: float
    name: str


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, prop: int, /) -> float: ...
    def release(self) -> None: ...


class Reader(Protocol):
    """Where frames come from, without threads: a folder, a video with an end, an endless stream.

    Attributes:
        length: in frames, as far as it is told, which is ``counted`` or what a container claims.
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
        """The frames in order; ends early when ``stop`` is set."""

    def close(self) -> None:
        """Release file or device."""


class FolderReader:
    """The images of a folder, in natural order.

    Args:
        folder: holds one image per frame, all of one size.

    Raises:
        SourceError: when there is no image, two would give masks of one name, or the first cannot be decoded.
    """

    endless = False
    counted = True
    undecodable = reconnects = 0
    fps = FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self._paths = _images_in(folder)
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
    """A video that has an end: a file, or an address behind which there is one.

    Damaged frames are skipped and counted; index and time go on as if they were there.

    Args:
        capture: an opened video; the reader releases it.
        name: what to call it in errors.

    Raises:
        SourceError: when not one frame can be decoded, or they are giant.
    """

    endless = counted = False
    reconnects = 0

    def __init__(self, capture: Capture, name: str) -> None:
        _require_modest(capture, name)
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
            _require_size(frame, self.size, self._name)
            yield frame

    def close(self) -> None:
        """Release the file."""
        self._capture.release()

    def _next(self, stop: threading.Event | None = None) -> Frame | None:
        end = self._position + PATIENCE if self.length is None else self.length
        end = min(end, self._position + MOST_DAMAGED)
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
        # Some containers tell their length rounded up by one frame: that is no damage. Others do not know it,
        # and what is told is their time in frames of the shortest kind: too many where the rate varies.
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
    """A camera or network stream without end: when it stops it is opened again, a bounded number of times.

    Damaged frames are skipped and counted, as those of videos are.

    Args:
        capture: the opened stream; the reader releases it.
        reopen: opens it again.
        name: what to call it in errors.

    Raises:
        SourceError: when no frame comes, or a giant one.
    """

    endless = True
    counted = False
    length = None

    def __init__(self, capture: Capture, reopen: Callable[[], Capture], name: str) -> None:
        _require_modest(capture, name)
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
            _require_size(frame, self.size, self._name)
            yield frame
            index += 1
            image = self._next()

    def close(self) -> None:
        """Release the device or connection."""
        self._capture.release()

    def _next(self) -> Image | None:
        """The next frame that can be decoded, None when the stream is lost."""
        began = time.perf_counter()
        for failed in range(PATIENCE):
            image = _grab(self._capture)
            if image is not None:
                self.undecodable += failed
                return image
            if time.perf_counter() - began > SILENCE_S:
                break
        return None

    def _reconnect(self, stop: threading.Event) -> Image | None:
        log.warning("%s stopped sending; it is opened again", self._name)
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


def read_image(path: Path) -> Image:
    """Read an image file as [H, W, 3] uint8 RGB: grey repeated, alpha dropped, 16 bits halved, EXIF-upright.

    Raises:
        SourceError: when it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
        if data.startswith(SIGNATURE):
            read_chunks(data)  # the PNG decoder would report damage on stderr
        check_pixel_limit(path, *(told_size(data) or (0, 0)))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "check its permissions") from error
    except (PngError, cv2.error):
        image = None
    if image is None:
        raise SourceError(
            f"{path} cannot be decoded as an image", "replace the file or take it out of the folder"
        )
    return _rgb(image)


def _images_in(folder: Path) -> list[Path]:
    try:
        paths = images_in(folder)
    except OSError as error:
        raise SourceError(f"{folder} cannot be read ({error.strerror})", "check its permissions") from error
    if not paths:
        raise SourceError(f"{folder} holds no image (jpg, png, bmp, webp)", _nearby_images(folder))
    names: dict[str, Path] = {}
    for path in paths:
        twin = names.setdefault(path.stem, path)
        if twin is not path:
            raise SourceError(
                f"{folder} holds both {twin.name} and {path.name}, whose masks would have one name",
                "keep frames and other images in folders of their own",
            )
    return paths


def _nearby_images(folder: Path) -> str:
    """The remedy for a folder without images: among videos, name one; in a dataset, a sequence."""
    for video in images_in(folder, VIDEO_SUFFIXES)[:1]:
        return f"name one of its videos, for example {video}, or label all of them with maskring label"
    for pattern in ("*", "JPEGImages/*", "JPEGImages/*/*"):
        for inner in sorted(folder.glob(pattern)):
            if inner.is_dir() and _holds_images(inner):
                return f"name one folder of frames, for example {inner}"
    return "name a folder that holds the frames themselves"


def _holds_images(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
    except OSError:
        return False


def _grab(capture: Capture) -> Image | None:
    """The next frame as RGB, None when there is none or it is damaged."""
    try:
        if not capture.grab():
            return None
        decoded, image = capture.retrieve()
    except cv2.error:
        return None
    return _rgb(image) if decoded and image is not None and image.size else None


def _rgb(image: NDArray[Any]) -> Image:
    """RGB of what OpenCV decoded: BGR, or grey from some cameras."""
    if image.dtype != np.uint8:
        image = (image >> 8).astype(np.uint8)
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB), np.uint8)


def _require_size(frame: Frame, size: tuple[int, int], name: str) -> None:
    now = _size(frame.image)
    if now != size:
        raise SourceError(
            f"{name} changes from {_pixels(size)} to {_pixels(now)} pixels at frame {frame.index}",
            "cut it there, or convert it to one size",
        )


def _require_modest(capture: Capture, name: str) -> None:
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
    if told <= MOST_USUAL_FPS or passed * told < 1.5 * (second.index - first.index):
        return told
    return min(max((second.index - first.index) / passed, FALLBACK_FPS), MOST_USUAL_FPS)


def frame_count(capture: Capture) -> int | None:
    told = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # Endless streams report 0 or a huge negative number.
    return round(told) if math.isfinite(told) and told > 0 else None


def _size(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
