"""``maskring verify``."""

from __future__ import annotations

from itertools import groupby

import typer
from rich import box
from rich.table import Table

from . import options
from .console import busy, complain, out, say


def verify(
    model: options.OnnxModel,
    checkpoint: options.SourceCheckpoint = None,
    source: options.FrameSource = None,
    frames: options.ComparedFrames = 4,
) -> None:
    """Compare torch, plain onnxruntime and the operator library on frames; exit with 1 if they differ."""
    from ..export.parity import COLUMNS
    from ..export.verification import verify_on_frames
    from ..models import model_file

    checkpoint = None if checkpoint is None else model_file(checkpoint)
    with busy("running the model in every way there is"):
        report = verify_on_frames(model, checkpoint, source, frames)
    for compared, rows in groupby(report.rows, lambda row: row.compared):
        table = Table(*COLUMNS, box=box.SIMPLE, title=compared, title_justify="left")
        for row in rows:
            table.add_row(*row.cells())
        out.print(table)
    if not report.ok:
        complain(f"{model} does not compute what it was exported from.")
        raise typer.Exit(1)
    say(f"{model}: all ways to run it agree")
