"""The clips below the folder that was opened. Nothing outside of it can be named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import SourceError
from ..runtime.video.folders import PROJECT_SUFFIX, find_clips, images_in


@dataclass(frozen=True)
class Clip:
    """A video, or a folder of frames.

    Attributes:
        id: names it in addresses.
        name: path below the opened folder, for people: bytes that are no text are replaced.
        source: the file or folder.
    """

    id: str
    name: str
    source: Path

    @property
    def project(self) -> Path:
        """The folder of its project, beside it."""
        return self.source.parent / f"{self.source.name}{PROJECT_SUFFIX}"


def is_stream(source: str) -> bool:
    """Whether a source is a camera, an address or a pipeline: something that plays once, as it comes."""
    path = Path(source)
    if path.exists():
        return path.is_char_device()
    return source.isdecimal() or "://" in source or " ! " in source


def clips_in(root: Path) -> list[Clip]:
    """The clips that a path gives: itself when it is one, else those below it.

    Raises:
        SourceError: when there is none.
    """
    root = root.absolute()
    if not root.exists():
        raise SourceError(f"{root} does not exist", "check the path")
    if not root.is_dir() or images_in(root):
        return [_clip(root, root.name)]
    return [_clip(path, str(path.relative_to(root))) for path in find_clips(root)]


def _clip(source: Path, name: str) -> Clip:
    bytes_of = str(source).encode("utf-8", "surrogateescape")
    return Clip(hashlib.sha256(bytes_of).hexdigest()[:12], as_text(name), source)


def as_text(name: str) -> str:
    """A file's name as text that can be sent: Linux allows names that are none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
