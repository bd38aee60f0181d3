"""The figures of a profile, and how a time budget is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...common.errors import SourceError


@dataclass(frozen=True)
class Latency:
    """Statistics of durations, in milliseconds.

    Attributes:
        p50, p90, p99, max: percentiles, linearly interpolated, and the maximum.
        mean: average.
        jitter: mean absolute difference of consecutive durations.
    """

    p50: float
    p90: float
    p99: float
    max: float
    mean: float
    jitter: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """Statistics of at least one duration, given in seconds."""
        times = np.array(list(seconds)) * 1e3
        p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist()
        jitter = float(np.abs(np.diff(times)).mean()) if len(times) > 1 else 0.0
        return cls(p50, p90, p99, float(times.max()), float(times.mean()), jitter)


@dataclass(frozen=True)
class Layer:
    """Mean milliseconds per run of one operator of the model."""

    name: str
    kind: str
    milliseconds: float


@dataclass(frozen=True)
class Profile:
    """All figures of one model on this machine.

    Attributes:
        model: its file.
        height, width: size of the frames.
        warm_up, iterations: frames before the measurement, and frames measured.
        threads: CPU threads.
        total: of a whole frame, decoding included.
        stages: by name, see :data:`.stages.STAGES`.
        frames: milliseconds of each frame measured, in order.
        runner: of the bare file by polygraphy's runner; None when it was not run.
        layers: slowest first.
        peak_memory_mb: largest resident size of the process so far.
        machine: what it ran on, and what is known of its clocks.
    """

    model: str
    height: int
    width: int
    warm_up: int
    iterations: int
    threads: int
    total: Latency
    stages: dict[str, Latency]
    frames: list[float]
    runner: Latency | None
    layers: list[Layer]
    peak_memory_mb: float
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second, from the mean time of a frame."""
        return 1e3 / self.total.mean

    def to_json(self) -> dict[str, Any]:
        """All figures as types of JSON."""
        return asdict(self) | {"fps": self.fps, "unit": "ms"}


def budget_ms(text: str) -> float:
    """Milliseconds of a budget such as ``33ms``, ``0.033s`` or ``33``.

    Raises:
        SourceError: when it is not a positive duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)?\s*", text)
    value = float(match.group(1)) * (1e3 if match.group(2) == "s" else 1.0) if match else 0.0
    if not 0 < value < math.inf:
        raise SourceError(f"the budget {text[:20]} is not a duration", "give it as 33ms or 0.033s")
    return value
