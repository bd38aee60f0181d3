"""Unlabelled clips: any mix of video files and folders of frames, decoded when they are first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..plugins.errors import SourceError

Image = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".y4m"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}

SEGMENT = 256  # frames decoded together: bounds the memory of long videos and the cost of reaching a window
ATTEMPTS = 50  # unusable picks in a row after which the data is declared unusable
CACHE_BYTES = 2 << 30
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


@dataclass(frozen=True)
class Window:
    """Consecutive views of one clip.

    Attributes:
        frames: F images [H, W, 3] uint8 RGB.
        clip: where they come from.
        indices: their positions in the clip.
    """

    frames: list[Image]
    clip: Path
    indices: tuple[int, ...]


def find_clips(root: Path) -> list[Path]:
    """Video files and folders of images in ``root``, at any depth, in a fixed order.

    Raises:
        SourceError: when ``root`` does not exist or holds no clip.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise SourceError(f"the training data {root} does not exist", "check the path")
    found = set()
    for path in root.rglob("*"):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            found.add(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.add(path.parent)
    if not found:
        raise SourceError(
            f"{root} holds neither videos nor folders of images", "name a folder with your footage"
        )
    return sorted(found)


class ClipLibrary:
    """Random windows from many clips.

    Decoded frames are kept as JPEG, at the size training needs, up to ``cache_bytes``; the least recently
    used segment makes room. A clip that cannot be decoded is remembered in ``skipped`` and not tried again.
    """

    def __init__(self, roots: Sequence[Path], short_side: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.clips = sorted({clip for root in roots for clip in find_clips(root)})
        self.skipped: dict[Path, str] = {}
        self._short_side = short_side
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._lengths: dict[Path, int] = {}
        self._segments: OrderedDict[tuple[Path, int], list[bytes]] = OrderedDict()

    def window(self, rng: np.random.Generator, frames: int, max_gap: int) -> Window:
        """``frames`` views of a random clip, neighbours 1 to ``max_gap`` frames apart.

        Every clip is equally likely, whatever its length. The result depends on ``rng`` and the files alone.

        Raises:
            SourceError: when no usable clip is found.
        """
        for _ in range(ATTEMPTS):
            clip = self.clips[int(rng.integers(len(self.clips)))]
            segment, place = rng.random(2)
            gaps = rng.integers(1, max_gap + 1, frames - 1)
            if clip in self.skipped:
                continue
            try:
                return self._cut(clip, segment, place, gaps)
            except SourceError as error:
                self.skipped[clip] = error.problem
        raise SourceError(
            f"{len(self.skipped)} of {len(self.clips)} clips are unusable ({_first(self.skipped)})",
            "replace them by videos that play, longer than a few frames",
        )

    def _cut(self, clip: Path, segment: float, place: float, gaps: npt.NDArray[np.int64]) -> Window:
        if clip not in self._lengths:
            self._lengths[clip] = count_frames(clip)
        # The last segment takes the remainder, so that none is too short for a window.
        index = int(segment * max(1, self._lengths[clip] // SEGMENT))
        stored = self._segment(clip, index)
        if len(stored) <= len(gaps):
            raise SourceError(f"{clip} has too few frames that decode", "use a longer clip")
        if len(stored) <= gaps.sum():
            gaps = np.ones_like(gaps)
        start = int(place * (len(stored) - gaps.sum()))
        positions = np.concatenate([[start], start + np.cumsum(gaps)])
        frames = [_decode(stored[position]) for position in positions]
        return Window(frames, clip, tuple(int(p) + index * SEGMENT for p in positions))

    def _segment(self, clip: Path, index: int) -> list[bytes]:
        if (clip, index) in self._segments:
            self._segments.move_to_end((clip, index))
            return self._segments[clip, index]
        is_last = index + 1 >= self._lengths[clip] // SEGMENT
        count = 2 * SEGMENT if is_last else SEGMENT
        stored = [_encode(image, self._short_side) for image in read_frames(clip, index * SEGMENT, count)]
        self._segments[clip, index] = stored
        self._cached += sum(map(len, stored))
        while self._cached > self._cache_bytes and len(self._segments) > 1:
            _, dropped = self._segments.popitem(last=False)
            self._cached -= sum(map(len, dropped))
        return stored


def _first(skipped: dict[Path, str]) -> str:
    return next(iter(skipped.values()), "none was tried")


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _open(clip: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(clip))
    if not capture.isOpened():
        raise SourceError(f"{clip} is not a video that can be decoded", "replace or remove it")
    return capture


def count_frames(clip: Path) -> int:
    """Frames that ``clip`` announces; what decodes may be fewer.

    Raises:
        SourceError: when it cannot be opened.
    """
    if clip.is_dir():
        return len(_images(clip))
    capture = _open(clip)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(count, 0)


def read_frames(clip: Path, start: int, count: int) -> list[Image]:
    """Up to ``count`` frames [H, W, 3] uint8 BGR from position ``start``: all that decode, in order.

    Raises:
        SourceError: when a video cannot be opened or an image cannot be decoded.
    """
    if clip.is_dir():
        return [_read_image(path) for path in _images(clip)[start : start + count]]
    capture = _open(clip)
    if start:
        capture.set(cv2.CAP_PROP_POS_FRAMES, start)
    frames: list[Image] = []
    while len(frames) < count:
        decoded, image = capture.read()
        if not decoded:
            break
        frames.append(image.astype(np.uint8, copy=False))
    capture.release()
    return frames


def _read_image(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path} is not an image that can be decoded", "replace or remove it")
    return image.astype(np.uint8, copy=False)


def _encode(image: Image, short_side: int) -> bytes:
    scale = short_side / min(image.shape[:2])
    size = (max(short_side, round(image.shape[1] * scale)), max(short_side, round(image.shape[0] * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = image if scale == 1 else cv2.resize(image, size, interpolation=kind)
    return bytes(cv2.imencode(".jpg", resized, JPEG)[1])


def _decode(stored: bytes) -> Image:
    return _rgb(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR))


def _rgb(image: Any) -> Image:
    converted: Any = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(converted, np.uint8)
