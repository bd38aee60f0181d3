"""Label many videos, each from the mask of its first frame, in one process or several."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import MaskError, SourceError, one_line
from ...common.files import make_directory
from ..tracking.tracker import Tracker
from ..video.folders import find_clips, images_in
from ..video.mask_ids import MaskIds
from ..video.masks import MASK_SUFFIXES, check_not_empty, read_picture
from ..video.open_source import open_source
from ..video.sinks import JsonLinesSink, MaskFolderSink
from .edits import Edits
from .loop import track
from .progress import Progress, count_frames, no_progress
from .resized import ResizedTracker
from .shard import Shard
from .summary import Summary


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames, the mask of its first frame, and the folder for its labels."""

    source: Path
    mask: Path
    out: Path

    @property
    def weight(self) -> tuple[int, str]:
        """Shares are balanced by bytes, since the length is unknown; the name decides between equals."""
        files = self.source.iterdir() if self.source.is_dir() else [self.source]
        return sum(path.stat().st_size for path in files), self.out.name


@dataclass
class Labelled:
    """What one process did.

    Attributes:
        videos, frames, seconds: videos that it labelled, their frames, and the time that took.
        present: clips whose labels were there before.
        lost_objects: one sentence for each object that was lost before the end of its clip.
        failed: clips that could not be labelled -> a sentence that says why.
        notes: sentences that say how masks were read.
    """

    videos: int = 0
    frames: int = 0
    seconds: float = 0.0
    present: int = 0
    lost_objects: list[str] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, clip: Clip, summary: Summary) -> None:
        """Count one more video."""
        self.videos += 1
        self.frames += summary.frames
        self.seconds += summary.seconds
        self.lost_objects += [f"{clip.source}: {sentence}" for sentence in summary.lost_objects()]

    def __str__(self) -> str:
        speed = f", {self.frames / self.seconds:.1f} fps" if self.seconds else ""
        present = f"; {self.present} were labelled before" if self.present else ""
        return f"{self.videos} videos, {self.frames} frames{speed}{present}"


def clips_to_label(videos: list[Path], masks: Path, out: Path) -> list[Clip]:
    """Find the clips in ``videos``, as :func:`maskring.runtime.video.folders.find_clips` does.

    A clip is named by its file or folder. Nothing inside ``masks`` or ``out`` counts as a clip.

    Raises:
        SourceError: when there is no clip, or two have the same name.
        MaskError: when ``masks`` holds none for a clip, or several.
    """
    clips: dict[str, Path] = {}
    ignored = {masks.resolve(), out.resolve()}
    for path in (clip for video in videos for clip in find_clips(video)):
        if ignored & {path.resolve(), *path.resolve().parents}:
            continue
        name = path.name if path.is_dir() else path.stem
        if clips.setdefault(name, path) != path:
            raise SourceError(
                f"{clips[name]} and {path} have the same name", "rename one, or label them apart"
            )
    if not clips:
        raise SourceError(
            f"no videos found in {', '.join(map(str, videos))} (the mask and output folders are ignored)",
            "name a folder of videos",
        )
    files = {name: _first_masks(masks, name) for name in clips}
    missing = [path for name, path in clips.items() if not files[name]]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise MaskError(
            f"{masks} holds no first mask for {missing[0]}{others}",
            "save each mask as a PNG with the name of its video",
        )
    for of_clip in files.values():
        if len(of_clip) > 1:
            raise MaskError(
                f"both {of_clip[0]} and {of_clip[1].name} may be the first mask of a video",
                "keep one of them in that folder",
            )
    return [Clip(path, files[name][0], out / name) for name, path in clips.items()]


def masks_without_clip(clips: list[Clip], masks: Path) -> list[Path]:
    """Masks in a folder that belong to none of the clips."""
    used = {clip.mask for clip in clips}
    return [path for path in images_in(masks, MASK_SUFFIXES) if path not in used]


def _first_masks(masks: Path, name: str) -> list[Path]:
    """Files in a folder that may be the mask of a clip."""
    candidates = (masks / f"{name}{suffix}" for suffix in MASK_SUFFIXES)
    return [path for path in candidates if path.is_file()]


def label_clips(
    clips: list[Clip],
    new_tracker: Callable[[], Tracker],
    *,
    shard: Shard | None,
    size: int | None,
    progress: Progress = no_progress,
) -> Labelled:
    """Label all clips that have no labels yet, or this process's share of them.

    A clip's folder gets its name only when the clip is complete, so the same call continues an interrupted
    run. A clip that cannot be labelled does not stop the others.

    Args:
        clips: from :func:`clips_to_label`, the same in all processes.
        new_tracker: makes a tracker that has seen no frame.
        shard: which of several processes this is, None for the only one.
        size: shorter side of the frames that the tracker sees, None for their own.
        progress: called after each frame with the clip's name.

    Raises:
        OutputError: when labels cannot be written.
        UserError: when no tracker can be made.
    """
    labelled = Labelled()
    ids = _ids_of_run(clips)
    labelled.notes += ids.notes
    for clip in clips if shard is None else shard.deal(clips, lambda clip: clip.weight):
        if clip.out.exists():
            labelled.present += 1
            continue
        try:
            labelled.add(clip, _label(clip, ids, labelled.notes, new_tracker, size, progress))
        except (MaskError, SourceError) as error:
            labelled.failed[clip.source] = one_line(str(error))
    return labelled


def _ids_of_run(clips: list[Clip]) -> MaskIds:
    """What the marks of all first masks mean. Masks that cannot be read are left out; their clips fail later."""
    marks = []
    for clip in clips:
        with suppress(MaskError):
            marks.append(read_picture(clip.mask).marks)
    return MaskIds(marks)


def _label(
    clip: Clip,
    ids: MaskIds,
    notes: list[str],
    new_tracker: Callable[[], Tracker],
    size: int | None,
    progress: Progress,
) -> Summary:
    picture = read_picture(clip.mask)
    notes += picture.notes
    mask = ids.labels(picture)
    check_not_empty(clip.mask, mask)
    partial = clip.out.with_name(f".{clip.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # a killed run may have left it
    try:
        with (
            open_source(clip.source) as source,
            new_tracker() as tracker,
            JsonLinesSink(make_directory(partial) / "objects.jsonl") as objects,
            MaskFolderSink(partial / "masks") as masks,
        ):
            on_frame = count_frames(progress, clip.out.name, source.length)
            resized = tracker if size is None else ResizedTracker(tracker, size)
            summary = track(source, resized, [objects, masks], Edits({0: mask}), on_frame)
        if not summary.frames:
            raise SourceError(f"{clip.source} holds no frame", "leave it out")
        partial.rename(clip.out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return summary
