"""``maskring evaluate``."""

from __future__ import annotations

from rich import box
from rich.table import Table

from ..runtime.refinement.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE
from . import options, refinement, workers
from .console import busy, note, out
from .options import DeviceChoice, KernelChoice
from .progress import show_progress
from .refinement import ModeChoice


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
    processes: workers.NumProcesses = 1,
    ray: workers.Ray = None,
    refine: refinement.Mode = ModeChoice.off,
    refine_iterations: refinement.Iterations = DEFAULT_ITERATIONS,
    refine_steps: refinement.Steps = 0,
    refine_size: refinement.Size = DEFAULT_SIZE,
    refine_feedback: refinement.Feedback = False,
    refiner: refinement.Start = None,
) -> None:
    """Track a labelled dataset and print the DAVIS measures."""
    from ..models import resolve_model
    from ..runtime.evaluation.protocol import evaluate as evaluate_split
    from ..runtime.evaluation.report import COLUMNS
    from ..runtime.model.engine_file import sha256
    from .tracker_factory import RefinedTrackerFactory, TrackerFactory

    if ray is not None:  # processes of Ray have another working folder
        davis, out_dir, json_file = davis.absolute(), out_dir.absolute(), json_file.absolute()
    with busy("opening the model"):
        executable = resolve_model(model)
    chosen = workers.chosen_workers(processes, ray, threads, device, executable)
    refining = refinement.chosen_refinement(
        refine,
        iterations=refine_iterations,
        steps=refine_steps,
        size=refine_size,
        feedback=refine_feedback,
        start=refiner,
    )
    new_tracker = RefinedTrackerFactory(
        TrackerFactory(executable, kernel.value, chosen.threads_each, device.value), refining
    )
    hashes = [sha256(file) for file in (executable, refiner) if file and file.is_file()]
    settings = repr((chosen.version, hashes, kernel.value, device.value, refining))
    with show_progress(lines=not chosen.here) as progress:
        evaluation = evaluate_split(
            *(davis, split, new_tracker if ray is None else new_tracker.carried(), out_dir, json_file),
            size=size,
            progress=progress,
            workers=chosen,
            settings=settings,
        )
    for result in evaluation.sequences:
        for sentence in result.notes:
            note(f"note: {result.name}: {sentence}")
    table = Table(*COLUMNS, box=box.SIMPLE)
    for row in evaluation.rows():
        table.add_row(*row)
    out.print(table)
