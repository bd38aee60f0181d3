"""Track a labelled dataset and score it with the DAVIS measures.

Semi-supervised protocol: the tracker gets each object's mask in the first frame where it is annotated, and no
other annotation. A mask is written for every frame, and scores come from the written files, so other tools
score the same. The first and the last annotated frame do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ...common.errors import MaskError, OutputError, UserError
from ...common.files import atomic_path, directory, make_directory
from ...common.interrupts import defer_interrupts
from ...common.types import Image, Labels
from ..arrays.resizing import majority, scaled_to
from ..pipeline.jobs import HERE, Workers, run_each
from ..pipeline.progress import Progress, no_progress
from ..pipeline.resized import upscale_labels
from ..pipeline.shared_folder import SharedFolder, shared_folder
from ..video.frame import pixels
from ..video.images import read_image
from .annotations import Annotations
from .datasets import DatasetSequence, load_split
from .report import Evaluation, SequenceResult
from .scoring import score_annotations
from .stored_results import StoredResults

ASPECT_TOLERANCE = 0.01
"""Relative difference of aspect ratios that is due to rounding, as in DAVIS 480p."""


class HasLabels(Protocol):
    """What evaluation needs of a tracker's result."""

    @property
    def labels(self) -> Labels:
        """[H, W] object ids."""


class SequenceTracker(Protocol):
    """What evaluation needs of a tracker; :class:`maskring.runtime.tracking.tracker.Tracker` is one."""

    def step(self, frame: Image, mask: Labels | None = None) -> HasLabels:
        """Track all objects into ``frame``; ``mask`` adds objects."""

    def close(self) -> None:
        """Release everything."""


@runtime_checkable
class TwoPassTracker(SequenceTracker, Protocol):
    """A tracker with a second pass, as in offline refinement. The second results are scored."""

    def adapt(self) -> None:
        """Learn from the first pass."""

    def refine(self, frame: Image) -> HasLabels:
        """The final result of the next frame; the frames are those of the first pass."""


def evaluate(
    root: Path,
    split: str,
    new_tracker: Callable[[], SequenceTracker],
    out_dir: Path,
    json_file: Path,
    *,
    size: int | None = None,
    progress: Progress = no_progress,
    workers: Workers = HERE,
    settings: str | None = None,
) -> Evaluation:
    """Track every sequence of a split, write the masks, score them and write the measures.

    Writes ``out_dir/SEQUENCE/FRAME.png`` for every frame, with the annotations' resolution and ids (only
    background before the first object appears), and ``json_file`` at the end. One frame is in memory at a
    time.

    Args:
        root, split: see :func:`maskring.runtime.evaluation.datasets.load_split`.
        new_tracker: makes a tracker that has seen no frame; called once per sequence. Picklable, if other
            processes are to work.
        out_dir: receives a folder per sequence; files of the same names are replaced.
        json_file: receives :meth:`Evaluation.to_json`.
        size: shorter side of the frames given to the tracker, None for their own size.
        progress: called after each frame with the sequence's name, the frames done and those of the split;
            with other processes, after each sequence.
        workers: who tracks. Masks and measures do not depend on it.
        settings: everything but dataset and ``size`` that decides the masks. Results are then kept in
            ``json_file.parts`` until all are there, and the same call continues after an interruption. None
            keeps nothing.

    Raises:
        SourceError: when the dataset is incomplete or an image cannot be read.
        MaskError: when an annotation is damaged or does not fit its frame.
        OutputError: when the results cannot be written.
        UserError: when the workers cannot be reached.
    """
    sequences = load_split(root, split)
    with directory(out_dir), directory(json_file.parent):
        check_outputs(out_dir, json_file)
        parts = json_file.with_name(f"{json_file.name}.parts")
        store = None if settings is None else StoredResults(parts, out_dir, settings, size)
        results = _results(sequences, new_tracker, out_dir, size, progress, workers, store)
        evaluation = Evaluation(split, size, results)
        write_measures(evaluation, json_file)
        if store is not None:
            store.remove()
    return evaluation


def _results(
    sequences: list[DatasetSequence],
    new_tracker: Callable[[], SequenceTracker],
    out_dir: Path,
    size: int | None,
    progress: Progress,
    workers: Workers,
    store: StoredResults | None,
) -> tuple[SequenceResult, ...]:
    """The result of each sequence, in their order; those that are stored are not tracked again."""
    stored = [] if store is None else [store.read(sequence) for sequence in sequences]
    results = {result.name: result for result in stored if result is not None}
    missing = [sequence for sequence in sequences if sequence.name not in results]
    if not workers.here:  # the longest first, so that no worker is left alone with it
        missing.sort(key=lambda sequence: -len(sequence.frames))
    total, done = sum(len(sequence.frames) for sequence in missing), 0

    def within(task: str, frames: int, *_: object) -> None:
        progress(task, done + frames, total)

    with shared_folder(out_dir, with_others=workers.ray is not None) as shared:
        work = _TrackSequence(new_tracker, out_dir, shared, size)
        with closing(run_each(missing, work, workers, within)) as finished:
            for sequence, result in finished:
                if isinstance(result, UserError):
                    raise result
                if store is not None:
                    store.write(sequence, result)
                results[sequence.name] = result
                done += len(sequence.frames)
                if not workers.here:
                    progress("sequences", done, total)
    return tuple(results[sequence.name] for sequence in sequences)


def check_outputs(out_dir: Path, json_file: Path) -> None:
    """Create the folders of the results, and check that results can be written there.

    Raises:
        OutputError: when they cannot.
    """
    make_directory(out_dir)
    check_json_file(json_file)


def check_json_file(json_file: Path) -> None:
    """Create the folder of the measures, and check that they can be written there.

    Raises:
        OutputError: when they cannot.
    """
    make_directory(json_file.parent)
    if json_file.is_dir():
        raise OutputError(f"{json_file} is a folder", "name a file for the measures")


def write_measures(evaluation: Evaluation, json_file: Path) -> None:
    """Write :meth:`Evaluation.to_json`.

    Raises:
        OutputError: when it cannot be written.
    """
    with atomic_path(json_file) as partial:
        partial.write_text(evaluation.to_json())


@dataclass(frozen=True)
class _TrackSequence:
    """Tracks and scores one sequence, in any process that sees the files. Attributes as for :func:`evaluate`."""

    new_tracker: Callable[[], SequenceTracker]
    out_dir: Path
    shared: SharedFolder
    size: int | None

    def __call__(self, sequence: DatasetSequence, progress: Progress) -> SequenceResult:
        self.shared.check()
        return track_sequence(sequence, self.new_tracker, self.out_dir, self.size, progress)


def track_sequence(
    sequence: DatasetSequence,
    new_tracker: Callable[[], SequenceTracker],
    out_dir: Path,
    size: int | None,
    progress: Progress = no_progress,
) -> SequenceResult:
    """Track a sequence, write its masks and score them; arguments and errors as :func:`evaluate`."""
    annotations, folder, seconds = Annotations.of(sequence), out_dir / sequence.name, 0.0
    with closing(new_tracker()) as tracker:
        for done, taken in enumerate(_track(annotations, tracker, folder, size), 1):
            seconds += taken
            progress(sequence.name, done, len(sequence.frames))
        if isinstance(tracker, TwoPassTracker):
            seconds += _track_again(annotations, tracker, folder, size)
    objects = score_annotations(annotations, folder) if annotations.scorable else {}
    frames = len(sequence.frames) - annotations.start
    return SequenceResult(sequence.name, objects, frames, seconds, annotations.notes)


def _track(
    annotations: Annotations, tracker: SequenceTracker, folder: Path, size: int | None
) -> Iterator[float]:
    """Write the mask of each frame into ``folder``; yield the seconds that the tracker took for it."""
    with directory(folder):
        for index, path in enumerate(annotations.sequence.frames):
            labels, taken = np.zeros(annotations.shape, np.uint8), 0.0
            with defer_interrupts():
                if index >= annotations.start:
                    frame = scaled_to(_frame(path, annotations), size)
                    mask, reduced = _prompt(annotations, index, frame)
                    begun = time.perf_counter()
                    labels = tracker.step(frame, reduced).labels
                    taken = time.perf_counter() - begun
                    labels = upscale_labels(labels, annotations.shape, mask)
                annotations.write(folder, path.stem, labels)
            yield taken


def _track_again(annotations: Annotations, tracker: TwoPassTracker, folder: Path, size: int | None) -> float:
    """Replace the masks by those of a second pass; return the seconds that the tracker took."""
    begun = time.perf_counter()
    tracker.adapt()
    seconds = time.perf_counter() - begun
    for path in annotations.sequence.frames[annotations.start :]:
        with defer_interrupts():
            frame = scaled_to(_frame(path, annotations), size)
            begun = time.perf_counter()
            labels = tracker.refine(frame).labels
            seconds += time.perf_counter() - begun
            annotations.write(folder, path.stem, upscale_labels(labels, annotations.shape))
    return seconds


def _prompt(annotations: Annotations, index: int, frame: Image) -> tuple[Labels | None, Labels | None]:
    """The mask that introduces a frame's new objects, at the annotations' size and at the frame's.

    Objects that cover no pixel at the frame's size are left out; (None, None) when no object remains.

    Raises:
        MaskError: when no object of the sequence's first mask remains.
    """
    mask = annotations.introduced(index)
    if mask is None:
        return None, None
    reduced = majority(mask, frame.shape)
    if reduced.any():
        return np.where(np.isin(mask, reduced), mask, 0).astype(np.uint8), reduced
    if index == annotations.start:
        raise MaskError(
            f"the first mask of the sequence {annotations.sequence.name} is empty at {pixels(frame.shape)} pixels",
            "choose a larger size",
        )
    return None, None


def _frame(path: Path, annotations: Annotations) -> Image:
    """Read a frame and check that it has the aspect ratio of its annotations."""
    frame = read_image(path)
    (height, width), (rows, columns) = frame.shape[:2], annotations.shape
    if abs(width * rows / (height * columns) - 1) > ASPECT_TOLERANCE:
        raise MaskError(
            f"{path} is {pixels(frame.shape)} pixels and its sequence is annotated at {pixels(annotations.shape)}",
            "annotate frames at their own size or at a smaller scale",
        )
    return frame
