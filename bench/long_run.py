"""Whether a long run leaks: memory, open files, threads, and the time of a frame.

A clip is played again and again through everything: file, decoder, tracker, masks, overlay video and JSON
lines. Each pass opens and closes its source and its sinks, as `maskring track` does; one tracker sees all
frames. Objects are added, corrected and removed at random, up to eight at once. Memory is the resident size,
read between two passes. Time is that of one step of the tracker and shows whether it grows; frames are small,
so it says nothing about speed.

    python bench/long_run.py --clip CLIP --frames 100000 --markdown long_run.md
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from maskring import open_source, open_tracker
from maskring.common.files import atomic_path
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.overlay_video import OverlayVideoSink
from maskring.runtime.video.sinks import JsonLinesSink, MaskFolderSink

HEIGHT, WIDTH = 48, 64
MAX_OBJECTS = 8
SAMPLES = 20
"""Lines of the report."""


@dataclass(frozen=True)
class Sample:
    """The process after ``frames`` frames; ``p50_ms`` and ``p99_ms`` are of those since the sample before."""

    frames: int
    objects_seen: int
    resident_mb: float
    open_files: int
    threads: int
    p50_ms: float
    p99_ms: float


class RandomEdits:
    """Objects that are added, corrected and removed at random; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng, self.seen = random.Random(seed), 0

    def mask(self, tracked: list[int]) -> np.ndarray | None:
        """A mask for the next frame, or None: a new object, or a correction of a tracked one."""
        if tracked and self._rng.random() > 0.05:
            return None
        new = [number for number in range(1, 256) if number not in tracked]
        chosen = self._rng.choice(new if len(tracked) < MAX_OBJECTS else tracked)
        self.seen += chosen not in tracked
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        y, x = self._rng.randrange(HEIGHT - 12), self._rng.randrange(WIDTH - 12)
        mask[y : y + 12, x : x + 12] = chosen
        return mask

    def removed(self, tracked: list[int]) -> list[int]:
        """Objects to remove before the next frame; now and then all of them."""
        if self._rng.random() < 0.002:
            return tracked
        return [number for number in tracked if self._rng.random() < 0.005]


def small_frames(clip: Path) -> Iterator[Frame]:
    """One pass over the clip, scaled down."""
    with open_source(clip) as source:
        for frame in source:
            size = (WIDTH, HEIGHT)
            image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            yield replace(frame, image=np.asarray(image, np.uint8))


def one_pass(tracker: Tracker, edits: RandomEdits, clip: Path, out: Path, most: int) -> list[float]:
    """Play the clip once, or its first ``most`` frames; returns seconds of each step."""
    seconds: list[float] = []
    tracked: list[int] = []
    with ExitStack() as stack:
        sinks: list[MaskFolderSink | OverlayVideoSink | JsonLinesSink] = [
            stack.enter_context(MaskFolderSink(out / "masks")),
            stack.enter_context(OverlayVideoSink(out / "overlay.mp4", 24.0)),
            stack.enter_context(JsonLinesSink(out / "objects.jsonl")),
        ]
        for frame in small_frames(clip):
            for number in edits.removed(tracked):
                tracker.remove(number)
                tracked.remove(number)
            result = tracker.step(frame.image, edits.mask(tracked))
            tracked = [state.id for state in result.objects]
            for sink in sinks:
                sink.write(frame, result)
            seconds.append(result.timings.total)
            if len(seconds) == most:
                break
    for number in tracked:
        tracker.remove(number)
    return seconds


def sample(frames: int, seen: int, seconds: list[float]) -> Sample:
    """Look at this process, once what only waits for the garbage collector is gone."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    milliseconds = 1e3 * np.array(seconds)
    return Sample(
        frames=frames,
        objects_seen=seen,
        resident_mb=round(pages * os.sysconf("SC_PAGESIZE") / 1e6, 1),
        open_files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        threads=sum(1 for _ in Path("/proc/self/task").iterdir()),
        p50_ms=round(float(np.percentile(milliseconds, 50)), 3),
        p99_ms=round(float(np.percentile(milliseconds, 99)), 3),
    )


def run(clip: Path, model: Path | None, frames: int, seed: int) -> list[Sample]:
    """The whole run; the first sample is taken after a tenth of it or 300 frames, what is less."""
    samples, recent, done = [], list[float](), 0
    edits = RandomEdits(seed)
    with tempfile.TemporaryDirectory() as folder, open_tracker(model, threads=1) as tracker:
        due = iter(np.linspace(min(300, frames // 10), frames, SAMPLES + 1).astype(int).tolist())
        following = next(due)
        while done < frames:
            taken = one_pass(tracker, edits, clip, Path(folder), frames - done)
            done += len(taken)
            recent += taken
            if done >= following:
                samples.append(sample(done, edits.seen, recent))
                recent = []
                following = next((mark for mark in due if mark > done), frames)
    return samples


def markdown(samples: list[Sample], options: argparse.Namespace) -> str:
    """The report as a page."""
    rows = [
        f"| {s.frames:,} | {s.objects_seen:,} | {s.resident_mb:.1f} | {s.open_files} | {s.threads} "
        f"| {s.p50_ms:.2f} | {s.p99_ms:.2f} |"
        for s in samples
    ]
    return "\n".join(
        [
            "# A long run",
            "",
            __doc__.strip().split("\n\n")[1],
            "",
            "```sh",
            f"python bench/long_run.py --clip {options.clip.name} --frames {options.frames}",
            "```",
            "",
            f"{platform.machine()}, Python {platform.python_version()}, one thread, {WIDTH}x{HEIGHT} pixels, "
            f"{options.model or 'the shipped nano'}; other programs shared the machine.",
            "",
            "| frames | objects so far | resident MB | open files | threads | step p50 ms | step p99 ms |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--model", type=Path, help="default: the shipped nano")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    options = parser.parse_args()
    samples = run(options.clip, options.model, options.frames, options.seed)
    for path, text in (
        (options.json, json.dumps([asdict(taken) for taken in samples])),
        (options.markdown, markdown(samples, options)),
    ):
        if path is not None:
            with atomic_path(path) as partial:
                partial.write_text(text)
    Console().print(markdown(samples, options), markup=False)


if __name__ == "__main__":
    main()
