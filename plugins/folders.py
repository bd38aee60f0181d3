"""Folders of frames: which files are frames, and in which order."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".y4m"})
"""By which videos are found in folders; one that is named may have any."""


def images_in(folder: Path, suffixes: Container[str]) -> list[Path]:
    """The images of a folder in natural order, hidden files passed over.

    Args:
        folder: holds one image per frame.
        suffixes: of images, in lower case.

    Raises:
        OSError: when the folder cannot be read.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key that takes digits as numbers: frame2 comes before frame10. Of equals, the name decides."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    numbers = tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts if part)
    return numbers, path.name
