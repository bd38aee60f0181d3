"""What Python costs per frame around an engine: the real tracker on the fake GPU of the tests.

The fake's engine does nothing, but its outputs are filled in, so that objects have boxes, areas and
confidences. The processor makes the copies to and from the GPU, and driver calls run the fake's Python. Both
count, so the figure is an upper bound of the runtime's share. CPU time counts all cores. Where the wall clock
shows much more, other programs kept the machine busy.

    python bench/overhead.py                    # 480x480, 3 objects, 2,000 frames
    python bench/overhead.py --height 1080 --width 1920 --objects 10
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tools"))

import fake_device
from fake_device import FakeGpu
from pixel_model import write_pixel_model
from step import scene

from maskring.export.engine import EngineOptions
from maskring.runtime.arrays.label_maps import sample
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.tracking.tracker import Tracker

ALLOWED_MS = 0.5
"""Largest median time of a frame outside its engine that the project accepts, at 480x480."""

WARM_UP = 50


PARTS = (
    "whole step",
    "whole step, CPU time",
    "  frame to page-locked memory, its upload",
    "  launch, copies back, wait",
    "  bookkeeping of the memory",
    "  boxes, areas, confidences, copies for the caller",
)


def measure(gpu: FakeGpu, engine: Path, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Milliseconds of each frame, by part."""
    size = options.height, options.width
    scenes = [scene(index, *size, options.objects) for index in range(8)]
    backend = TensorRTBackend(engine)
    rows = []
    with Tracker(backend) as tracker:
        for index in range(WARM_UP + options.frames):
            if options.ahead:
                tracker.prefetch(scenes[(index + 1) % len(scenes)][0])
            started, cpu = time.perf_counter(), time.process_time()
            result = tracker.step(scenes[index % len(scenes)][0], scenes[0][1] if index == 0 else None)
            whole, cpu = time.perf_counter() - started, time.process_time() - cpu
            if index == 0:
                fill_outputs(gpu, backend, scenes[0][1])
            elif options.objects:
                assert all(state.area and state.confidence for state in result.objects)
            upload, run, post = backend.last_upload, backend.last_run, result.timings.post
            rows.append((whole, cpu, upload, run, whole - upload - run - post, post))
    return dict(zip(PARTS, np.array(rows[WARM_UP:]).T * 1e3, strict=True))


def fill_outputs(gpu: FakeGpu, backend: TensorRTBackend, labels: np.ndarray) -> None:
    """Write labels and probabilities to the engine's output buffers, for all frames from now on."""
    tensors = backend._tensors
    assert tensors is not None
    gpu.memory_at(tensors.labels.address, labels.size)[:] = labels.ravel()
    stride, channels = backend.metadata.stride, tensors.sizes[3]
    shares = sample(labels, channels, stride) * 0.9 + 0.1 / channels
    gpu.memory_at(tensors.probabilities.address, shares.nbytes)[:] = (
        shares.astype(np.float32).view(np.uint8).ravel()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--ahead", action="store_true", help="announce each frame one step ahead")
    options = parser.parse_args()
    console = Console()
    gpu = FakeGpu(no_op=True)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        fake_device.install(patch, gpu)
        sizes = EngineOptions(
            height=(options.height,) * 3, width=(options.width,) * 3, objects=(options.objects,) * 3
        )
        model = write_pixel_model(Path(folder) / "model.onnx")
        engine = fake_device.write_engine(model, Path(folder) / "model.engine", sizes)
        rows = measure(gpu, engine, options)
    title = f"{options.width}x{options.height}, {options.objects} objects, no-op engine on the fake GPU"
    table = Table("part", "p50 ms", "p90 ms", "p99 ms", title=title)
    for name, times in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in np.percentile(times, (50, 90, 99))))
    console.print(table)
    median = float(np.median(rows["whole step"]))
    cpu = float(np.median(rows["whole step, CPU time"]))
    verdict = "within" if median <= ALLOWED_MS else "OVER"
    console.print(
        f"outside the engine: {median:.3f} ms per frame (p50; {cpu:.3f} ms CPU), {verdict} {ALLOWED_MS} ms"
    )


if __name__ == "__main__":
    main()
