"""The result of an evaluation: as a table, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from .measures import Measure, Score

COLUMNS = ("sequence", "obj", "J&F", "J", "rec.", "dec.", "F", "rec.", "dec.", "fps")
"""Heads of :meth:`Evaluation.rows`, narrow enough for 80 characters; recall and decay follow J and F."""


@dataclass(frozen=True)
class SequenceResult:
    """Outcome of one sequence.

    Attributes:
        name: the sequence's name.
        objects: scores by object id as annotated; empty when no frame could be scored.
        frames: frames that were tracked, the first of them given.
        seconds: time spent in the tracker, reading and writing files left out.
    """

    name: str
    objects: dict[int, Score]
    frames: int
    seconds: float

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
    """Outcome of a split.

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
        """Mean over all objects of all sequences; None when there is no truth beyond the given masks."""
        objects = [score for result in self.sequences for score in result.objects.values()]
        return Score.of_objects(objects) if objects else None

    @property
    def fps(self) -> float:
        """Frames per second of the tracker alone, over all sequences."""
        seconds = sum(result.seconds for result in self.sequences)
        return sum(result.frames for result in self.sequences) / seconds if seconds else 0.0

    def rows(self) -> list[tuple[str, ...]]:
        """A table, texts in the order of :data:`COLUMNS`: a row per sequence and one for the whole split."""
        rows = [_row(result.name, len(result.objects), result.score, result.fps) for result in self.sequences]
        objects = sum(len(result.objects) for result in self.sequences)
        return [*rows, _row("all", objects, self.score, self.fps)]

    def to_json(self) -> str:
        """Everything as JSON; scores in percent, null where nothing could be scored."""
        document = {
            "split": self.split,
            "size": self.size,
            "unit": "percent",
            "global": _score_json(self.score),
            "fps": self.fps,
            "sequences": {
                result.name: {
                    **_score_json(result.score),
                    "frames": result.frames,
                    "fps": result.fps,
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
    return (name, str(objects), *figures, f"{fps:.1f}")


def _statistics(measure: Measure) -> tuple[float, float, float]:
    return measure.mean, measure.recall, measure.decay


def _score_json(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"J&F": None, "J": None, "F": None}
    return {"J&F": score.jf, "J": asdict(score.j), "F": asdict(score.f)}
