"""Choose the best row on one half of the sequences, report it on the other, and the other way round.

A setting that was chosen because it scores best on some sequences flatters itself there. So the sequences are
dealt alternately, in alphabetical order, into two halves. The row that is best on one half is reported by its
score on the other. The mean of both reports estimates what choosing this way scores on new video.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Scores = Mapping[str, float]
"""J&F in percent by sequence."""


@dataclass(frozen=True)
class Choice:
    """The best row on one half.

    Attributes:
        chosen_on: sequences of the half on which the row is best.
        reported_on: sequences of the other half.
        name: of the row.
        score_there: its mean on ``chosen_on``.
        held_out_score: its mean on ``reported_on``.
    """

    chosen_on: tuple[str, ...]
    reported_on: tuple[str, ...]
    name: str
    score_there: float
    held_out_score: float


def halves(sequences: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sequences in alphabetical order, dealt alternately to A and B."""
    names = tuple(sorted(sequences))
    return names[::2], names[1::2]


def mean_over(scores: Scores, sequences: Iterable[str]) -> float:
    """Mean over ``sequences``, nan over none."""
    values = [scores[name] for name in sequences]
    return sum(values) / len(values) if values else float("nan")


def choose(rows: Mapping[str, Scores]) -> tuple[Choice, Choice]:
    """The best row on A, reported on B, and the best row on B, reported on A. The first of equal rows wins.

    Raises:
        ValueError: when there are no rows, or rows differ in their sequences, or there are fewer than two.
    """
    if not rows:
        raise ValueError("there are no rows to choose from")
    sequences = next(iter(rows.values())).keys()
    if len(sequences) < 2 or any(scores.keys() != sequences for scores in rows.values()):
        raise ValueError("all rows need the same sequences, at least two")
    first, second = halves(sequences)
    return _best(rows, first, second), _best(rows, second, first)


def _best(rows: Mapping[str, Scores], half: tuple[str, ...], other: tuple[str, ...]) -> Choice:
    name = max(rows, key=lambda row: mean_over(rows[row], half))
    return Choice(half, other, name, mean_over(rows[name], half), mean_over(rows[name], other))


def held_out_table(rows: Mapping[str, Scores]) -> str:
    """Markdown: the mean of every row on each half, and what the choice on one half scores on the other."""
    first, second = halves(next(iter(rows.values())))
    lines = [
        f"A: {', '.join(first)}",
        "",
        f"B: {', '.join(second)}",
        "",
        "| | A | B | all |",
        "|---|---|---|---|",
    ]
    for name, scores in rows.items():
        cells = [f"{mean_over(scores, part):.1f}" for part in (first, second, scores)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if len(rows) > 1 and second:
        choices = choose(rows)
        lines += [
            f"\nChosen on {half}: {choice.name} ({choice.score_there:.1f} there), "
            f"{choice.held_out_score:.1f} on {other}."
            for choice, half, other in zip(choices, "AB", "BA", strict=True)
        ]
        lines.append(f"\nHeld out, both ways: {sum(choice.held_out_score for choice in choices) / 2:.1f}.")
    return "\n".join(lines) + "\n"
