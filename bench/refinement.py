"""Measures refinement: J&F and time without, offline and online, on labelled and rendered video.

The rendered clips are difficult. In one, an object passes behind a post, one leaves and returns, and one
grows and crosses the first. In the other, a look-alike passes in front of the object. Times are those of the
tracker with its refinement, as multiples of propagation alone.

    python bench/refinement.py --davis ROOT --split dev                # without --davis: rendered clips alone
    python bench/refinement.py --picture sheet.jpg                     # one frame by iterations
    python bench/refinement.py --latency                               # frames with and without a worker
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from davis import table

from maskring.common.files import atomic_path
from maskring.models import open_tracker, resolve_model
from maskring.runtime.evaluation.protocol import SequenceTracker, evaluate
from maskring.runtime.evaluation.report import Evaluation
from maskring.runtime.refinement.comparison import side_by_side
from maskring.runtime.refinement.crop import Crop
from maskring.runtime.refinement.guard import Guard
from maskring.runtime.refinement.network.adaptation import Adaptation
from maskring.runtime.refinement.network.predictor import one_thread
from maskring.runtime.refinement.online import OnlineRefiner
from maskring.runtime.refinement.samples import SampleBuffer, SampleMaker
from maskring.runtime.refinement.session import Refinement
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.refinement.worker import ProcessWorker, ThreadWorker
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.runtime.video.overlay import draw_overlay
from maskring.runtime.video.synthetic import render_clip, render_lookalike_clip

STEPS_PER_FRAME = 4
"""Steps per frame of the online rows: about as many as a GPU takes per frame, and the same in every run."""

Drawn = tuple[np.ndarray, "np.ndarray | None"]
"""A frame and, where the user gave them, its labels."""

ITERATIONS = (0, 50, 100, 200, 400)
"""Of the picture, as in the talk on arXiv 2006.12480."""

RENDERED_FRAMES = 60
LATENCY_ROUNDS = 5


def rows() -> dict[str, Refinement]:
    """All rows of the table by name."""
    settings = RefinementSettings()
    return {
        "off": Refinement(),
        "offline": Refinement("offline", settings),
        "whole frame, offline": Refinement("offline", replace(settings, margin=0)),
        f"online, {STEPS_PER_FRAME} steps a frame": Refinement("online", settings, STEPS_PER_FRAME),
        f"online, {STEPS_PER_FRAME} steps a frame, feedback": Refinement(
            "online", replace(settings, feedback=True), STEPS_PER_FRAME
        ),
    }


@contextmanager
def rendered_dataset(frames: int) -> Iterator[Path]:
    """The rendered clips as a folder in DAVIS layout with the split ``all``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, render in (("rendered", render_clip), ("look-alike", render_lookalike_clip)):
            images, masks = root / "JPEGImages" / name, root / "Annotations" / name
            images.mkdir(parents=True)
            masks.mkdir(parents=True)
            for index, (image, labels) in enumerate(render(360, 640, frames)):
                cv2.imwrite(str(images / f"{index:05d}.png"), image[..., ::-1])
                write_mask(masks / f"{index:05d}.png", labels)
        yield root


def measured(root: Path, split: str, model: Path, refinement: Refinement) -> Evaluation:
    """One row on one dataset."""

    def new_tracker() -> SequenceTracker:
        return refinement.wrap(open_tracker(model))

    with tempfile.TemporaryDirectory() as folder:
        return evaluate(root, split, new_tracker, Path(folder), Path(folder) / "scores.json")


def compare_all(root: Path, split: str, model: Path, chosen: Callable[[str], bool]) -> str:
    """Both tables as Markdown: scores, and seconds as multiples of those of the first row."""
    evaluations: dict[str, Evaluation] = {}
    for name, refinement in rows().items():
        if chosen(name):
            evaluations[name] = measured(root, split, model, refinement)
            print(table({name: evaluations[name]}).splitlines()[-1], flush=True)
    seconds = {
        name: sum(result.seconds for result in evaluation.sequences)
        for name, evaluation in evaluations.items()
    }
    first = next(iter(seconds.values()))
    times = [f"| {name} | {spent / first:.2f} |" for name, spent in seconds.items()]
    return (
        "\n".join([table(evaluations), "| | time, multiple of the first row |", "|---|---|", *times]) + "\n"
    )


def latency(model: Path, rounds: int) -> str:
    """Wall time of a frame by the tracker alone and with a worker beside it, in alternating runs of one clip.

    The tracker has one thread, so that the worker finds a core on a machine with two. Two busy cores also
    slow each other down (clock, memory), which is not the worker's fault. So one mode runs an unrelated
    computation on the second core.
    """
    frames = list(render_clip(360, 640, RENDERED_FRAMES))
    times: dict[str, list[float]] = {name: [] for name in ("off", "off, beside a stranger", "online")}
    forward: list[float] = []
    adapted = 0
    for _ in range(rounds):
        for mode, seconds in times.items():
            refinement = Refinement("online" if mode == "online" else "off")
            beside = stranger() if "stranger" in mode else nullcontext()
            with beside, closing(refinement.wrap(open_tracker(model, threads=1))) as tracker:
                if isinstance(tracker, OnlineRefiner):
                    tracker.step(*frames[0])
                    tracker.step(frames[1][0])
                    assert isinstance(tracker.worker, ThreadWorker | ProcessWorker)
                    tracker.worker.arrived.wait()  # time the worker at work, not its start
                for index, (image, labels) in enumerate(frames):
                    started = time.perf_counter()
                    tracker.step(image, labels if index == 0 else None)
                    seconds.append(time.perf_counter() - started)
                if isinstance(tracker, OnlineRefiner):
                    adapted += tracker.iterations
                    forward += forward_times(tracker, frames[0][0])
    lines = ["| | p50 ms | p99 ms |", "|---|---|---|"]
    for name, seconds in {**times, "forward pass": forward}.items():
        p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
        lines.append(f"| {name} | {p50:.1f} | {p99:.1f} |")
    return "\n".join(lines) + f"\n\n{adapted} optimiser steps beside {len(times['online'])} frames\n"


@contextmanager
def stranger() -> Iterator[None]:
    """A process that computes on one core, with the lowest priority like the worker."""
    code = "import os, torch; os.nice(19); torch.set_num_threads(1); x = torch.rand(1, 32, 160, 160)\n"
    code += "layer = torch.nn.Conv2d(32, 32, 3)\nprint(flush=True)\nwhile True: layer(x).sum().backward()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def forward_times(refiner: OnlineRefiner, image: np.ndarray) -> list[float]:
    """Seconds of the U-Net alone, some frames in a row."""
    seen, seconds = Crop((0, 0, image.shape[1], image.shape[0]), RefinementSettings().size).image(image), []
    for _ in range(20):
        started = time.perf_counter()
        with one_thread():  # as the stream does it
            refiner.predictor.predict(seen, refiner.predictor.ids)
        seconds.append(time.perf_counter() - started)
    return seconds


def clip_of(root: Path, sequence: str) -> list[Drawn]:
    """The frames of a DAVIS sequence, the first with its labels."""
    files = sorted((root / "JPEGImages" / "480p" / sequence).iterdir())
    first = read_mask(root / "Annotations" / "480p" / sequence / f"{files[0].stem}.png")
    return [(read_image(file), None if index else first) for index, file in enumerate(files)]


def picture(frames: list[Drawn], model: Path, path: Path) -> None:
    """One frame of a clip as propagated, and the U-Net's own masks of it after several numbers of iterations."""
    shown = len(frames) * 3 // 4
    settings, buffer = RefinementSettings(), SampleBuffer(RefinementSettings().buffer)
    with open_tracker(model) as tracker:
        maker = SampleMaker(settings, tracker.stride)
        for index, (image, mask) in enumerate(frames):
            result = tracker.step(image, mask)
            buffer.add(maker.make(image, result, mask))
            if index == shown:
                ids, propagated = [state.id for state in result.objects], result
                kept, view, seen = image, maker.crop(result), maker.crop(result).image(image)
                panels = {"input": image, "propagation": draw_overlay(image, result.labels)}
    adaptation = Adaptation(settings)
    adaptation.predictor.follow(ids, settings.seed)
    for iterations in ITERATIONS:
        while adaptation.iterations < iterations:
            adaptation.step(buffer, anneal=False)
        found = adaptation.predictor.predict(seen, ids)
        (x0, y0, x1, y1), labels = view.box, np.zeros(kept.shape[:2], np.uint8)
        winner = np.argmax([view.pixels(one) for one in found], axis=0)
        labels[y0:y1, x0:x1] = np.array([0, *ids], np.uint8)[winner]
        panels[f"U-Net alone, {iterations} iterations"] = draw_overlay(kept, labels)
    guard = Guard(settings.trust, tracker.metadata)
    panels["both"] = draw_overlay(kept, guard.decide(kept, propagated, found, view, {}).labels)
    small = [(name, np.asarray(cv2.resize(p, None, fx=0.5, fy=0.5), np.uint8)) for name, p in panels.items()]
    rows = [side_by_side(dict(small[start : start + 4])) for start in (0, 4)]
    with atomic_path(path) as partial:
        partial.write_bytes(cv2.imencode(path.suffix, np.vstack(rows)[..., ::-1])[1].tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--davis", type=Path, help="without it: the rendered clips alone")
    parser.add_argument(
        "--latency", action="store_true", help="time frames with and without a worker instead"
    )
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", type=Path, help="default: the shipped checkpoint")
    parser.add_argument("--only", nargs="+", help="rows whose names begin with one of these")
    parser.add_argument("--picture", type=Path, help="write the comparison by iterations instead")
    parser.add_argument("--sequence", default="dog-agility", help="of the picture, with --davis")
    options = parser.parse_args()
    model = resolve_model(options.model)
    if options.latency:
        print(latency(model, LATENCY_ROUNDS))
        return
    if options.picture:
        rendered = [
            (image, None if i else drawn)
            for i, (image, drawn) in enumerate(render_clip(360, 640, RENDERED_FRAMES))
        ]
        frames = clip_of(options.davis, options.sequence) if options.davis else rendered
        picture(frames, model, options.picture)
        return

    def chosen(name: str) -> bool:
        return not options.only or any(name.startswith(part) for part in options.only)

    if options.davis is not None:
        print("\n" + compare_all(options.davis, options.split, model, chosen), flush=True)
    with rendered_dataset(RENDERED_FRAMES) as root:
        print("\n" + compare_all(root, "all", model, chosen))


if __name__ == "__main__":
    main()
