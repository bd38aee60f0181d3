"""Folders of frames: which files are frames, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container
from pathlib import Path

from ...common.errors import SourceError

VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".dv", ".flv", ".gif", ".ivf", ".m2ts", ".m2v", ".m4v", ".mkv"),
        *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
        ".y4m",
    )
)
"""Suffixes by which videos are found in folders; a video given by name may have any."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes by which frames are found in folders."""

PROJECT_SUFFIX = ".maskring"
"""Ending of the folders that ``maskring studio`` keeps beside clips: they hold masks, no footage."""

IMAGES = "JPEGImages"  # DAVIS and YouTube-VOS have it beside folders of labels
LABELS = ("Annotations", "Scribbles")  # beginnings of those folders' names
RESOLUTIONS = ("480p", "Full-Resolution")
"""Of DAVIS, which has all sequences in each. The benchmark uses 480p; others follow in alphabetical order."""

_NUMBER = re.compile(r"%(?:0([0-9]+))?d")


def images_in(folder: Path, suffixes: Container[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images of a folder in natural order, without hidden files.

    Args:
        folder: the folder.
        suffixes: of images, in lower case.

    Raises:
        OSError: when the folder cannot be read.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key that reads digits as numbers: frame2 comes before frame10. The name decides between equals."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    numbers = tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts if part)
    return numbers, path.name


def find_clips(root: Path) -> list[Path]:
    """Videos and folders of frames in ``root``, at any depth, in a fixed order.

    Labels of DAVIS and YouTube-VOS, projects of Studio, hidden files and hidden folders are left out. Of the
    resolutions of DAVIS one is taken.

    Raises:
        SourceError: when ``root`` does not exist or holds no clip.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise SourceError(f"{root} does not exist", "check the path")
    found = []
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = _entered(folder, folders)
        visible = [folder / file for file in files if not file.startswith(".")]
        found += [path for path in visible if _is_video(path)]
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in visible):
            found.append(folder)
    if not found:
        raise SourceError(
            f"{root} holds neither videos nor folders of images", "name a folder with your footage"
        )
    return sorted(found)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES and (suffix != ".ts" or not _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether a file is text: programs in TypeScript have the suffix of transport streams."""
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(4096)
    except OSError:
        return False


def _entered(folder: Path, names: list[str]) -> list[str]:
    """Those of a folder's folders that may hold footage."""
    if folder.name == IMAGES:
        names = next(([wanted] for wanted in RESOLUTIONS if wanted in names), names)
    if IMAGES in names:
        names = [name for name in names if not name.startswith(LABELS)]
    return [name for name in names if not name.startswith(".") and not name.endswith(PROJECT_SUFFIX)]


def is_pattern(path: Path) -> bool:
    """Whether a path names images by their number, as FFmpeg does: ``frames/left_%05d.png``."""
    return path.suffix.lower() in IMAGE_SUFFIXES and len(_NUMBER.findall(path.name)) == 1


def frames_in(folder: Path, ignored: Collection[Path] = ()) -> list[Path]:
    """The frames of a folder in natural order.

    Args:
        folder: the folder, or a pattern (:func:`is_pattern`), which takes some of a folder's images.
        ignored: images in it that are no frames.

    Raises:
        SourceError: when there is no image, or two have the same name without suffix, so that their masks
            would collide.
    """
    pattern = folder.name if is_pattern(folder) and not folder.is_dir() else None
    if pattern is not None:
        folder = folder.parent
    try:
        others = {path.resolve() for path in ignored}
        paths = [path for path in images_in(folder) if not others or path.resolve() not in others]
    except OSError as error:
        raise SourceError(f"{folder} cannot be read ({error.strerror})", "check its permissions") from error
    if pattern is not None:
        paths = [path for path in paths if _matches(pattern, path.name)]
        if not paths:
            raise SourceError(
                f"{folder} holds no image that is named like {pattern}",
                "check the pattern; %05d is a number of five digits, %d one of any length",
            )
    if not paths:
        raise SourceError(f"{folder} holds no image (jpg, png, bmp, webp, tiff)", _nearby_images(folder))
    names: dict[str, Path] = {}
    for path in paths:
        twin = names.setdefault(path.stem, path)
        if twin is not path:
            raise SourceError(
                f"{folder} holds both {twin.name} and {path.name}, whose masks would have the same name",
                "keep frames and other images in folders of their own",
            )
    return paths


def _matches(pattern: str, name: str) -> bool:
    before, digits, after = _NUMBER.split(pattern)
    number = f"[0-9]{{{int(digits or 1)},}}"
    return re.fullmatch(re.escape(before) + number + re.escape(after), name) is not None


def _nearby_images(folder: Path) -> str:
    """The remedy for a folder without images: it names a video, or a sequence of a dataset."""
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
