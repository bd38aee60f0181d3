"""What a step costs outside its encoder, and whether the time of a frame drifts over a long stream.

All parts are measured in turns in one run, on the onnxruntime backend; a row is the median over frames. CPU
time counts all cores. Where it disagrees with the wall clock, other programs kept the machine busy.

    python bench/step.py                 # full encoder, 480x480, r=12, 2 threads; then 3,000 small frames
    python bench/step.py --objects 10
    python bench/step.py --encoder nano --int8   # float32 against int8, the encoder alone
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from maskring.runtime.backends.onnxrt import executors
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.integer_encoder import for_integer_kernels
from maskring.runtime.backends.onnxrt.session import BoundSession, open_session
from maskring.runtime.model.step_graph import load_step_graph, memory_read, subgraph
from maskring.runtime.model.tensor_names import LAB
from maskring.runtime.tracking.tracker import Tracker

ALLOWED_SHARE = 0.20
"""Largest time outside the encoder that the project accepts, as a share of the encoder's."""


@dataclass
class Stopwatch:
    """Calls a function and records the time of each call: seconds of wall clock, and of all CPU cores."""

    call: Callable[..., Any]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = self.call(*arguments, **settings)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result

    def times(self) -> np.ndarray:
        """[calls, 2] seconds: wall clock, CPU."""
        times: np.ndarray = np.array([self.wall, self.cpu]).T
        return times

    def restart(self) -> None:
        """Forget all calls."""
        self.wall.clear()
        self.cpu.clear()


class SessionWatch(Stopwatch):
    """Wraps an onnxruntime session and times its runs."""

    def __init__(self, session: Any) -> None:
        super().__init__(session.run_with_iobinding)
        self.session = session
        self.run_with_iobinding = self.__call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def export_random(encoder: str, radius: int, folder: Path) -> Path:
    """Export an untrained encoder: weights do not change the time."""
    import torch

    from maskring.export.onnx_export import export_onnx
    from maskring.training.checkpoint import Checkpoint, save_checkpoint
    from maskring.training.network.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    config = EncoderConfig.preset(encoder)
    checkpoint = folder / f"{encoder}.safetensors"
    save_checkpoint(checkpoint, Checkpoint(config=config, query=Encoder(config).state_dict()))
    export_onnx(checkpoint, checkpoint.with_suffix(".onnx"), radius=radius)
    return checkpoint.with_suffix(".onnx")


def scene(index: int, height: int, width: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame and mask of textured squares that move back and forth over noise."""
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    side, shift = min(height, width) // 6, abs(index % 20 - 10)
    for number in range(1, objects + 1):
        top, left = generator.integers(0, height - side), generator.integers(0, width - side - 10) + shift
        texture = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        frame[top : top + side, left : left + side] = texture
        mask[top : top + side, left : left + side] = number
    return frame, mask


def quantized(model: Path) -> Path:
    """``model`` with an int8 encoder, calibrated on a few random frames: ranges do not change the time."""
    from maskring.export.int8 import quantize_onnx

    out = model.with_name(f"{model.stem}-int8.onnx")
    quantize_onnx(model, out, [scene(index, 96, 128, 2)[0] for index in range(2)])
    return out


def measure_int8(model: Path, options: argparse.Namespace, console: Console) -> None:
    """Print the encoder's time in float32 and in int8, measured in turns."""
    size = options.height, options.width
    plain = encoder_alone(model, *size, options.threads)
    integer = encoder_alone(quantized(model), *size, options.threads)
    for index in range(options.warm_up + options.repeats):
        if index == options.warm_up:
            plain.restart()
            integer.restart()
        plain(), integer()
    wall, cpu = (np.median(plain.times(), axis=0) / np.median(integer.times(), axis=0)).tolist()
    milliseconds = [float(np.median(watch.wall)) * 1e3 for watch in (plain, integer)]
    console.print(
        f"{options.encoder} encoder, {size[1]}x{size[0]}, {options.threads} threads: float32 "
        f"{milliseconds[0]:.1f} ms, int8 {milliseconds[1]:.1f} ms: {wall:.2f} times faster "
        f"({cpu:.2f} in CPU time)"
    )


def encoder_alone(model: Path, height: int, width: int, threads: int) -> Stopwatch:
    """The encoder alone, cut out of the exported graph."""
    graph, metadata = load_step_graph(model)
    graph = for_integer_kernels(graph)  # as the backend does
    read = memory_read(graph)
    assert read is not None
    query = read.input[0]
    arrays = {
        LAB: np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32),
        query: np.zeros((1, metadata.channels, *metadata.feature_size(height, width)), metadata.dtype),
    }
    session = open_session(subgraph(graph, [LAB], [query]), threads)
    return Stopwatch(BoundSession.to(session, arrays, {query: arrays[query]}).run)


def measure_step(model: Path, options: argparse.Namespace, console: Console) -> None:
    """Print where the time of a step goes."""
    size = options.height, options.width
    alone = encoder_alone(model, *size, options.threads)
    tracker = Tracker(OnnxRuntimeBackend(model, threads=options.threads))
    executor: Any = tracker._backend._executor  # type: ignore[attr-defined]
    colours = Stopwatch(executors.normalised_lab)  # type: ignore[attr-defined]
    executors.normalised_lab = colours  # type: ignore[attr-defined]
    executor._encoder = encoder = SessionWatch(executor._encoder)
    executor._affinity = affinity = Stopwatch(executor._affinity)
    executor._write_labels = tail = Stopwatch(executor._write_labels)
    step = Stopwatch(tracker.step)
    step(*scene(0, *size, options.objects))
    for index in range(1, options.warm_up + options.repeats):
        if index == options.warm_up:  # from here on the memory is full
            for watch in (alone, colours, encoder, affinity, tail, step):
                watch.restart()
        alone()
        step(scene(index, *size, options.objects)[0])
    read, smoothing = affinity.times()[::2], affinity.times()[1::2]
    parts = sum(watch.times() for watch in (colours, encoder, tail)) + read + smoothing
    report(
        console,
        f"{size[1]}x{size[0]}, {options.objects} objects, {options.threads} threads",
        {
            "encoder alone": alone.times(),
            "whole step": step.times(),
            "  colour conversion": colours.times(),
            "  encoder, in the step": encoder.times(),
            "  memory read": read,
            "  smoothing": smoothing,
            "  labels of the pixels": tail.times(),
            "  Python around them": step.times() - parts,
            "outside the encoder": step.times() - alone.times(),
        },
    )


def report(console: Console, title: str, rows: dict[str, np.ndarray]) -> None:
    """Print medians of [calls, 2] wall and CPU seconds; first the encoder, last the rest."""
    medians = {name: np.median(times, axis=0) for name, times in rows.items()}
    encoder, *_, outside = medians.values()
    table = Table("part", "ms", "of encoder", "CPU ms", "of encoder", title=title)
    for name, (wall, cpu) in medians.items():
        table.add_row(
            name,
            f"{wall * 1e3:.1f}",
            f"{wall / encoder[0]:.1%}",
            f"{cpu * 1e3:.1f}",
            f"{cpu / encoder[1]:.1%}",
        )
    console.print(table)
    share = outside[0] / encoder[0]
    verdict = "within" if share <= ALLOWED_SHARE else "OVER"
    console.print(f"outside the encoder: {share:.1%} of its time, {verdict} {ALLOWED_SHARE:.0%}")


def measure_drift(model: Path, options: argparse.Namespace, console: Console) -> None:
    """Print the time of a frame along a stream."""
    size, block = (48, 64), options.frames // 6
    tracker = Tracker(OnnxRuntimeBackend(model, threads=options.threads))
    step = Stopwatch(tracker.step)
    for index in range(options.frames):
        frame, mask = scene(index, *size, options.objects)
        step(frame, mask if index == 0 else None)
    table = Table(
        "frames", "median ms", "p95 ms", title=f"a stream of {options.frames} frames, {size[1]}x{size[0]}"
    )
    for start in range(0, block * 6, block):
        part = np.array(step.wall[start : start + block]) * 1e3
        table.add_row(
            f"{start} to {start + block}", f"{np.median(part):.2f}", f"{np.percentile(part, 95):.2f}"
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="full", help="preset: full or nano")
    parser.add_argument("--radius", type=int, default=12)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=6, help="frames before the clock starts")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--frames", type=int, default=3000, help="length of the long stream; 0 skips it")
    parser.add_argument("--int8", action="store_true", help="only compare the encoder in float32 and int8")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        if options.int8:
            measure_int8(export_random(options.encoder, options.radius, Path(folder)), options, console)
            return
        measure_step(export_random(options.encoder, options.radius, Path(folder)), options, console)
        if options.frames:
            measure_drift(export_random("nano", 6, Path(folder)), options, console)


if __name__ == "__main__":
    main()
