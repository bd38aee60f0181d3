"""Random photographs, to learn from where footage has too few scenes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..common.errors import SourceError
from ..common.types import Image
from ..runtime.arrays.resizing import scaled_to
from ..runtime.video.folders import IMAGE_SUFFIXES
from ..runtime.video.images import read_image
from .clips import MAX_ATTEMPTS, decode_jpeg, encode_jpeg

MEMORY_BYTES = 5 * 10**8


class StillLibrary:
    """Random photographs, each equally likely.

    Photographs are decoded when they are first drawn and kept in memory as JPEG, at the size that training
    needs. Files that cannot be decoded are listed in ``skipped``.

    Args:
        folders: folders with photographs, at any depth; hidden files are ignored.
        short_side: height or width of a photograph, whichever is shorter, in pixels.
        memory_bytes: limit of the photographs in memory; one always stays.

    Raises:
        SourceError: when a folder does not exist or holds no photographs.
    """

    def __init__(self, folders: Sequence[Path], short_side: int, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.paths = [path for folder in folders for path in _images_below(folder)]
        self.skipped: dict[Path, str] = {}
        self._short_side = short_side
        self._memory_bytes, self._held = memory_bytes, 0
        self._jpegs: OrderedDict[Path, bytes] = OrderedDict()

    def draw(self, rng: np.random.Generator) -> Image:
        """A random photograph, [H, W, 3] uint8 RGB, which depends on ``rng`` and the files only.

        Raises:
            SourceError: when no photograph can be decoded.
        """
        for _ in range(MAX_ATTEMPTS):
            path = self.paths[int(rng.integers(len(self.paths)))]
            if path in self.skipped:
                continue
            try:
                return decode_jpeg(self._jpeg(path))
            except SourceError as error:
                self.skipped[path] = error.problem
        raise SourceError(
            f"no usable photograph was found: {len(self.skipped)} of {len(self.paths)} are unusable "
            f"({next(iter(self.skipped.values()))})",
            "replace them by photographs that can be decoded",
        )

    def _jpeg(self, path: Path) -> bytes:
        if path not in self._jpegs:
            self._jpegs[path] = encode_jpeg(scaled_to(read_image(path), self._short_side))
            self._held += len(self._jpegs[path])
            while self._held > self._memory_bytes and len(self._jpegs) > 1:
                self._held -= len(self._jpegs.popitem(last=False)[1])
        return self._jpegs[path]


def _images_below(folder: Path) -> list[Path]:
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not images:
        raise SourceError(f"{folder} holds no photographs", "name a folder of images with --stills")
    return images
