"""Random windows of unlabelled clips: videos, folders of frames and datasets, decoded on first use."""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..common.errors import SourceError
from ..common.files import cache_directory
from ..common.types import Image
from ..runtime.arrays.resizing import scaled_to
from ..runtime.video.containers import frame_count, open_file, video_stream
from ..runtime.video.decoding import Decoder
from ..runtime.video.folders import find_clips, images_in
from ..runtime.video.images import read_image
from .frame_cache import FrameCache, Segment
from .scene_cuts import scene_starts, thumbnail

SEGMENT = 256
"""Frames that are decoded together: bounds the memory of long videos and the cost of reaching a window."""

MAX_ATTEMPTS = 1000
"""Unusable picks in a row after which the data is declared unusable."""

CACHE_BYTES, MEMORY_BYTES = 8 * 10**9, 10**9
"""Default limits of the caches on disk and in memory."""

JPEG_QUALITY = 95

DECODER = "FFmpeg by PyAV"
"""Part of the names of cached frames: those that another decoder left are not taken."""


@dataclass(frozen=True)
class ClipWindow:
    """Some frames of one clip, in order.

    Attributes:
        frames: F images [H, W, 3] uint8 RGB.
        clip: the clip they come from.
        indices: their positions in the clip.
    """

    frames: list[Image]
    clip: Path
    indices: tuple[int, ...]


class ClipLibrary:
    """Random windows from many clips.

    Frames are stored as JPEG at the size that training needs: on disk for the next run, and the most recently
    used ones in memory. Clips that cannot be decoded, wholly or in part, are listed in ``skipped``.

    Args:
        paths: videos, folders of frames, and folders with either at any depth (:func:`find_clips`).
        short_side: height or width of stored frames, whichever is shorter, in pixels.
        cache_bytes: limit of the disk cache, the folder ``frames`` in maskring's cache folder; 0 for none.
        memory_bytes: limit of stored frames in memory; one segment always stays.

    Raises:
        SourceError: when a path does not exist or holds no clips.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        short_side: int,
        *,
        cache_bytes: int = CACHE_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        once = {clip.resolve(): clip for path in paths for clip in find_clips(path)}
        self.clips = sorted(once.values())
        self.skipped: dict[Path, str] = {}
        self._short_side = short_side
        self._cache = FrameCache(cache_directory() / "frames", cache_bytes)
        self._memory_bytes, self._held = memory_bytes, 0
        self._lengths: dict[Path, int] = {}
        self._identities: dict[Path, str] = {}
        self._segments: OrderedDict[tuple[Path, int], Segment] = OrderedDict()
        self._unusable: dict[tuple[Path, int], SourceError] = {}

    def window(self, rng: np.random.Generator, frames: int, max_gap: int) -> ClipWindow:
        """``frames`` frames of a random scene, neighbours 1 to ``max_gap`` frames apart.

        Every clip is equally likely, whatever its length. The result depends on ``rng`` and the files only,
        not on earlier calls or the caches.

        Raises:
            SourceError: when no usable clip is found.
        """
        for _ in range(MAX_ATTEMPTS):
            clip = self.clips[int(rng.integers(len(self.clips)))]
            segment, place = rng.random(2)
            gaps = rng.integers(1, max_gap + 1, frames - 1)
            try:
                return self._cut(clip, segment, place, gaps)
            except SourceError as error:
                self.skipped.setdefault(clip, error.problem)
            except OSError as error:
                self.skipped.setdefault(clip, f"{clip} cannot be read ({error.strerror or error})")
        raise SourceError(
            f"no usable clip was found: {len(self.skipped)} of {len(self.clips)} are unusable "
            f"({_first(self.skipped)})",
            "give videos that play and have more than a few frames",
        )

    def _cut(self, clip: Path, segment: float, place: float, gaps: npt.NDArray[np.int64]) -> ClipWindow:
        # The last segment takes the remainder, so that none is too short for a window.
        index = int(segment * max(1, self._length(clip) // SEGMENT))
        stored = self._segment(clip, index)
        starts = _starts(stored, int(gaps.sum()))
        if not starts:
            gaps = np.ones_like(gaps)
            starts = _starts(stored, len(gaps))
        if not starts:
            raise SourceError(f"{clip} has too few frames in a row that decode", "use a longer clip")
        positions = starts[int(place * len(starts))] + np.concatenate([[0], np.cumsum(gaps)])
        frames = [decode_jpeg(stored.frames[position]) for position in positions]
        return ClipWindow(frames, clip, tuple(int(p) + index * SEGMENT for p in positions))

    def _length(self, clip: Path) -> int:
        if clip not in self._lengths:
            try:
                self._lengths[clip] = count_frames(clip)
            except SourceError as error:
                self._lengths[clip] = 0
                self._unusable[clip, 0] = error
        return self._lengths[clip]

    def _segment(self, clip: Path, index: int) -> Segment:
        """A segment from memory, else from disk, else decoded; one that failed once is not tried again."""
        if (clip, index) in self._unusable:
            raise self._unusable[clip, index]
        if (clip, index) in self._segments:
            self._segments.move_to_end((clip, index))
            return self._segments[clip, index]
        key = self._key(clip, index)
        segment = self._cache.load(key)
        if segment is None:
            try:
                segment = self._decoded(clip, index)
            except SourceError as error:
                self._unusable[clip, index] = error
                raise
            if segment.frames:
                self._cache.store(key, segment)
        self._hold(clip, index, segment)
        return segment

    def _hold(self, clip: Path, index: int, segment: Segment) -> None:
        self._segments[clip, index] = segment
        self._held += segment.size
        while self._held > self._memory_bytes and len(self._segments) > 1:
            _, dropped = self._segments.popitem(last=False)
            self._held -= dropped.size

    def _decoded(self, clip: Path, index: int) -> Segment:
        is_last = index + 1 >= self._lengths[clip] // SEGMENT
        count = 2 * SEGMENT if is_last else SEGMENT
        frames, thumbnails, cuts, shape = [], [], {0}, None
        for image in read_frames(clip, index * SEGMENT, count):
            if shape is not None and image.shape != shape:
                cuts.add(len(frames))  # frames of a window have one size
            shape = image.shape
            smaller = scaled_to(image, self._short_side)
            frames.append(encode_jpeg(smaller))
            thumbnails.append(thumbnail(smaller))
        scenes = cuts.union(scene_starts(thumbnails)) if frames else set()
        return Segment(tuple(frames), tuple(sorted(scenes)))

    def _key(self, clip: Path, index: int) -> str:
        if clip not in self._identities:
            self._identities[clip] = _identity(clip)
        settings = (DECODER, self._identities[clip], index, self._short_side, SEGMENT, JPEG_QUALITY)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:32]


def _starts(segment: Segment, span: int) -> list[int]:
    """Positions from which a window of ``span`` further frames stays within one scene."""
    ends = [*segment.scenes[1:], len(segment.frames)]
    pairs = zip(segment.scenes, ends, strict=False)
    return [start for begin, end in pairs for start in range(begin, end - span)]


def _first(skipped: dict[Path, str]) -> str:
    return next(iter(skipped.values()), "none was tried")


def _identity(clip: Path) -> str:
    """Paths, sizes and modification times of all files of a clip."""
    files = images_in(clip) if clip.is_dir() else [clip]
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return repr((str(clip.resolve()), states))


def count_frames(clip: Path) -> int:
    """The number of frames that ``clip`` claims to have; fewer may decode.

    Raises:
        SourceError: when it cannot be opened.
    """
    if clip.is_dir():
        return len(images_in(clip))
    container = open_file(clip)
    with contextlib.closing(container):
        return frame_count(container, video_stream(container, str(clip))) or 0


def read_frames(clip: Path, start: int, count: int) -> Iterator[Image]:
    """Up to ``count`` frames [H, W, 3] uint8 RGB from position ``start``, as far as they decode.

    Raises:
        SourceError: when a video cannot be opened or an image cannot be decoded.
    """
    if clip.is_dir():
        yield from map(read_image, islice(images_in(clip), start, start + count))
        return
    container = open_file(clip)
    with contextlib.closing(container):
        decoder = Decoder(container, str(clip))
        if start:
            decoder.seek(start)
        yield from (frame.image for frame in islice(decoder.frames(), count))


def encode_jpeg(image: Image) -> bytes:
    """JPEG data of an image [H, W, 3] uint8 RGB."""
    swapped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def decode_jpeg(stored: bytes) -> Image:
    """The image in JPEG data, [H, W, 3] uint8 RGB."""
    decoded: Any = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
