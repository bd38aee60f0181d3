"""Readers: a folder of images, an endless stream. They start no threads.

Videos with an end are read by :mod:`.video_reader`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from ...common.errors import SourceError
from ...common.types import Image
from .folders import frames_in
from .frame import Frame, pixels
from .images import check_depth, check_single_picture, read_image

FOLDER_FPS = 24.0
"""Frame rate of folders, which do not tell theirs: that of DAVIS."""

RECONNECT_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Pauses before the attempts to reopen a lost stream; a camera needs some time to restart."""

MAX_FAILURES = 30
"""After so many undecodable frames in a row a stream is lost."""

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
        SourceError: when there is no image, the first cannot be decoded or is no single picture, or two images
            have the same name without suffix, so that their masks would collide.
    """

    endless = False
    counted = True
    undecodable = reconnects = 0
    fps = FOLDER_FPS

    def __init__(self, folder: Path, ignored: Collection[Path] = ()) -> None:
        self._paths = frames_in(folder, ignored)
        self.length = len(self._paths)
        self.size = size_of(read_image(self._paths[0]))
        check_single_picture(self._paths[0])
        check_depth(self._paths[0])

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """One frame per file.

        Raises:
            SourceError: when a file cannot be decoded or has another size than the first.
        """
        for index, path in enumerate(self._paths):
            if stop.is_set():
                return
            image = read_image(path)
            if (size := size_of(image)) != self.size:
                raise SourceError(
                    f"{path} is {pixels(size)} pixels, {self._paths[0].name} is {pixels(self.size)}",
                    "resize all frames to one size",
                )
            yield Frame(image, index, index / self.fps, path.stem)

    def close(self) -> None:
        """Nothing is held open."""


class Connection(Protocol):
    """An open camera or network stream.

    Attributes:
        fps: frames per second by its own account.
    """

    @property
    def fps(self) -> float: ...

    def read(self) -> Image | None:
        """The next frame, [H, W, 3] uint8 RGB; None when it is damaged or none comes."""

    def close(self) -> None:
        """Release the device or connection."""


class StreamReader:
    """A camera or network stream without end. When it stops it is opened again, a bounded number of times.

    Damaged frames are skipped and counted.

    Args:
        connection: the opened stream; closed by the reader.
        reopen: opens the stream again; None when that fails.
        name: the stream's name in errors.

    Raises:
        SourceError: when no frame arrives, or a giant one.
    """

    endless = True
    counted = False
    length = None

    def __init__(self, connection: Connection, reopen: Callable[[], Connection | None], name: str) -> None:
        self._connection: Connection | None = connection
        self._reopen = reopen
        self._name = name
        self.fps = connection.fps
        self.reconnects = self.undecodable = 0
        self._first = self._next()
        if self._first is None:
            self.close()
            raise SourceError(f"{name} sends no frame", "check that it works in another program")
        self.size = size_of(self._first)

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
            check_size(frame, self.size, self._name)
            yield frame
            index += 1
            image = self._next()

    def close(self) -> None:
        """Release the device or connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _next(self) -> Image | None:
        """The next decodable frame, None when the stream is lost."""
        began = time.perf_counter()
        for failed in range(MAX_FAILURES):
            image = None if self._connection is None else self._connection.read()
            if image is not None:
                self.undecodable += failed
                return image
            if self._connection is None or time.perf_counter() - began > SILENCE_S:
                break
        return None

    def _reconnect(self, stop: threading.Event) -> Image | None:
        log.warning("%s stopped sending; opening it again", self._name)
        for delay in RECONNECT_DELAYS_S:
            self.close()
            if stop.wait(delay):
                return None
            self._connection = self._reopen()
            image = self._next()
            if image is not None:
                log.warning("%s is back", self._name)
                self.reconnects += 1
                return image
        raise SourceError(
            f"{self._name} stopped sending and did not come back in {len(RECONNECT_DELAYS_S)} attempts",
            "check its power and its connection",
        )


def check_size(frame: Frame, size: tuple[int, int], name: str) -> None:
    """Make sure that a frame has the size (H, W) of the first.

    Raises:
        SourceError: when it has not.
    """
    now = size_of(frame.image)
    if now != size:
        raise SourceError(
            f"{name} changes from {pixels(size)} to {pixels(now)} pixels at frame {frame.index}",
            f"cut it there, or scale it: ffmpeg -i IN -vf scale={size[1]}:{size[0]} OUT.mp4",
        )


def size_of(image: Image) -> tuple[int, int]:
    """(H, W) of an image."""
    return image.shape[0], image.shape[1]
