"""Score masks that exist already, of any tracker, against the annotations of a dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import MaskError, SourceError
from ..pipeline.progress import Progress, no_progress
from ..video.folders import RESOLUTIONS
from .annotations import Annotations
from .datasets import (
    ANNOTATIONS,
    SAV_ANNOTATIONS,
    WHOLE_FOLDER,
    DatasetSequence,
    annotated_sequence,
    folders_in,
    listed_sequences,
)
from .measures import Score, SequenceScorer
from .report import Evaluation, SequenceResult

LABELLED = "masks"
"""Folder in which ``maskring track`` and ``label`` write the masks of a sequence."""


@dataclass(frozen=True)
class Scoring:
    """What :func:`score_predictions` found.

    Attributes:
        evaluation: the measures, without speeds.
        without_prediction: annotated sequences that were left out because they have no predictions.
    """

    evaluation: Evaluation
    without_prediction: list[str]


def score_predictions(
    predicted: Path, root: Path, split: str | None = None, progress: Progress = no_progress
) -> Scoring:
    """Score a folder of masks as PyPI's ``vos-benchmark`` does, void pixels left out.

    Only annotations and predictions are read; frames need not be there.

    Args:
        predicted: holds a folder per sequence with a mask per annotated frame, named like the annotation; in
            SA-V a folder per object in it.
        root: a dataset in one of the layouts of :mod:`.datasets`, or the folder of all sequences' annotations.
        split: the sequences of its list, which all must have predictions; None for all that have some.
        progress: called after each frame.

    Raises:
        SourceError: when the dataset or the predictions are incomplete.
        MaskError: when a mask is missing, damaged or does not fit its annotation.
    """
    if not predicted.is_dir():
        raise SourceError(f"{predicted} is not a folder", "name the folder that holds a folder per sequence")
    sequences = _annotated(root, split)
    folders = {sequence.name: _predictions_of(sequence, predicted) for sequence in sequences}
    missing = [name for name, folder in folders.items() if folder is None]
    if len(missing) == len(sequences) or (missing and split is not None):
        raise SourceError(
            f"{predicted} holds no folder with the masks of {missing[0]}",
            "give the folder that holds a folder per sequence, named like the sequence",
        )
    scored = [sequence for sequence in sequences if folders[sequence.name] is not None]
    total, done, results = sum(len(sequence.mask_files) for sequence in scored), 0, []
    for sequence in scored:
        annotations = Annotations.of(sequence)
        folder = folders[sequence.name]
        assert folder is not None
        objects = score_annotations(annotations, folder) if annotations.scorable else {}
        done += len(sequence.mask_files)
        progress(sequence.name, done, total)
        results.append(
            SequenceResult(sequence.name, objects, len(sequence.annotations), 0.0, annotations.notes)
        )
    return Scoring(Evaluation(split or WHOLE_FOLDER, None, tuple(results)), missing)


def score_annotations(annotations: Annotations, predictions: Path) -> dict[int, Score]:
    """Scores of a sequence's objects by their numbers in the dataset, as PyPI's ``vos-benchmark`` computes them.

    Args:
        annotations: the ground truth.
        predictions: holds a mask for every annotated frame except the first and the last.

    Returns:
        Empty when fewer than three frames are annotated.

    Raises:
        MaskError: see :meth:`Annotations.pairs`.
    """
    scorers: dict[int | None, SequenceScorer] = {}
    for pair in annotations.pairs(predictions):
        scorers.setdefault(pair.name, SequenceScorer()).add(pair.prediction, pair.truth)
    return {
        number if name is None else name: score
        for name, scorer in scorers.items()
        for number, score in scorer.scores().items()
    }


def _annotated(root: Path, split: str | None) -> list[DatasetSequence]:
    """The annotated sequences of a dataset, or of a split of it."""
    if not root.is_dir():
        raise SourceError(f"the dataset root {root} is not a folder", "check the path")
    names = None if split is None else listed_sequences(root, split)
    places = [root / split, root] if split is not None and (root / split).is_dir() else [root]
    if split not in (None, WHOLE_FOLDER) and names is None and len(places) == 1:
        raise SourceError(
            f"{root} has no split named {split}", "leave --split out to score what was predicted"
        )
    for place in places:
        for base in (place / SAV_ANNOTATIONS, place / ANNOTATIONS):
            if base.is_dir():
                return _in_folder(base, names)
    return _in_folder(root, names)


def _in_folder(base: Path, names: list[str] | None) -> list[DatasetSequence]:
    """The sequences in a folder of annotations, which may have folders of resolutions."""
    present = folders_in(base)
    preferred = [name for name in RESOLUTIONS if name in present]
    others = [name for name in present if re.fullmatch(r"\d+p", name) and name not in preferred]
    folder = next((base / name for name in (*preferred, *others)), base)
    sequences = [annotated_sequence(name, folder / name) for name in names or folders_in(folder)]
    if not sequences:
        raise MaskError(f"{base} holds no folder with annotations", f"name a folder that holds {ANNOTATIONS}")
    return sequences


def _predictions_of(sequence: DatasetSequence, predicted: Path) -> Path | None:
    """The folder with the predictions of a sequence; None when there is none."""
    folder = predicted / sequence.name
    if (folder / LABELLED).is_dir() and not sequence.objects:
        return folder / LABELLED
    return folder if folder.is_dir() else None
