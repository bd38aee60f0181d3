"""Compare two versions of maskring on a real sequence: speed, and whether the masks are equal.

Each version has a process of its own. They take turns frame by frame, so that other work on the machine affects
both alike. CPU time counts all cores; when it disagrees with the wall clock, the machine was busy. Each version
propagates its own masks; `equal` is the smallest share of equal pixels in any frame. Install the version before
into another folder:

    git worktree add ../old COMMIT
    pip install --no-build-isolation --no-deps --target ../before ../old
    python bench/before_after.py --before ../before --frames DAVIS/JPEGImages/480p/dog-agility nano.onnx
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

WARM_UP = 6
"""Frames that are not timed; after them the memory is full."""

HEADINGS = ["model", "frame", "objects", "before ms", "now ms", "faster"]
HEADINGS += ["before CPU ms", "now CPU ms", "faster", "equal"]


def work(pipe: Connection, package: Path | None, model: Path, threads: int) -> None:
    """Track the frames that arrive through ``pipe``; send back labels, wall seconds and CPU seconds."""
    if package is not None:
        # An editable install takes precedence over sys.path.
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
        sys.path.insert(0, str(package))
    import maskring.runtime
    from maskring.runtime.backends import open_backend

    try:
        module = import_module("maskring.runtime.tracking.tracker")
    except ImportError:  # version 0.1.0
        module = import_module("maskring.runtime.tracker")

    if package is not None:
        assert package.resolve() in Path(str(maskring.runtime.__file__)).resolve().parents
    with module.Tracker(open_backend(model, threads=threads)) as tracker:
        while (given := pipe.recv()) is not None:
            wall, cpu = time.perf_counter(), time.process_time()
            labels = tracker.step(*given).labels
            pipe.send((labels, time.perf_counter() - wall, time.process_time() - cpu))


def measure(model: Path, frames: list[np.ndarray], objects: int, options: argparse.Namespace) -> str:
    """One row of the table: both versions on the same frames."""
    context = get_context("spawn")
    pipes, workers = [], []
    for package in (options.before, None):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(theirs, package, model, options.threads), daemon=True)
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    times, equal = [], []
    for index, frame in enumerate(frames):
        given = frame, squares(frame.shape[:2], objects) if index == 0 else None
        answers = {}
        for version in (0, 1) if index % 2 else (1, 0):
            pipes[version].send(given)
            answers[version] = pipes[version].recv()
        times.append([answers[0][1:], answers[1][1:]])
        equal.append(np.mean(answers[0][0] == answers[1][0]))
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(None)
        worker.join()
    timed = np.array(times[WARM_UP:])  # [frames, before or now, wall or CPU]
    (wall, cpu), (wall_now, cpu_now) = np.median(timed, axis=0) * 1e3
    faster, faster_cpu = np.median(timed[:, 0] / timed[:, 1], axis=0)
    height, width = frames[0].shape[:2]
    cells = [model.stem, f"{width}x{height}", str(objects), f"{wall:.0f}", f"{wall_now:.0f}", f"{faster:.2f}"]
    cells += [f"{cpu:.0f}", f"{cpu_now:.0f}", f"{faster_cpu:.2f}", f"{min(equal):.3%}"]
    return row(cells)


def row(cells: Sequence[str]) -> str:
    """Of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def squares(size: tuple[int, int], objects: int) -> np.ndarray:
    """A mask of ``objects`` squares in rows; their content does not affect the time."""
    height, width = size
    columns = int(np.ceil(np.sqrt(objects * width / height)))
    side = width // columns
    mask = np.zeros(size, np.uint8)
    for number in range(objects):
        top, left = number // columns * side, number % columns * side
        mask[top + side // 8 : top + side * 7 // 8, left + side // 8 : left + side * 7 // 8] = number + 1
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="exported models")
    parser.add_argument("--before", type=Path, required=True, help="folder that the version before is in")
    parser.add_argument("--frames", type=Path, required=True, help="folder of JPEG frames")
    parser.add_argument("--count", type=int, default=16, help="frames, warm-up included")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--height", type=int, nargs="+", default=[480], help="heights to scale frames to")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    # Not at the top: workers import this file before they choose their version.
    from maskring.runtime.video.images import read_image

    read = [read_image(path) for path in sorted(options.frames.glob("*.jpg"))[: options.count]]
    print(row(HEADINGS), row(["---"] * len(HEADINGS)), sep="\n")
    for model in options.models:
        for height in options.height:
            scaled = (round(height * read[0].shape[1] / read[0].shape[0]), height)
            frames = [np.ascontiguousarray(cv2.resize(frame, scaled)) for frame in read]
            for objects in options.objects:
                print(measure(model, frames, objects, options), flush=True)


if __name__ == "__main__":
    main()
