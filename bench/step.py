"""What a whole step costs beside its encoder, and whether the cost of a frame drifts over a long stream.

Everything is measured in one run, interleaved, on the onnxruntime backend: run it on an idle machine.

    python bench/step.py                 # full encoder, 480x480, r=12, 2 threads; then 3,000 small frames
    python bench/step.py --objects 10
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

from maskring.runtime.backends.onnxruntime import (
    BoundSession,
    OnnxRuntimeBackend,
    load_step_graph,
    open_session,
)
from maskring.runtime.backends.step_graph_parts import (
    FRAME,
    cut_at_memory_read,
    memory_read,
    subgraph,
)
from maskring.runtime.tracker import Tracker

ALLOWED_SHARE = 0.20
"""Time outside the encoder that the project allows itself, as a share of the encoder's."""


@dataclass
class Stopwatch:
    """Calls a function and keeps how long each call took, in seconds."""

    call: Callable[..., Any]
    seconds: list[float] = field(default_factory=list)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        result = self.call(*arguments, **settings)
        self.seconds.append(time.perf_counter() - start)
        return result

    def median(self) -> float:
        return float(np.median(self.seconds))


class SessionWatch(Stopwatch):
    """Stands in for an onnxruntime session and times its runs."""

    def __init__(self, session: Any) -> None:
        super().__init__(session.run_with_iobinding)
        self.session = session
        self.run_with_iobinding = self.__call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def export_random(encoder: str, radius: int, folder: Path) -> Path:
    """Export an untrained encoder: weights do not change the time."""
    import torch

    from maskring.export.onnx_from_checkpoint import export_onnx
    from maskring.training.checkpoint import Checkpoint, save_checkpoint
    from maskring.training.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    config = EncoderConfig.preset(encoder)
    checkpoint = folder / f"{encoder}.safetensors"
    save_checkpoint(checkpoint, Checkpoint(config=config, query=Encoder(config).state_dict()))
    export_onnx(checkpoint, checkpoint.with_suffix(".onnx"), radius=radius)
    return checkpoint.with_suffix(".onnx")


def scene(index: int, height: int, width: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame and mask of textured squares that swing to and fro before noise."""
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


def encoder_alone(model: Path, height: int, width: int, threads: int) -> tuple[Stopwatch, Stopwatch]:
    """Colour conversion alone and encoder alone, cut out of the exported graph at its first convolution."""
    graph, metadata = load_step_graph(model)
    read = memory_read(graph)
    assert read is not None
    query = cut_at_memory_read(graph, read).query
    convolution = next(node for node in graph.graph.node if node.op_type == "Conv")
    lab = convolution.input[0]
    arrays = {
        FRAME: scene(0, height, width, 1)[0][None],
        lab: np.zeros((1, 3, height, width), np.dtype(metadata.dtype)),
        query: np.zeros((1, metadata.channels, *metadata.feature_size(height, width)), metadata.dtype),
    }

    def part(begin: str, end: str) -> Stopwatch:
        session = open_session(subgraph(graph, [begin], [end]), threads)
        return Stopwatch(BoundSession.to(session, arrays, {end: arrays[end]}).run)

    return part(FRAME, lab), part(lab, query)


def measure_step(model: Path, options: argparse.Namespace, console: Console) -> None:
    """Print where the time of a step goes."""
    size = options.height, options.width
    lab, encoder = encoder_alone(model, *size, options.threads)
    backend = OnnxRuntimeBackend(model, threads=options.threads)
    executor: Any = backend._executor
    executor._head = head = SessionWatch(executor._head)
    executor._affinity = affinity = Stopwatch(executor._affinity)
    executor._tail = tail = SessionWatch(executor._tail)
    step = Stopwatch(Tracker(backend).step)
    step(*scene(0, *size, options.objects))
    for index in range(1, options.warm_up + options.repeats):
        if index == options.warm_up:  # from here on the memory is full
            for watch in (lab, encoder, head, affinity, tail, step):
                watch.seconds.clear()
        encoder()
        step(scene(index, *size, options.objects)[0])
        lab()

    python = step.median() - head.median() - affinity.median() - tail.median()
    outside = step.median() - encoder.median()
    table = Table(
        "part", "ms", "of the encoder", title=f"one step, {size[1]}x{size[0]}, {options.objects} objects"
    )
    for name, seconds in (
        ("encoder alone", encoder.median()),
        ("colour conversion alone", lab.median()),
        ("encoder and colour conversion, in the step", head.median()),
        ("memory read", affinity.median()),
        ("upsampling and argmax", tail.median()),
        ("Python: copies, masks, boxes", python),
        ("whole step", step.median()),
        ("whole step, less the encoder", outside),
    ):
        table.add_row(name, f"{seconds * 1e3:.1f}", f"{seconds / encoder.median():.1%}")
    console.print(table)
    verdict = "within" if outside <= ALLOWED_SHARE * encoder.median() else "BEYOND"
    console.print(f"outside the encoder: {outside / encoder.median():.1%}, {verdict} {ALLOWED_SHARE:.0%}")


def measure_drift(model: Path, options: argparse.Namespace, console: Console) -> None:
    """Print the time of a frame along a stream."""
    size, block = (96, 128), options.frames // 6
    tracker = Tracker(OnnxRuntimeBackend(model, threads=options.threads))
    step = Stopwatch(tracker.step)
    for index in range(options.frames):
        frame, mask = scene(index, *size, options.objects)
        step(frame, mask if index == 0 else None)
    table = Table(
        "frames", "median ms", "p95 ms", title=f"a stream of {options.frames} frames, {size[1]}x{size[0]}"
    )
    for start in range(0, block * 6, block):
        part = np.array(step.seconds[start : start + block]) * 1e3
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
    parser.add_argument("--frames", type=int, default=3000, help="length of the long stream; 0 leaves it out")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        measure_step(export_random(options.encoder, options.radius, Path(folder)), options, console)
        if options.frames:
            measure_drift(export_random("nano", 6, Path(folder)), options, console)


if __name__ == "__main__":
    main()
