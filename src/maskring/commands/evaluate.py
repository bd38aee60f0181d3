"""``maskring evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ..runtime.refinement.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE
from . import options, refinement
from .console import busy, note, out, say
from .options import DeviceChoice, KernelChoice
from .progress import show_progress
from .refinement import ModeChoice

if TYPE_CHECKING:
    from ..runtime.evaluation.protocol import SequenceTracker


def evaluate(
    davis: options.Davis,
    split: options.Split,
    out_dir: options.PredictionsOut,
    json_file: options.MeasuresOut,
    model: options.Model = None,
    size: options.TrackSize = None,
    kernel: options.Kernel = KernelChoice.native,
    threads: options.Threads = 0,
    device: options.Device = DeviceChoice.cpu,
    shard: options.Shard = False,
    refine: refinement.Mode = ModeChoice.off,
    refine_iterations: refinement.Iterations = DEFAULT_ITERATIONS,
    refine_steps: refinement.Steps = 0,
    refine_size: refinement.Size = DEFAULT_SIZE,
    refine_feedback: refinement.Feedback = False,
    refiner: refinement.Start = None,
) -> None:
    """Track a labelled dataset and print the DAVIS measures."""
    from ..models import open_tracker, resolve_model
    from ..runtime.evaluation.report import COLUMNS
    from ..runtime.evaluation.sharded import DatasetRun

    run = DatasetRun(davis, split, out_dir, json_file, size)
    threads = run.join(shard, threads)
    with busy("opening the model"):
        executable = resolve_model(model)
    refining = refinement.chosen_refinement(
        refine,
        iterations=refine_iterations,
        steps=refine_steps,
        size=refine_size,
        feedback=refine_feedback,
        start=refiner,
    )

    def new_tracker() -> SequenceTracker:
        return refining.wrap(
            open_tracker(executable, kernel=kernel.value, threads=threads, device=device.value)
        )

    with show_progress(shown=run.shows_progress) as progress:
        evaluation = run.evaluate(
            new_tracker, [executable, refiner], (kernel.value, device.value, refining), progress
        )
    if evaluation is None:
        say(f"{run.name} is done; the others are still running")
        return
    for result in evaluation.sequences:
        for sentence in result.notes:
            note(f"note: {result.name}: {sentence}")
    table = Table(*COLUMNS, box=box.SIMPLE)
    for row in evaluation.rows():
        table.add_row(*row)
    out.print(table)
