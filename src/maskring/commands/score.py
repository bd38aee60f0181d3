"""``maskring score``."""

from __future__ import annotations

from rich import box
from rich.table import Table

from . import options
from .console import note, out
from .progress import show_progress


def score(
    predicted: options.Predicted,
    davis: options.Davis,
    split: options.ScoredSplit = None,
    json_file: options.OptionalMeasures = None,
) -> None:
    """Print the DAVIS measures of masks that exist already, by any tracker."""
    from ..runtime.evaluation.protocol import check_json_file, write_measures
    from ..runtime.evaluation.report import COLUMNS
    from ..runtime.evaluation.scoring import score_predictions

    if json_file is not None:
        check_json_file(json_file)
    with show_progress() as progress:
        scoring = score_predictions(predicted, davis, split, progress)
    for result in scoring.evaluation.sequences:
        for sentence in result.notes:
            note(f"note: {result.name}: {sentence}")
    if missing := scoring.without_prediction:
        others = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        note(f"note: annotated, but without predictions: {', '.join(missing[:5])}{others}")
    if json_file is not None:
        write_measures(scoring.evaluation, json_file)
    table = Table(*COLUMNS[:-1], box=box.SIMPLE)
    for row in scoring.evaluation.rows():
        table.add_row(*row[:-1])
    out.print(table)
