"""The frames of a clip in any order, exactly as the tracker sees them.

Containers do not seek exactly, so a video is decoded once, in order, into a folder of bitmaps in the cache. PNGs would
take two thirds of the space, and 10 ms of each frame's tracking. A folder of images is read where it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..common.errors import OutputError, SourceError
from ..common.files import atomic_path, cache_directory, make_directory
from ..common.types import Image, Labels
from ..runtime.video.folders import frames_in
from ..runtime.video.frame import Frame
from ..runtime.video.images import read_image
from ..runtime.video.open_source import open_source
from ..runtime.video.source import Source

MANIFEST = "frames.json"

SUFFIX = ".bmp"
"""Of cached frames."""

PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]

DISPLAY_QUALITY = 92
THUMBNAIL_HEIGHT = 72

FINGERPRINT_BYTES = 1 << 16
"""Of the first and of the last file."""

WAITING_STEP_S = 0.5
"""After so long without a new frame, whoever waits for one looks whether to stop."""

UNUSED_DAYS = 30
"""Cached frames that nobody opened for so long are removed."""

DISK_MARGIN = 1 << 30
"""Bytes that decoding leaves free on the disk."""


@dataclass(frozen=True)
class Shot:
    """One frame of a clip: its number, time and name (as in :class:`Frame`), and its file."""

    index: int
    timestamp: float
    name: str
    path: Path


class FrameStore:
    """Frames by number. Frames can be read while later ones are still being decoded.

    Args:
        source: a video file or a folder of images.
        first, last: the first and the last frame of it, as of ``maskring track``.

    Attributes:
        fps: frames per second, by the source's own account.
        size: (H, W) in pixels.
        expected: number of frames, by the source's own account until all are decoded.
        complete: all frames are there.

    Raises:
        SourceError: when the source cannot be opened or has no end.
    """

    def __init__(self, source: Path, first: int = 0, last: int | None = None) -> None:
        self._source, self._first, self._last = source, first, last
        self._shots: dict[int, Shot] = {}
        self._lock = threading.Condition()  # notified of each new frame
        self.complete = self._over = False
        if source.is_dir():
            self._read_folder()
            return
        self._folder = cache_directory() / "studio" / self._digest()
        if (self._folder / MANIFEST).is_file():
            self._read_manifest()
            return
        with open_source(source, first=first, last=last) as opened:
            if opened.length is None:
                raise SourceError(f"{source} has no end", "give a camera by its number or address instead")
            self.fps, self.size, self.expected = opened.fps, opened.size, opened.length

    @property
    def indices(self) -> list[int]:
        """Numbers of the frames that are there, ascending; damaged frames leave gaps."""
        with self._lock:
            return list(self._shots)

    def image(self, index: int) -> Image:
        """[H, W, 3] uint8 RGB of a frame.

        Raises:
            SourceError: when there is no such frame (yet).
        """
        return read_image(self._shot(index).path)

    def frame(self, index: int) -> Frame:
        """A frame as sources yield it."""
        shot = self._shot(index)
        return Frame(read_image(shot.path), shot.index, shot.timestamp, shot.name)

    def name(self, index: int) -> str:
        """The name of a frame's mask, without suffix."""
        return self._shot(index).name

    def fingerprint(self) -> str:
        """Tells this source from another one of its name, wherever it lies and whenever it was copied.

        Raises:
            SourceError: when it cannot be read.
        """
        files = frames_in(self._source) if self._source.is_dir() else [self._source]
        digest = hashlib.sha256()
        try:
            for path in (files[0], files[-1]):
                with path.open("rb") as file:
                    digest.update(file.read(FINGERPRINT_BYTES))
            return f"{len(files)}-{sum(path.stat().st_size for path in files)}-{digest.hexdigest()[:16]}"
        except OSError as error:
            raise SourceError(
                f"{self._source} cannot be read ({error.strerror})", "check the file"
            ) from error

    def open(self, indices: Sequence[int]) -> Source:
        """These frames as a source, in this order; a thread reads ahead."""
        return Source(_StoreReader(self, lambda stop: iter(indices), len(indices)))

    def open_from(self, first: int) -> Source:
        """The frames from ``first`` on as a source, those included that are still to be decoded."""
        return Source(_StoreReader(self, lambda stop: self._numbers_from(first, stop), None))

    def _numbers_from(self, first: int, stop: threading.Event) -> Iterator[int]:
        number: int | None = first
        while number is not None:
            yield number
            number = self._after(number, stop)

    def _after(self, index: int, stop: threading.Event) -> int | None:
        """The number of the next frame, None for none. Waits while it is being decoded."""
        with self._lock:
            while not stop.is_set():
                following = next((number for number in self._shots if number > index), None)
                if following is not None or self._over:
                    return following
                self._lock.wait(WAITING_STEP_S)
        return None

    def decode(self, on_frame: Callable[[int], None], stop: threading.Event) -> None:
        """Decode a video into the cache; nothing to do where that is done.

        Args:
            on_frame: called with the number of each new frame.
            stop: set to end early; the next call begins anew.

        Raises:
            SourceError: when a frame cannot be read.
            OutputError: when the disk is full.
        """
        try:
            self._decode(on_frame, stop)
        finally:
            with self._lock:
                self._over = True
                self._lock.notify_all()

    def _decode(self, on_frame: Callable[[int], None], stop: threading.Event) -> None:
        if self.complete:
            return
        _remove_unused(make_directory(self._folder.parent))
        make_directory(self._folder)
        with open_source(self._source, first=self._first, last=self._last) as source:
            for frame in source:
                if stop.is_set():
                    return
                self._add(frame)
                on_frame(frame.index)
        self._finish()

    def _add(self, frame: Frame) -> None:
        if shutil.disk_usage(self._folder).free < DISK_MARGIN:
            raise OutputError(
                f"the disk of {self._folder} has less than 1 GB left for the frames of {self._source.name}",
                "free some space, set MASKRING_CACHE to another disk, or open a part: --from FRAME --to FRAME",
            )
        path = self._folder / f"{frame.index:06d}{SUFFIX}"
        with atomic_path(path) as partial:
            partial.write_bytes(cv2.imencode(SUFFIX, frame.image[..., ::-1])[1].tobytes())
        with self._lock:
            self._shots[frame.index] = Shot(frame.index, frame.timestamp, frame.name, path)
            self._lock.notify_all()

    def _finish(self) -> None:
        """Write the manifest, which marks a folder as complete."""
        record = {
            "source": str(self._source),
            "fps": self.fps,
            "size": self.size,
            "frames": [[shot.index, shot.timestamp, shot.name] for shot in self._shots.values()],
        }
        with atomic_path(self._folder / MANIFEST) as partial:
            partial.write_text(json.dumps(record), encoding="utf-8")
        self.expected, self.complete = len(self._shots), True

    def _read_manifest(self) -> None:
        record: dict[str, Any] = json.loads((self._folder / MANIFEST).read_text(encoding="utf-8"))
        shots = {
            index: Shot(index, timestamp, name, self._folder / f"{index:06d}{SUFFIX}")
            for index, timestamp, name in record["frames"]
        }
        with self._lock:
            self.fps, self.size = record["fps"], (record["size"][0], record["size"][1])
            self._shots, self.expected, self.complete = shots, len(shots), True
        (self._folder / MANIFEST).touch()  # in use: see _remove_unused

    def _read_folder(self) -> None:
        with open_source(self._source, first=self._first, last=self._last) as opened:
            self.fps, self.size = opened.fps, opened.size
        for index, path in enumerate(frames_in(self._source)):
            if self._first <= index and (self._last is None or index <= self._last):
                self._shots[index] = Shot(index, index / self.fps, path.stem, path)
        self.expected, self.complete = len(self._shots), True

    def _digest(self) -> str:
        status = self._source.stat()
        told = [
            str(self._source.resolve()),
            status.st_size,
            status.st_mtime_ns,
            self._first,
            self._last,
            SUFFIX,
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]

    def _shot(self, index: int) -> Shot:
        with self._lock:
            shot = self._shots.get(index)
        if shot is None:
            raise SourceError(f"{self._source.name} has no frame {index}", "choose another frame")
        return shot


class _StoreReader:
    """Reads given frames of a store in a given order (:class:`maskring.runtime.video.readers.Reader`)."""

    endless, counted = False, True
    undecodable = reconnects = 0

    def __init__(
        self, store: FrameStore, numbers: Callable[[threading.Event], Iterator[int]], length: int | None
    ) -> None:
        self._store, self._numbers = store, numbers
        self.fps, self.size, self.length = store.fps, store.size, length

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The frames; ends early when ``stop`` is set.

        Raises:
            SourceError: when an image of a folder has another size than the first.
        """
        for index in self._numbers(stop):
            if stop.is_set():
                return
            frame = self._store.frame(index)
            if frame.image.shape[:2] != self.size:
                raise SourceError(f"frame {frame.name} has another size", "resize all frames to one size")
            yield frame

    def close(self) -> None:
        """Nothing is held open."""


def display_jpeg(image: Image) -> bytes:
    """A frame for the player."""
    return jpeg(image, DISPLAY_QUALITY)


def thumbnail(image: Image) -> bytes:
    """A small JPEG for the timeline."""
    height, width = image.shape[:2]
    size = max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT
    return jpeg(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), 80)


def exact_png(image: Image) -> bytes:
    """A frame without loss, for looking at single pixels."""
    return bytes(cv2.imencode(".png", image[..., ::-1], PNG_SETTINGS)[1].tobytes())


def mask_png(labels: Labels) -> bytes:
    """A grey PNG whose values are object ids."""
    return bytes(cv2.imencode(".png", labels, PNG_SETTINGS)[1].tobytes())


def jpeg(image: Image, quality: int) -> bytes:
    """A frame at a quality of 1 to 100."""
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def _remove_unused(cache: Path) -> None:
    """Remove frames that were not used for :data:`UNUSED_DAYS`, and what an unfinished decoding left a day ago."""
    for folder in cache.iterdir():
        manifest = folder / MANIFEST
        days, used = (UNUSED_DAYS, manifest) if manifest.is_file() else (1, folder)
        if folder.is_dir() and used.stat().st_mtime < time.time() - days * 86400:
            shutil.rmtree(folder, ignore_errors=True)
