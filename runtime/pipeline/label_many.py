"""Label many videos, each from the mask of its first frame, in one process or on many machines."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...common.errors import MaskError, SourceError, UserError, one_line
from ...common.files import make_directory
from ...common.types import Labels
from ..tracking.tracker import Tracker
from ..video.mask_ids import MaskIds
from ..video.masks import check_drawn, read_picture
from ..video.open_source import open_source
from ..video.sinks import JsonLinesSink, MaskFolderSink
from ..video.storage import files_below, is_url, join, local_copies, local_copy, stem, upload
from .clips import Clip
from .edits import Edits
from .jobs import HERE, WorkerLost, Workers, run_each
from .loop import track
from .progress import Progress, count_frames, no_progress
from .resized import ResizedTracker
from .shared_folder import SharedFolder, shared_folder
from .summary import Summary

PARTIAL = ".partial"
"""How the hidden folder of labels that are not complete ends."""


@dataclass
class Labelled:
    """What a run did.

    Attributes:
        videos, frames: videos that were labelled, and their frames.
        seconds, cpu_seconds: wall-clock time of the run, and processor time of labelling.
        present: clips whose labels were there before.
        lost_objects: one sentence for each object that was lost before the end of its clip.
        failed: clips that could not be labelled -> a sentence that says why.
        notes: sentences that say how masks were read.
    """

    videos: int = 0
    frames: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    present: int = 0
    lost_objects: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, clip: Clip, labels: ClipLabels) -> None:
        """Count one more video."""
        self.videos += 1
        self.frames += labels.summary.frames
        self.cpu_seconds += labels.cpu_seconds
        self.lost_objects += [f"{clip.source}: {sentence}" for sentence in labels.summary.lost_objects()]
        self.notes += labels.notes

    def __str__(self) -> str:
        speed = ""
        if self.frames and self.seconds:
            cpu_ms = 1000 * self.cpu_seconds / self.frames
            speed = f", {self.frames / self.seconds:.1f} fps, {cpu_ms:.1f} ms of processor time a frame"
        present = f"; {self.present} were labelled before" if self.present else ""
        return f"{self.videos} videos, {self.frames} frames{speed}{present}"


@dataclass(frozen=True)
class ClipLabels:
    """What labelling one clip gave, besides the files.

    Attributes:
        summary: frames and lost objects.
        notes: sentences that say how its mask was read.
        cpu_seconds: processor time of all threads.
    """

    summary: Summary
    notes: list[str]
    cpu_seconds: float


def label_clips(
    clips: list[Clip],
    new_tracker: Callable[[], Tracker],
    *,
    out: str,
    size: int | None,
    workers: Workers = HERE,
    progress: Progress = no_progress,
) -> Labelled:
    """Label all clips that have no labels yet.

    A clip's labels get their name only when they are complete, so the same call continues an interrupted run.
    A clip that cannot be labelled does not stop the others.

    Args:
        clips: from :func:`maskring.runtime.pipeline.clips.clips_to_label`.
        new_tracker: makes a tracker that has seen no frame; picklable, if other processes are to work.
        out: a folder that exists and gets one for each clip; or an address on object storage, which gets a zip.
        size: shorter side of the frames that the tracker sees, None for their own.
        workers: who labels.
        progress: called after each frame with the clip's name; with other processes, after each video.

    Raises:
        OutputError: when labels cannot be written.
        UserError: when no tracker can be made, or the workers cannot be reached.
    """
    labelled, started = Labelled(), time.perf_counter()
    present = _names_in(out)
    missing = [clip for clip in clips if clip.name not in present]
    labelled.present = len(clips) - len(missing)
    ids = _ids_of_run(clips)
    labelled.notes += ids.notes

    def within_clip(task: str, done: int, total: int | None, detail: str = "", /) -> None:
        count = labelled.videos + len(labelled.failed) + 1
        progress(task, done, total, f"video {count} of {len(missing)}")

    with _marked(out, with_others=workers.ray is not None) as shared:
        work = _LabelClip(new_tracker, out, shared, ids, size)
        with closing(run_each(missing, work, workers, within_clip)) as finished:
            for clip, result in finished:
                if isinstance(result, (MaskError, SourceError, WorkerLost)):
                    labelled.failed[clip.source] = one_line(str(result))
                elif isinstance(result, UserError):
                    raise result
                else:
                    labelled.add(clip, result)
                if not workers.here:
                    done = labelled.videos + len(labelled.failed)
                    progress("videos", done, len(missing), f"{labelled.frames} frames")
    labelled.seconds = time.perf_counter() - started
    return labelled


@contextmanager
def _marked(out: str, *, with_others: bool) -> Iterator[SharedFolder | None]:
    """Mark an output folder so that other machines can tell whether they see it, and clear it of remains."""
    if is_url(out):
        yield None
        return
    with shared_folder(Path(out), with_others=with_others) as shared:
        try:
            _discard_partial(Path(out))
            yield shared
        finally:
            _discard_partial(Path(out))


def _names_in(out: str) -> set[str]:
    """Names of the clips that have labels."""
    if is_url(out):
        return {stem(url) for url in files_below(out) if url.endswith(".zip")}
    return {path.name for path in Path(out).iterdir() if not path.name.startswith(".")}


def _ids_of_run(clips: list[Clip]) -> MaskIds:
    """What the marks of all first masks mean. Masks that cannot be read are left out; their clips fail later."""
    marks = []
    with tempfile.TemporaryDirectory(prefix="maskring-masks-") as scratch:
        remote = [clip.mask for clip in clips if is_url(clip.mask)]
        copies = dict(zip(remote, local_copies(remote, Path(scratch)), strict=True))
        for clip in clips:
            with suppress(MaskError):
                marks.append(read_picture(copies.get(clip.mask, Path(clip.mask))).marks)
    return MaskIds(marks)


@dataclass(frozen=True)
class _LabelClip:
    """Labels one clip, in any process that sees it.

    Attributes:
        new_tracker, out, size: see :func:`label_clips`.
        shared: the folder ``out``; None for object storage.
        ids: what the marks of the masks mean.
    """

    new_tracker: Callable[[], Tracker]
    out: str
    shared: SharedFolder | None
    ids: MaskIds
    size: int | None

    def __call__(self, clip: Clip, progress: Progress) -> ClipLabels:
        started = time.process_time()
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maskring-label-")))
            source = local_copy(clip.source, scratch)
            picture = replace(read_picture(local_copy(clip.mask, scratch)), name=clip.mask)
            mask = self.ids.labels(picture)
            check_drawn(picture, mask)
            if self.shared is None:
                summary = self._label(clip, source, mask, scratch / "labels", progress)
                _upload_zip(
                    scratch / "labels", scratch / f"{clip.name}.zip", join(self.out, f"{clip.name}.zip")
                )
            else:
                self.shared.check()
                folder = stack.enter_context(_appears_complete(Path(self.out) / clip.name))
                summary = self._label(clip, source, mask, folder, progress)
        return ClipLabels(summary, list(picture.notes), time.process_time() - started)

    def _label(self, clip: Clip, place: Path, mask: Labels, folder: Path, progress: Progress) -> Summary:
        """Write ``objects.jsonl`` and ``masks`` into a folder."""
        with (
            open_source(place) as source,
            self.new_tracker() as tracker,
            JsonLinesSink(make_directory(folder) / "objects.jsonl") as objects,
            MaskFolderSink(folder / "masks") as masks,
        ):
            on_frame = count_frames(progress, clip.name, source.length)
            resized = tracker if self.size is None else ResizedTracker(tracker, self.size)
            summary = track(source, resized, [objects, masks], Edits({0: mask}), on_frame)
        if not summary.frames:
            raise SourceError(f"{clip.source} holds no frame", "leave it out")
        return summary


@contextmanager
def _appears_complete(folder: Path) -> Iterator[Path]:
    """A hidden folder that gets its name when the block succeeds.

    Two processes may label the same clip: a cluster takes a node for dead that has only lost its connection.
    Each has a folder of its own, and the first to finish gives it its name.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _discard_partial(out: Path) -> None:
    """Remove what killed processes have left."""
    for path in list(out.iterdir()):
        if path.name.startswith(".") and path.suffix == PARTIAL and path.is_dir():
            # Renamed first, so that a process that still writes there fails and gives nothing half its name.
            doomed = out / f".{secrets.token_hex(8)}{PARTIAL}"
            with suppress(OSError):
                path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def _upload_zip(folder: Path, file: Path, url: str) -> None:
    """One object for all labels of a clip: it appears as a whole, and storage charges by the object."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            packing = zipfile.ZIP_DEFLATED if path.suffix == ".jsonl" else zipfile.ZIP_STORED
            archive.write(path, str(path.relative_to(folder)), packing)
    upload(file, url)
