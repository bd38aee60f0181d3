"""GPU day: tracking from end to end, by the step graphs of shipped checkpoints in torch."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from typing import Any

import numpy as np
import torch
from gpu_day_state import Day
from numpy.typing import NDArray

from maskring.export.step_module import StepGraph
from maskring.plugins.windowed_affinity.torch_float32 import exact_float32
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.synthetic import render_clip
from maskring.training.checkpoint import Checkpoint, load_checkpoint
from maskring.training.network.encoder import STRIDE
from maskring.training.weights import shipped_checkpoint

Image = NDArray[np.uint8]

WARM_UP = 8
"""Frames after which the memory is full; those before are not timed."""

COMPARED = 4
"""Frames that are tracked on the CPU, too, where each takes seconds."""

DISAGREEMENT = 0.01
"""Share of these frames' pixels that may differ: more is a fault, not rounding."""


class StepGraphBackend:
    """A :class:`maskring.runtime.backends.Backend` whose step graph and memory are on one torch device.

    Args:
        checkpoint: its settings of tracking are used.
        device: of graph and memory.
        dtype: of features and label maps.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        settings = {
            name: getattr(checkpoint.tracking, name)
            for name in (
                "radius",
                "logit_scale",
                "top_k",
                "roi_step",
                "smoothing_radius",
                "confidence_exponent",
                "guided_filter_radius",
            )
        }
        self.metadata = ModelMetadata(stride=STRIDE, channels=checkpoint.config.channels, **settings)
        self._graph = StepGraph(checkpoint.query_encoder(), dtype=dtype, **settings).eval().to(device)
        self._device, self._dtype = device, dtype
        self._keys = self._values = torch.zeros(0)

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """Allocate memory; its content stays when only the number of labels grows."""
        grid = self.metadata.feature_size(height, width)
        zeros = functools.partial(torch.zeros, device=self._device, dtype=self._dtype)
        values = zeros((1, num_slots, num_labels, *grid))
        if self._values.shape[-2:] == grid and self._values.shape[1] == num_slots:
            values[:, :, : self._values.shape[2]] = self._values
        else:
            self._keys = zeros((1, num_slots, self.metadata.channels, *grid))
        self._values = values

    @torch.no_grad()
    def step(
        self, frame: Any, dilation: NDArray[np.int32], write_slot: int
    ) -> tuple[Image, NDArray[np.floating[Any]]]:
        """Label ``frame`` and write it into memory."""
        image = torch.from_numpy(np.ascontiguousarray(frame))[None].to(self._device)
        steps = torch.from_numpy(dilation.copy())[None].to(self._device)
        with exact_float32():
            labels, probabilities, value, key = self._graph(image, self._keys, self._values, steps)
        self._keys[:, write_slot], self._values[:, write_slot] = key, value
        return labels[0].cpu().numpy(), probabilities[0].float().cpu().numpy()

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        """Replace the label map of ``slot``."""
        self._values[0, slot] = torch.from_numpy(np.array(value)).to(self._values)

    def merge_label(self, channel: int) -> None:
        """Add label channel ``channel`` to background in all slots, and clear it."""
        self._values[:, :, 0] += self._values[:, :, channel]
        self._values[:, :, channel] = 0

    def close(self) -> None:
        """Release the memory."""
        self._keys = self._values = torch.zeros(0)


def tracked(backend: StepGraphBackend, clip: list[tuple[Image, Image]]) -> tuple[list[Image], float]:
    """The labels of all frames, and the median seconds of a frame once the memory is full."""
    labels, seconds = [], []
    with Tracker(backend) as tracker:
        for index, (frame, mask) in enumerate(clip):
            start = time.perf_counter()
            labels.append(tracker.step(frame, mask if index == 0 else None).labels.copy())
            if index >= min(WARM_UP, len(clip) - 1):
                seconds.append(time.perf_counter() - start)
    return labels, statistics.median(seconds)


def tracking(day: Day) -> None:
    """Frames per second of shipped checkpoints, and how far their masks are from those of a CPU in float32."""
    size, frames, names = ((32, 48), 3, ("nano",)) if day.dry_run else ((480, 854), 24, ("pico", "full"))
    types = (torch.float32,) if day.dry_run else (torch.float16, torch.float32)  # CPUs are slow at float16
    clip = list(render_clip(*size, frames=frames))
    checkpoints = {name: load_checkpoint(shipped_checkpoint(name)) for name in names}
    labels: dict[tuple[str, torch.dtype], list[Image]] = {}
    for name, dtype in itertools.product(names, types):
        backend = StepGraphBackend(checkpoints[name], day.device, dtype)
        labels[name, dtype], seconds = tracked(backend, clip)
        day.note(f"{name}, {dtype}, frames_s", round(1 / seconds, 1))
    wrong = []
    for name in names:
        on_cpu = StepGraphBackend(checkpoints[name], torch.device("cpu"), torch.float32)
        expected, _ = tracked(on_cpu, clip[:COMPARED])
        for dtype in types:
            differing = float(np.mean(np.stack(labels[name, dtype][:COMPARED]) != np.stack(expected)))
            day.note(f"{name}, {dtype}, pixels_that_differ", round(differing, 5))
            if differing > DISAGREEMENT:
                wrong.append(
                    f"{name} in {dtype}: {100 * differing:.1f} % of the pixels differ from the CPU's"
                )
    if wrong:
        raise SystemExit(wrong[0])
