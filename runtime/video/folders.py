"""Folders of frames: which files are frames, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import Path

from ...common.errors import SourceError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".y4m"})
"""By which videos are found in folders; one that is named may have any."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""By which frames are found in folders."""

IMAGES = "JPEGImages"  # DAVIS and YouTube-VOS have it beside folders of labels
LABELS = ("Annotations", "Scribbles")  # beginnings of those folders' names
RESOLUTIONS = ("480p", "Full-Resolution")  # of DAVIS, which has all sequences in each; best first


def images_in(folder: Path, suffixes: Container[str] = IMAGE_SUFFIXES) -> list[Path]:
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


def find_clips(root: Path) -> list[Path]:
    """Videos and folders of frames in ``root``, at any depth, in a fixed order.

    Labels of DAVIS and YouTube-VOS are passed over; of the resolutions of DAVIS, one is taken. Hidden files
    and folders are passed over, too.

    Raises:
        SourceError: when ``root`` does not exist or holds no clip.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise SourceError(f"the training data {root} does not exist", "check the path")
    found = []
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = _entered(folder, folders)
        visible = [folder / file for file in files if not file.startswith(".")]
        found += [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in visible):
            found.append(folder)
    if not found:
        raise SourceError(
            f"{root} holds neither videos nor folders of images", "name a folder with your footage"
        )
    return sorted(found)


def _entered(folder: Path, names: list[str]) -> list[str]:
    """Those of a folder's folders that may hold footage."""
    if folder.name == IMAGES:
        names = next(([wanted] for wanted in RESOLUTIONS if wanted in names), names)
    if IMAGES in names:
        names = [name for name in names if not name.startswith(LABELS)]
    return [name for name in names if not name.startswith(".")]


def frames_in(folder: Path) -> list[Path]:
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
