"""Whole frames at 480p: beside SAM 2.1 tiny, and against objects, frames, resolution and memory slots.

    python bench/end_to_end.py sam2 --davis ROOT --sam2 sam2-venv/bin/python
    python bench/end_to_end.py stages --davis ROOT      # where the time of a step goes
    python bench/end_to_end.py track --davis ROOT       # the whole command, decoding and writing included
    python bench/end_to_end.py scaling --davis ROOT --out docs/results
    python bench/end_to_end.py stream --davis ROOT --frames 10000 --out docs/results

Those that are compared take turns, frame by frame, so that ratios hold on a machine that is busy elsewhere.
CPU time counts all cores. Shipped checkpoints; frames of dog-agility (854x480), looped to and fro.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

import cv2
import matplotlib
import numpy as np
from affinity import resident_mb
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from maskring.common.files import atomic_path, make_directory
from maskring.models import open_tracker, resolve_model
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.tracker import Tracker

matplotlib.use("Agg")

Image = NDArray[np.uint8]
CLIP = "dog-agility"
MODELS = ("pico", "pico int8", "nano", "nano int8", "full", "full int8")
AIMS = {"nano": 20, "full": 8}
"""Times faster than SAM 2.1 tiny that the project aims at."""
WARM_UP = 8
"""Frames after which both memories are full."""
QUESTIONS = ("objects", "height", "frames read")
OBJECTS, HEIGHTS, SLOTS = (1, 2, 5, 10, 20, 32), (240, 360, 480, 720, 1080), (1, 2, 3, 5, 8, 12)


def frame_files(davis: Path) -> list[Path]:
    return sorted((davis / "JPEGImages/480p" / CLIP).glob("*.jpg"))


def mask_file(davis: Path) -> Path:
    return davis / "Annotations/480p" / CLIP / "00000.png"


def to_and_fro(davis: Path, height: int = 480) -> Iterator[Image]:
    """The clip's frames [H, W, 3] RGB without end, 16:9."""
    size = (round(height * 854 / 480), height)
    frames = []
    for file in frame_files(davis):
        image = cv2.imread(str(file))
        assert image is not None
        resized = image if image.shape[:2] == size[::-1] else cv2.resize(image, size)
        frames.append(np.ascontiguousarray(resized[..., ::-1], np.uint8))
    return itertools.cycle(frames + frames[-2:0:-1])


def grid_mask(height: int, width: int, objects: int) -> Image:
    """[H, W] squares, as many as there are objects, evenly spread."""
    mask = np.zeros((height, width), np.uint8)
    columns = int(np.ceil(np.sqrt(objects * width / height)))
    rows = -(-objects // columns)
    side = min(height // rows, width // columns) * 2 // 3
    for index in range(objects):
        top = (2 * (index // columns) + 1) * height // (2 * rows) - side // 2
        left = (2 * (index % columns) + 1) * width // (2 * columns) - side // 2
        mask[top : top + side, left : left + side] = index + 1
    return mask


def model_file(name: str, davis: Path, folder: Path) -> Path:
    """The exported model behind "nano", "full int8" ...; int8 ones are made in ``folder``, once."""
    encoder, *integer = name.split()
    model = resolve_model(Path(encoder))
    if not integer:
        return model
    from maskring.export.int8 import quantize_onnx

    out = folder / f"{encoder}-int8.onnx"
    if not out.exists():
        quantize_onnx(model, out, list(itertools.islice(to_and_fro(davis, 240), 0, 16, 2)))
    return out


@dataclass
class Lane:
    """One tracker on an endless clip, and what its frames took."""

    tracker: Tracker
    frames: Iterator[Image]
    mask: Image
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def step(self) -> None:
        frame = next(self.frames)
        wall, cpu = time.perf_counter(), time.process_time()
        self.tracker.step(frame, None if self.wall else self.mask)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    def medians(self) -> tuple[float, float]:
        """Milliseconds of a frame with a full memory: wall clock, CPU."""
        return median(self.wall[WARM_UP:]) * 1e3, median(self.cpu[WARM_UP:]) * 1e3


def take_turns(lanes: dict[str, Lane], rounds: int) -> None:
    """Let each lane make one step in each round."""
    for _ in range(WARM_UP + rounds):
        for lane in lanes.values():
            lane.step()


# --- beside SAM 2


class Worker:
    """A process that processes one frame when asked to and says what it took."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.spent: list[tuple[float, float, float]] = []

    def step(self) -> None:
        """Wall and CPU seconds of the next frame, and the peak resident MB so far."""
        into, out = self.process.stdin, self.process.stdout
        assert into is not None and out is not None
        into.write("step\n"), into.flush()
        while (line := out.readline()) and not line.startswith("["):
            pass  # what libraries print
        if not line:
            raise SystemExit(f"a worker ended: {self._last_words()}")
        self.spent.append(tuple(json.loads(line)))

    def _last_words(self) -> str:
        errors: IO[str] | None = self.process.stderr
        return (errors.read().strip().splitlines() or ["silently"])[-1] if errors else ""

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def be_worker(model: Path, davis: Path, threads: int) -> None:
    """Entry of maskring's workers."""
    mask = cv2.imread(str(mask_file(davis)), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    lane = Lane(open_tracker(model, threads=threads), to_and_fro(davis), (mask > 0).astype(np.uint8))
    for _ in sys.stdin:
        lane.step()
        print(json.dumps([lane.wall[-1], lane.cpu[-1], resident_mb("VmHWM")]), flush=True)


def beside_sam2(options: argparse.Namespace, console: Console) -> None:
    """Print a table: every model of ours and SAM 2, in one run."""
    script = Path(__file__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip"
        clip.mkdir()
        for index, file in enumerate(frame_files(options.davis)[: WARM_UP + options.rounds]):
            (clip / f"{index:05d}.jpg").symlink_to(file.resolve())
        threads = ["--threads", str(options.threads)]
        worker = [sys.executable, str(script), "worker", "--davis", str(options.davis), *threads, "--model"]
        commands = {
            name: [*worker, str(model_file(name, options.davis, folder))]
            for name in MODELS
            if name in options.models
        }
        sam2 = [str(options.sam2), str(script.with_name("sam2_frames.py"))]
        sam2 += [str(clip), str(mask_file(options.davis)), *threads]
        commands["SAM 2.1 tiny"] = sam2
        commands["SAM 2.1 tiny, bfloat16"] = [*sam2, "--bfloat16"]
        workers = {name: Worker(command) for name, command in commands.items()}
        for index in range(WARM_UP + options.rounds):
            for running in workers.values():
                running.step()
            console.print(f"frame {index}: {[round(w.spent[-1][0], 2) for w in workers.values()]}")
        for running in workers.values():
            running.close()
    table = Table("480p, one object", "ms", "fps", "CPU ms", "times faster", "than bfloat16", "peak MB")
    rows = {name: np.array(worker.spent[WARM_UP:]) for name, worker in workers.items()}
    for name, spent in rows.items():
        faster = [
            float(np.median(rows[peer][:, 0] / spent[:, 0]))
            for peer in ("SAM 2.1 tiny", "SAM 2.1 tiny, bfloat16")
        ]
        wall, cpu, peak = np.median(spent[:, 0]) * 1e3, np.median(spent[:, 1]) * 1e3, spent[-1, 2]
        aim = f" (aim {AIMS[name]})" if name in AIMS else ""
        table.add_row(
            name,
            f"{wall:.0f}",
            f"{1e3 / wall:.2f}",
            f"{cpu:.0f}",
            f"{faster[0]:.1f}{aim}",
            f"{faster[1]:.1f}",
            f"{peak:.0f}",
        )
    console.print(table)


# --- where the time goes


def stages(options: argparse.Namespace, console: Console) -> None:
    """Print the parts of a step, for each shipped checkpoint."""
    from step import measure_step

    given = argparse.Namespace(height=480, width=854, objects=1, threads=options.threads)
    given.warm_up, given.repeats = WARM_UP, options.rounds
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            console.print(model)
            measure_step(model_file(model, options.davis, Path(name)), given, console)


def whole_command(options: argparse.Namespace, console: Console) -> None:
    """Print what ``maskring track`` says of its own speed."""
    table = Table("maskring track, 480p", "masks and overlay written, fps", "nothing but objects.jsonl, fps")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in options.models:
            command = [sys.executable, "-m", "maskring", "track", str(frame_files(options.davis)[0].parent)]
            command += ["--mask", str(mask_file(options.davis)), "--threads", str(options.threads)]
            command += ["--model", str(model_file(model, options.davis, folder))]
            cells = []
            for index, extra in enumerate(([], ["--no-masks", "--no-overlay"])):
                out = str(folder / f"{model}{index}")
                done = subprocess.run(
                    [*command, "--out", out, *extra], capture_output=True, text=True, check=True
                )
                found = re.search(r"([\d.]+) fps", done.stdout + done.stderr)
                assert found is not None, done.stdout
                cells.append(found[1])
            table.add_row(model, *cells)
    console.print(table)


# --- how it grows


def lanes_of(options: argparse.Namespace, model: str, question: str) -> dict[str, Lane]:
    """What takes turns to answer a question, by possible answer."""
    davis, threads = options.davis, options.threads

    def lane(height: int = 480, objects: int = 1, policy: MemoryPolicy | None = None) -> Lane:
        tracker = open_tracker(model, policy=policy, threads=threads)
        return Lane(tracker, to_and_fro(davis, height), grid_mask(height, round(height * 854 / 480), objects))

    if question == "objects":
        return {str(count): lane(objects=count) for count in OBJECTS}
    if question == "height":
        return {str(height): lane(height) for height in HEIGHTS}
    return {str(count): lane(policy=MemoryPolicy((), tuple(range(1, count + 1)))) for count in SLOTS}


def scaling(options: argparse.Namespace, console: Console) -> None:
    """Print and plot the time of a frame against objects, height and frames read."""
    found: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for model in options.models:
        if "int8" in model:
            continue
        found[model] = {}
        for question in options.questions:
            lanes = lanes_of(options, model, question)
            take_turns(lanes, options.rounds)
            rows = {name: lane.medians() for name, lane in lanes.items()}
            found[model][question] = rows
            first = next(iter(rows.values()))
            table = Table(question, "ms", "times the first", "CPU ms", "times the first", title=model)
            for name, (wall, cpu) in rows.items():
                table.add_row(
                    name, f"{wall:.0f}", f"{wall / first[0]:.2f}", f"{cpu:.0f}", f"{cpu / first[1]:.2f}"
                )
            console.print(table)
            for lane in lanes.values():
                lane.tracker.close()
    if options.out:
        plot_scaling(options.out, found)


def plot_scaling(out: Path, found: dict[str, dict[str, dict[str, tuple[float, float]]]]) -> None:
    """One panel for each question, CPU time of a frame against it."""
    import matplotlib.pyplot as plt

    make_directory(out)
    for question in next(iter(found.values())):
        figure, axes = plt.subplots(figsize=(4.5, 3))
        for model, questions in found.items():
            rows = questions[question]
            axes.plot([int(name) for name in rows], [cpu for _, cpu in rows.values()], "o-", label=model)
        axes.set_xlabel({"height": "height of the frame, 16:9"}.get(question, question))
        axes.set_ylabel("CPU ms per frame")
        axes.set_ylim(bottom=0)
        axes.legend()
        save(figure, out / f"end_to_end_{question.replace(' ', '_')}.png")


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
    figure.tight_layout()
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def stream(options: argparse.Namespace, console: Console) -> None:
    """Print and plot time and resident memory along a long stream of small frames."""
    import matplotlib.pyplot as plt

    height, block = 90, max(1, options.frames // 10)
    lane = Lane(
        open_tracker("nano", threads=options.threads),
        to_and_fro(options.davis, height),
        grid_mask(height, 160, 2),
    )
    table = Table("frames", "median ms", "p95 ms", "CPU ms", "resident MB", title="160x90, nano, two objects")
    rows = []
    for start in range(0, options.frames, block):
        for _ in range(block):
            lane.step()
        wall, cpu = np.array(lane.wall[start:]) * 1e3, np.array(lane.cpu[start:]) * 1e3
        rows.append((start + block, float(np.median(cpu)), resident_mb("VmRSS")))
        table.add_row(
            f"{start} to {start + block}",
            f"{np.median(wall):.1f}",
            f"{np.percentile(wall, 95):.1f}",
            f"{rows[-1][1]:.1f}",
            f"{rows[-1][2]:.1f}",
        )
    console.print(table)
    if options.out:
        make_directory(options.out)
        ends, times, resident = zip(*rows, strict=True)
        figure, axes = plt.subplots(figsize=(4.5, 3))
        axes.plot(ends, np.array(times) / times[0], "o-", label="CPU time of a frame")
        axes.plot(ends, np.array(resident) / resident[0], "s-", label="resident memory")
        axes.set_xlabel("frames"), axes.set_ylabel("times the first tenth"), axes.set_ylim(0, 2)
        axes.legend()
        save(figure, options.out / "end_to_end_stream.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    jobs = {"sam2": beside_sam2, "stages": stages, "track": whole_command}
    jobs |= {"scaling": scaling, "stream": stream}
    parser.add_argument("job", choices=[*jobs, "worker"])
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--sam2", type=Path, help="Python of an environment with sam2 1.1.0")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12, help="frames of each that are measured")
    parser.add_argument("--frames", type=int, default=10_000, help="length of the stream")
    parser.add_argument("--out", type=Path, help="folder for plots")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job == "worker":
        be_worker(options.model, options.davis, options.threads)
    elif options.job == "sam2" and not (options.sam2 and options.sam2.is_file()):
        parser.error(
            "sam2 needs --sam2, the Python of an environment with sam2: see docs/results/end_to_end.md"
        )
    else:
        jobs[options.job](options, Console(width=110))


if __name__ == "__main__":
    main()
