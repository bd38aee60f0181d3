"""``maskring label``: many videos, each followed from its first mask, by one process or several."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import MaskError, SourceError, one_line
from ...common.files import make_directory
from ..tracking.tracker import Tracker
from ..video.folders import find_clips
from ..video.masks import read_mask
from ..video.open_source import open_source
from ..video.sinks import JsonLinesSink, MaskFolderSink
from .loop import Edits, Summary, track
from .resized import ResizedTracker
from .shard import Shard

OnFrame = Callable[[str, int, int], None]
"""Called with a clip's name, its frames done and its frames in all, or done where that is not known."""


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames, the mask of its first frame, and the folder of its labels."""

    source: Path
    mask: Path
    out: Path

    @property
    def weight(self) -> tuple[int, str]:
        """By which clips are shared out: bytes, for length is not known; the name decides between equals."""
        files = self.source.iterdir() if self.source.is_dir() else [self.source]
        return sum(path.stat().st_size for path in files), self.out.name


@dataclass
class Labelled:
    """What a process did.

    Attributes:
        videos, frames, seconds: that it labelled, and how long that took.
        present: clips whose labels were there.
        losses: a sentence for each object that was lost before the end of its clip.
        failed: why others could not be labelled, a sentence by clip.
    """

    videos: int = 0
    frames: int = 0
    seconds: float = 0.0
    present: int = 0
    losses: list[str] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def add(self, clip: Clip, summary: Summary) -> None:
        """Count one more video."""
        self.videos += 1
        self.frames += summary.frames
        self.seconds += summary.seconds
        self.losses += [f"{clip.source}: {loss}" for loss in summary.losses()]

    def __str__(self) -> str:
        speed = f", {self.frames / self.seconds:.1f} fps" if self.seconds else ""
        present = f"; {self.present} were labelled before" if self.present else ""
        return f"{self.videos} videos, {self.frames} frames{speed}{present}"


def clips_to_label(videos: list[Path], masks: Path, out: Path) -> list[Clip]:
    """Every clip in ``videos`` (:func:`maskring.runtime.video.folders.find_clips`), named by its file or folder.

    What lies in ``masks`` and ``out`` is no clip, wherever they are.

    Raises:
        SourceError: when there is none, or two have one name.
        MaskError: when ``masks`` holds none for a clip.
    """
    found: dict[str, Path] = {}
    ours = {masks.resolve(), out.resolve()}
    for path in (clip for video in videos for clip in find_clips(video)):
        if ours & {path.resolve(), *path.resolve().parents}:
            continue
        name = path.name if path.is_dir() else path.stem
        if found.setdefault(name, path) != path:
            raise SourceError(f"{found[name]} and {path} have one name", "rename one, or label them apart")
    if not found:
        raise SourceError(
            f"beside masks and labels there is no video in {', '.join(map(str, videos))}",
            "name a folder of videos",
        )
    missing = [path for name, path in found.items() if not (masks / f"{name}.png").is_file()]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise MaskError(
            f"{masks} holds no first mask of {missing[0]}{others}",
            "save each as a PNG with the name of its video",
        )
    return [Clip(path, masks / f"{name}.png", out / name) for name, path in found.items()]


def label_clips(
    clips: list[Clip],
    new_tracker: Callable[[], Tracker],
    *,
    shard: Shard | None,
    size: int | None,
    on_frame: OnFrame = lambda name, done, total: None,
) -> Labelled:
    """Label all clips that have no labels yet, or this process's share of all.

    A clip's folder gets its name when the clip is done: what an interrupted run leaves there is whole, and
    the same call goes on behind it. A clip that cannot be labelled does not keep the others from it.

    Args:
        clips: what :func:`clips_to_label` found, the same in all processes.
        new_tracker: makes a tracker that has seen no frame.
        shard: which of several processes this is.
        size: shorter side of the frames that the tracker sees, None for their own.
        on_frame: for progress.

    Raises:
        OutputError: when labels cannot be written.
        UserError: when there is no tracker to be had.
    """
    labelled = Labelled()
    for clip in clips if shard is None else shard.deal(clips, lambda clip: clip.weight):
        if clip.out.exists():
            labelled.present += 1
            continue
        try:
            labelled.add(clip, _label(clip, new_tracker, size, on_frame))
        except (MaskError, SourceError) as error:
            labelled.failed[clip.source] = one_line(str(error))
    return labelled


def _label(clip: Clip, new_tracker: Callable[[], Tracker], size: int | None, on_frame: OnFrame) -> Summary:
    mask = read_mask(clip.mask)
    partial = clip.out.with_name(f".{clip.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        with (
            open_source(clip.source) as source,
            new_tracker() as tracker,
            JsonLinesSink(make_directory(partial) / "objects.jsonl") as objects,
            MaskFolderSink(partial / "masks") as masks,
        ):
            done = _counted(clip.out.name, source.length, on_frame)
            seen = tracker if size is None else ResizedTracker(tracker, size)
            summary = track(source, seen, [objects, masks], Edits({0: mask}), lambda *_: next(done))
        if not summary.frames:
            raise SourceError(f"{clip.source} holds no frame", "leave it out")
        partial.rename(clip.out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return summary


def _counted(name: str, length: int | None, on_frame: OnFrame) -> Iterator[None]:
    done = 0
    while True:
        done += 1
        on_frame(name, done, length or done)
        yield
