"""A disk cache of decoded frames, so that a resumed run or the next one does not decode again."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..common.errors import OutputError
from ..common.files import atomic_path, caching, remove_abandoned

SUFFIX = ".frames"
MAGIC = b"MRFRAME1"
HEAD = struct.Struct("<8sI")  # magic, checksum of the rest
COUNT = struct.Struct("<I")  # number of frames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """Consecutive frames of a clip.

    Attributes:
        frames: JPEG files.
        scenes: positions at which a scene begins, ascending.
    """

    frames: tuple[bytes, ...]
    scenes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(map(len, self.frames))

    def to_bytes(self) -> bytes:
        """Serialize: magic, checksum, number of frames, their lengths, scene marks, frames."""
        lengths = np.array([len(frame) for frame in self.frames], "<u4")
        begins = np.zeros(len(self.frames), np.uint8)
        begins[list(self.scenes)] = 1
        body = b"".join([COUNT.pack(len(self.frames)), lengths.tobytes(), begins.tobytes(), *self.frames])
        return HEAD.pack(MAGIC, zlib.crc32(body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Segment | None:
        """Deserialize; None when the data is damaged or of another kind."""
        if len(data) < HEAD.size:
            return None
        magic, checksum = HEAD.unpack_from(data)
        if magic != MAGIC or zlib.crc32(memoryview(data)[HEAD.size :]) != checksum:
            return None
        start = HEAD.size + COUNT.size
        count = COUNT.unpack_from(data, HEAD.size)[0] if len(data) >= start else 0
        if not 0 < count <= (len(data) - start) // 5:  # each frame has a length and a scene mark
            return None
        lengths = np.frombuffer(data, "<u4", count, start)
        begins = np.frombuffer(data, np.uint8, count, start + lengths.nbytes)
        ends = start + 5 * count + np.cumsum(lengths, dtype=np.int64)
        if ends[-1] != len(data):
            return None
        frames = tuple(data[end - length : end] for end, length in zip(ends, lengths, strict=True))
        return cls(frames, tuple(np.flatnonzero(begins).tolist()))


class FrameCache:
    """Segments by key, one file each; several processes may share the folder.

    Files have a checksum and are renamed into place when complete. To make room, the least recently used files are
    removed, except those used since this cache was opened: windows are drawn at random, so decoding again
    costs less than writing again. When the disk is full or not writable, the cache logs one warning and stops
    writing.

    Args:
        folder: of the files; made when the first one is written.
        budget: limit for the size of all files in the folder, in bytes; 0 for no cache.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder, self._budget = folder, budget
        self._opened = time.time()
        self._writes = budget > 0

    def load(self, key: str) -> Segment | None:
        """The segment stored under ``key``, None when there is none. A damaged file is removed."""
        path = self._path(key)
        if self._budget <= 0:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        segment = Segment.from_bytes(data)
        with contextlib.suppress(OSError):  # another process may have removed or own it
            if segment is None:
                path.unlink()
            else:
                os.utime(path)
        return segment

    def store(self, key: str, segment: Segment) -> None:
        """Store ``segment`` under ``key`` if it fits into the budget."""
        if not self._writes:
            return
        data = segment.to_bytes()
        try:
            remove_abandoned(self._folder)
            if self._make_room(len(data)):
                path = self._path(key)
                with caching(path), atomic_path(path) as partial:
                    partial.write_bytes(data)
        except OutputError as error:
            self._writes = False
            log.warning(
                "decoded frames are not cached: %s; training continues without the cache", error.problem
            )

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _make_room(self, size: int) -> bool:
        files = []
        for path in self._folder.glob(f"*{SUFFIX}"):  # includes partial files
            with contextlib.suppress(OSError):
                state = path.stat()
                files.append((state.st_mtime, state.st_size, path))
        total = sum(file_size for _, file_size, _ in files)
        for used, file_size, path in sorted(files):
            if total + size <= self._budget or used >= self._opened:
                break
            if not path.name.startswith("."):  # another process is writing it
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= file_size
        return total + size <= self._budget
