"""The result of an evaluation: as a table, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from .measures import Measure, Score

COLUMNS = ("sequence", "obj", "J&F", "J", "rec.", "dec.", "F", "rec.", "dec.", "fps")
"""Headings for :meth:`Evaluation.rows`; recall and decay follow J and F. The table fits 80 characters."""


@dataclass(frozen=True)
class SequenceResult:
    """Scores and speed of one sequence.

    Attributes:
        name: the sequence's name.
        objects: annotated object id -> scores; empty when no frame could be scored.
        frames: tracked frames, including the one whose mask was given.
        seconds: time in the tracker alone.
        notes: sentences that say how masks were read.
    """

    name: str
    objects: dict[int, Score]
    frames: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> Score | None:
        """Mean over the objects."""
        return Score.of_objects(list(self.objects.values())) if self.objects else None

    @property
    def fps(self) -> float:
        """Frames per second of the tracker alone."""
        return self.frames / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Evaluation:
    """Scores and speed of a split.

    Attributes:
        split: the split's name.
        size: shorter side of the frames given to the tracker, None for the frames' own size.
        sequences: one result per sequence, in the order of the split.
    """

    split: str
    size: int | None
    sequences: tuple[SequenceResult, ...]

    @property
    def score(self) -> Score | None:
        """Mean over all objects of all sequences; None when only the given masks are annotated."""
        objects = [score for result in self.sequences for score in result.objects.values()]
        return Score.of_objects(objects) if objects else None

    @property
    def fps(self) -> float:
        """Frames per second of the tracker alone, over all sequences."""
        seconds = sum(result.seconds for result in self.sequences)
        return sum(result.frames for result in self.sequences) / seconds if seconds else 0.0

    def rows(self) -> list[tuple[str, ...]]:
        """A row of texts per sequence and one for the split, in the order of :data:`COLUMNS`."""
        rows = [_row(result.name, len(result.objects), result.score, result.fps) for result in self.sequences]
        objects = sum(len(result.objects) for result in self.sequences)
        return [*rows, _row("all", objects, self.score, self.fps)]

    def to_json(self) -> str:
        """The evaluation as JSON: scores in percent, null where nothing could be scored or timed."""
        document = {
            "split": self.split,
            "size": self.size,
            "unit": "percent",
            "global": _score_json(self.score),
            "fps": self.fps or None,
            "sequences": {
                result.name: {
                    **_score_json(result.score),
                    "frames": result.frames,
                    "fps": result.fps or None,
                    "objects": {str(key): _score_json(score) for key, score in result.objects.items()},
                }
                for result in self.sequences
            },
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _row(name: str, objects: int, score: Score | None, fps: float) -> tuple[str, ...]:
    if score is None:
        figures = ["-"] * 7
    else:
        measures = (score.jf, *_statistics(score.j), *_statistics(score.f))
        figures = [f"{figure:.1f}" for figure in measures]
    return (name, str(objects), *figures, f"{fps:.1f}" if fps else "-")


def _statistics(measure: Measure) -> tuple[float, float, float]:
    return measure.mean, measure.recall, measure.decay


def _score_json(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"J&F": None, "J": None, "F": None}
    return {"J&F": score.jf, "J": asdict(score.j), "F": asdict(score.f)}
