"""The videos to label, each with the mask of its first frame: on disk, or on object storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...common.errors import MaskError, SourceError
from ..video.folders import VIDEO_SUFFIXES, find_clips, images_in
from ..video.masks import MASK_SUFFIXES
from ..video.storage import files_below, is_url, stem


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames, and the mask of its first frame.

    Attributes:
        name: of its labels.
        source, mask: paths, or addresses on object storage.
    """

    name: str
    source: str
    mask: str


def clips_to_label(videos: list[str], masks: str, out: str) -> list[Clip]:
    """Find the clips in ``videos``, as :func:`maskring.runtime.video.folders.find_clips` does.

    A clip is named by its file or folder. Nothing inside ``masks`` or ``out`` counts as a clip. On object
    storage, clips are video files.

    Raises:
        SourceError: when there is no clip, two have the same name, or ``masks`` is no folder.
        MaskError: when ``masks`` holds none for a clip, or several.
    """
    clips: dict[str, str] = {}
    for name, place in (clip for video in videos for clip in _clips_in(video, (masks, out))):
        if clips.setdefault(name, place) != place:
            raise SourceError(
                f"{clips[name]} and {place} have the same name", "rename one, or label them apart"
            )
    if not clips:
        raise SourceError(
            f"no videos found in {', '.join(videos)} (the mask and output folders are ignored)",
            "name a folder of videos",
        )
    files: dict[str, list[str]] = {}
    for mask in masks_in(masks):
        files.setdefault(stem(mask), []).append(mask)
    missing = [place for name, place in clips.items() if name not in files]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise MaskError(
            f"{masks} holds no first mask for {missing[0]}{others}",
            "save each mask as a PNG with the name of its video",
        )
    for name in clips:
        if len(files[name]) > 1:
            first, second = files[name][:2]
            raise MaskError(
                f"both {first} and {PurePosixPath(second).name} may be the first mask of a video",
                "keep one of them in that folder",
            )
    return [Clip(name, place, files[name][0]) for name, place in clips.items()]


def masks_in(masks: str) -> list[str]:
    """The masks in a folder, on disk or on object storage.

    Raises:
        SourceError: when it does not exist or cannot be listed.
    """
    if not is_url(masks):
        folder = Path(masks)
        if not folder.is_dir():
            raise SourceError(f"the folder of masks {masks} does not exist", "check the path")
        return [str(path) for path in images_in(folder, MASK_SUFFIXES) if path.is_file()]
    urls = [url for url in files_below(masks) if PurePosixPath(url).suffix.lower() in MASK_SUFFIXES]
    depth = min((url.count("/") for url in urls), default=0)
    return [url for url in urls if url.count("/") == depth]  # not those in folders below


def masks_without_clip(clips: list[Clip], masks: str) -> list[str]:
    """Masks in a folder that belong to none of the clips."""
    used = {clip.mask for clip in clips}
    return [mask for mask in masks_in(masks) if mask not in used]


def _clips_in(video: str, ignored: tuple[str, ...]) -> list[tuple[str, str]]:
    """Name and place of each clip in a file or folder."""
    if is_url(video):
        inside = tuple(f"{place.rstrip('/')}/" for place in ignored)
        urls = [url for url in files_below(video) if PurePosixPath(url).suffix.lower() in VIDEO_SUFFIXES]
        return [(stem(url), url) for url in urls if not url.startswith(inside)]
    left_out = {Path(place).resolve() for place in ignored if not is_url(place)}
    paths = [
        path for path in find_clips(Path(video)) if not left_out & {path.resolve(), *path.resolve().parents}
    ]
    return [(path.name if path.is_dir() else path.stem, str(path)) for path in paths]
