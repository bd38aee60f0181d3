"""Video in: files, image folders, cameras and network streams as one stream of frames.

Nothing is ever loaded as a whole. A thread decodes a few frames ahead, so that decoding overlaps with
tracking; with ``live`` it keeps only the newest frame and counts what it dropped.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import cv2

from ...common.errors import SourceError, UnavailableError
from ...common.filenames import opencv_name
from ...common.interrupts import defer_interrupts
from .folders import IMAGE_SUFFIXES
from .readers import (
    Capture,
    FolderReader,
    Reader,
    StreamReader,
    VideoReader,
    frame_count,
)
from .readers import Frame as Frame
from .readers import read_image as read_image

FRAMES_AHEAD = 3
"""Decoded frames that wait for the tracker, at most."""

SIGNALS_S = 0.1
"""How long a Ctrl-C may go unnoticed while the tracker waits for a frame."""

NETWORK_TIMEOUT_MS = 10_000
"""How long a network stream may take to open, and may stay silent."""


class Source:
    """An open stream: iterate over it once, and close it (it is a context manager).

    Attributes:
        fps: frames per second the source claims.
        size: (H, W) of every frame, in pixels.
        length: number of frames to come by what the source claims, None for cameras and endless streams.
            Videos whose rate varies, or whose writer was cut off, claim more or less than they hold.
        end: index of the last frame that there can be, None where only the end will tell.

    Iterating raises :class:`SourceError` when a frame cannot be read, when the size changes, when a lost
    camera does not come back, or when the source ends before its first frame that is asked for.

    Raises:
        SourceError: when it is known that no frame lies between ``first`` and ``last``.
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
        self._handoff = _Handoff(newest_only=live)
        frames = reader.frames(self._stop)
        if live and not reader.endless:
            frames = paced(frames, self._stop)
        self._thread = threading.Thread(
            target=_pump, args=(frames, self._handoff), name="decode", daemon=True
        )
        self._started = self._closed = False
        self._latest: int | None = None

    @property
    def dropped(self) -> int:
        """Frames that live mode skipped so far, because a newer one was there."""
        return self._handoff.dropped

    @property
    def undecodable(self) -> int:
        """Frames so far that the file announces and that could not be decoded: it is damaged or cut off."""
        return self._reader.undecodable

    @property
    def reconnects(self) -> int:
        """How often a camera or network stream was lost and came back."""
        return self._reader.reconnects

    @property
    def upcoming(self) -> Frame | None:
        """The frame that will most likely come next, if it is decoded already; does not wait."""
        return self._handoff.first()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._closed:
            raise StopIteration
        if not self._started:
            # Not before the first frame is asked for: until then a camera's frames would only grow old.
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
        """The next frame between the first and the last; None after that."""
        if self._latest is not None and self._latest == self._last:
            return None  # without waiting for another, which a camera may never send
        frame, passed = self._handoff.get(), 0
        while frame is not None and frame.index < self._first:
            passed = frame.index + 1
            frame = self._handoff.get()
        if frame is None and self._latest is None and not self._closed:
            raise _no_frame(self._first, passed)
        return None if frame is None or (self._last is not None and frame.index > self._last) else frame

    def close(self) -> None:
        """Stop the decoding thread and release file or device. Closing twice does nothing."""
        with defer_interrupts():
            self._closed = True
            self._stop.set()
            self._handoff.close()
            if self._started:
                self._thread.join()
            self._reader.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    text_or_path: str | Path, *, live: bool = False, first: int = 0, last: int | None = None
) -> Source:
    """Open a video by what a user would type.

    Args:
        text_or_path: a video file; a folder of images (jpg, png, bmp, webp) in natural order, for example
            one sequence of DAVIS; the number of a webcam (``"0"``; write ``./0`` for a file of that name) or
            its device file; an RTSP or HTTP address; or a GStreamer pipeline (``"... ! appsink"``).
        live: hand out the newest frame only and count those dropped; files then play at their own speed.
        first: index of the first frame to hand out; those before it are decoded and left out.
        last: index of the last one, None for all.

    Raises:
        SourceError: when it is missing, is a folder without a frame between ``first`` and ``last``, or cannot
            be decoded.
        UnavailableError: when a pipeline is given and OpenCV was built without GStreamer.
    """
    silence_opencv()
    with defer_interrupts():
        reader = _open_reader(text_or_path)
    try:
        return Source(reader, live=live, first=first, last=last)
    except BaseException:
        reader.close()
        raise


def _length_between(reader: Reader, first: int, last: int | None) -> int | None:
    """Frames from the first to the last that is asked for, as far as the source tells its length.

    A video that claims to end before them may be longer, and holds one at least if there is no error to come.
    """
    if first < 0 or (last is not None and last < first):
        raise SourceError(
            f"there is no frame from {first} to {last}", "count from 0, the first before the last"
        )
    if reader.length is None:
        return None
    if first >= reader.length and reader.counted:
        raise _no_frame(first, reader.length)
    return max(1, (reader.length if last is None else min(reader.length, last + 1)) - first)


def _no_frame(first: int, length: int) -> SourceError:
    return SourceError(
        f"the source has no frame {first}, for it has {length} frames",
        "begin earlier, counting frames from 0",
    )


def silence_opencv() -> None:
    """Keep OpenCV and its FFmpeg from writing to stderr, unless the user's environment asks for messages.

    FFmpeg reads its level when the first video of the process is opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def paced(
    frames: Iterator[Frame], stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> Iterator[Frame]:
    """Delay frames to the times their timestamps say, as a camera would deliver them."""
    start = clock()
    for frame in frames:
        if stop.wait(max(0.0, start + frame.timestamp - clock())):
            return
        yield frame


class _Handoff:
    """Hands frames from the decoding thread to the consumer.

    Args:
        newest_only: never let the producer wait: a frame that was not taken is replaced and counted. Only the
            first frame waits, for it is the one that the user's mask belongs to.
    """

    def __init__(self, *, newest_only: bool) -> None:
        self.dropped = 0
        self._newest_only = newest_only
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._taken = self._ended = self._closed = False
        self._error: Exception | None = None

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; False when the consumer is gone."""
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
        """No frame follows; ``error`` is raised in the consumer once it has taken those that are there."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> Frame | None:
        """The next frame, None after the last."""
        while True:
            # A signal's handler that raises while the lock changes hands would leave it locked.
            with defer_interrupts(), self._changed:
                if self._frames or self._ended or self._closed:
                    return self._take()
                self._changed.wait(SIGNALS_S)

    def first(self) -> Frame | None:
        """The frame that waits longest, without taking it; None when there is none."""
        with self._changed:
            return self._frames[0] if self._frames else None

    def close(self) -> None:
        """The consumer takes no more."""
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


def _pump(frames: Iterator[Frame], handoff: _Handoff) -> None:
    error = None
    try:
        for frame in frames:
            if not handoff.put(frame):
                break
    except Exception as caught:  # whatever it is, the consumer must not wait forever
        error = caught
    handoff.end(error)


def _open_reader(text_or_path: str | Path) -> Reader:
    if isinstance(text_or_path, Path):
        return _open_path(text_or_path)
    text = text_or_path.strip()
    if text.isascii() and text.isdecimal():
        return _open_camera(int(text[:10]))  # a longer number is none of a camera, either
    if " ! " in text and not os.path.exists(text):  # noqa: PTH110
        return _open_pipeline(text)
    if "://" in text:
        return _open_address(text)
    if not text:
        raise SourceError("the source is empty", "name a video, a folder of images or a camera")
    return _open_path(Path(text))


def _open_path(path: Path) -> Reader:
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises on names that are too long)
        raise SourceError(f"{path} does not exist", "check the path")
    if path.is_dir():
        return FolderReader(path)
    if path.is_char_device():
        return _open_camera(str(path))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{path} is a single image", "name the folder that holds the frames")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read", "check its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is an empty file", "check how it was made or copied")
    capture = cv2.VideoCapture(opencv_name(path, SourceError), preferred_backend())
    if not capture.isOpened():
        raise SourceError(
            f"{path} cannot be opened as a video", "check that it plays elsewhere, or convert it to MP4"
        )
    return VideoReader(capture, str(path))


def _open_camera(number_or_device: int | str) -> Reader:
    def connect() -> Capture:
        return cv2.VideoCapture(number_or_device)

    remedy = "plug it in, close other programs that use it, and check its number (ls /dev/video*)"
    return _open_stream(connect, f"camera {number_or_device}", remedy)


def _open_address(url: str) -> Reader:
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        NETWORK_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        NETWORK_TIMEOUT_MS,
    ]

    def connect() -> Capture:
        return cv2.VideoCapture(url, preferred_backend(), timeouts)

    return _open_stream(connect, without_credentials(url), "check the address, the network and the password")


def _open_pipeline(pipeline: str) -> Reader:
    if not has_gstreamer():
        raise UnavailableError(
            "this OpenCV was built without GStreamer, which the pipeline needs",
            "use one that has it: JetPack's own, or one built from source with -D WITH_GSTREAMER=ON",
        )
    if "appsink" not in pipeline:
        raise SourceError(
            "the GStreamer pipeline does not end in appsink",
            "append: ! videoconvert ! video/x-raw,format=BGR ! appsink",
        )

    def connect() -> Capture:
        return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)

    return _open_stream(connect, "the GStreamer pipeline", "try it with gst-launch-1.0 first")


def _open_stream(connect: Callable[[], Capture], name: str, remedy: str) -> Reader:
    """Tell videos with an end from endless streams, for only the latter are to be opened again."""
    capture = connect()
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened", remedy)
    if frame_count(capture) is not None:
        return VideoReader(capture, name)
    return StreamReader(capture, connect, name)


def has_gstreamer() -> bool:
    """Whether this OpenCV can run GStreamer pipelines."""
    lines = cv2.getBuildInformation().splitlines()
    return any(line.strip().startswith("GStreamer:") and "YES" in line for line in lines)


def without_credentials(url: str) -> str:
    """An address as it may appear in messages: user and password left out."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def preferred_backend() -> int:
    """OpenCV's FFmpeg where it has one: asked to choose, it tries more, down to lists of images."""
    ffmpeg: int = cv2.CAP_FFMPEG
    return ffmpeg if ffmpeg in cv2.videoio_registry.getBackends() else cv2.CAP_ANY
