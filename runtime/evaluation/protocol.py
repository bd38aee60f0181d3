"""Track a labelled dataset and score it with the DAVIS measures.

Semi-supervised protocol: the tracker gets each object's mask in the first frame where it is annotated, and no
other annotation. A mask is written for every frame, and scores come from the written files, so other tools
score the same. The first and the last annotated frame do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ...common.errors import MaskError, OutputError
from ...common.files import atomic_path, directory, make_directory
from ...common.interrupts import defer_interrupts
from ...common.types import Image, Labels
from ..arrays.resizing import majority, scaled_to
from ..pipeline.progress import Progress, no_progress
from ..pipeline.resized import upscale_labels
from ..video.images import read_image
from .annotations import Annotations, pixels
from .datasets import DatasetSequence, load_split
from .measures import Score
from .report import Evaluation, SequenceResult
from .scoring import score_annotations

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
) -> Evaluation:
    """Track every sequence of a split, write the masks, score them and write the measures.

    Writes ``out_dir/SEQUENCE/FRAME.png`` for every frame, with the annotations' resolution and ids (only
    background before the first object appears), and ``json_file`` at the end. One frame is in memory at a
    time.

    Args:
        root, split: see :func:`maskring.runtime.evaluation.datasets.load_split`.
        new_tracker: makes a tracker that has seen no frame; called once per sequence.
        out_dir: receives a folder per sequence; files of the same names are replaced.
        json_file: receives :meth:`Evaluation.to_json`.
        size: shorter side of the frames given to the tracker, None for their own size.
        progress: called after each frame with the sequence's name, the frames done and those of the split.

    Raises:
        SourceError: when the dataset is incomplete or an image cannot be read.
        MaskError: when an annotation is damaged or does not fit its frame.
        OutputError: when the results cannot be written.
    """
    sequences = load_split(root, split)
    with directory(out_dir), directory(json_file.parent):
        check_outputs(out_dir, json_file)
        results = tuple(track_sequences(sequences, new_tracker, out_dir, size, progress))
        evaluation = Evaluation(split, size, results)
        write_measures(evaluation, json_file)
    return evaluation


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


def track_sequences(
    sequences: list[DatasetSequence],
    new_tracker: Callable[[], SequenceTracker],
    out_dir: Path,
    size: int | None,
    progress: Progress,
) -> Iterator[SequenceResult]:
    """Track sequences, write their masks and yield their scores; arguments and errors as :func:`evaluate`."""
    total, done = sum(len(sequence.frames) for sequence in sequences), 0
    for sequence in sequences:
        annotations, folder, seconds = Annotations.of(sequence), out_dir / sequence.name, 0.0
        with closing(new_tracker()) as tracker:
            for taken in _track(annotations, tracker, folder, size):
                seconds += taken
                done += 1
                progress(sequence.name, done, total)
            if isinstance(tracker, TwoPassTracker):
                seconds += _track_again(annotations, tracker, folder, size)
        objects = score_annotations(annotations, folder) if annotations.scorable else {}
        frames = len(sequence.frames) - annotations.start
        yield SequenceResult(sequence.name, objects, frames, seconds, annotations.notes)


def score_sequence(sequence: DatasetSequence, predictions: Path) -> dict[int, Score]:
    """Score a folder of predicted masks as PyPI's ``vos-benchmark`` does.

    Args:
        sequence: the ground truth.
        predictions: holds a mask for every annotated frame except the first and the last.

    Returns:
        Scores by object id; empty when fewer than three frames are annotated.

    Raises:
        MaskError: when a mask is missing, damaged or of another size than the annotation.
    """
    return score_annotations(Annotations.of(sequence), predictions)


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
            f"the first mask of the sequence {annotations.sequence.name} is empty at {pixels(frame.shape)}",
            "choose a larger size",
        )
    return None, None


def _frame(path: Path, annotations: Annotations) -> Image:
    """Read a frame and check that it has the aspect ratio of its annotations."""
    frame = read_image(path)
    (height, width), (rows, columns) = frame.shape[:2], annotations.shape
    if abs(width * rows / (height * columns) - 1) > ASPECT_TOLERANCE:
        raise MaskError(
            f"{path} is {pixels(frame.shape)} and its sequence is annotated at {pixels(annotations.shape)}",
            "annotate frames at their own size or at a smaller scale",
        )
    return frame
