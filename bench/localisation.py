"""What the search for window centres costs: CPU time of a tracker's step, with and without it.

    python bench/localisation.py --frames davis/JPEGImages/480p/dog-agility

The shipped checkpoint is exported once per step of the search (0 = none). All see the same frames, one
after the other on each frame, so that a machine whose speed drifts slows them alike; labels are those of a
rectangle in the middle of the first frame, which changes no time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from maskring.export.onnx_export import export_onnx
from maskring.models import open_tracker
from maskring.runtime.video.images import read_image
from maskring.training.weights import shipped_checkpoint

WARM_UP = 7
"""Frames that are not timed; after them every kind of slot is read."""


def step_times(models: dict[int, Path], frames: list[Path], threads: int) -> dict[int, float]:
    """Median CPU time per frame in ms of each model."""
    trackers = {step: open_tracker(model, threads=threads) for step, model in models.items()}
    spent: dict[int, list[float]] = {step: [] for step in models}
    for index, path in enumerate(frames):
        frame = read_image(path)
        height, width = frame.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : -height // 3, width // 3 : -width // 3] = 1
        for step, tracker in trackers.items():
            started = time.process_time()
            tracker.step(frame, mask if index == 0 else None)
            if index >= WARM_UP:
                spent[step].append(time.process_time() - started)
    for tracker in trackers.values():
        tracker.close()
    return {step: 1e3 * median(times) for step, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=Path, required=True, help="folder of at least ten .jpg files")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {step: Path(folder) / f"{step}.onnx" for step in options.steps}
        for step, model in models.items():
            export_onnx(shipped_checkpoint(), model, roi_step=step)
        times = step_times(models, sorted(options.frames.glob("*.jpg")), options.threads)
    table = Table("search on every n-th feature", "CPU ms per frame", "times the first")
    for step, spent in times.items():
        table.add_row(str(step or "none"), f"{spent:.0f}", f"{spent / times[options.steps[0]]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
