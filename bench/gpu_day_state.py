"""What a step of GPU day knows, and how it describes a problem to the kernels."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_day_cases import Problem, Tensors
from torch import Tensor

from maskring.plugins.windowed_affinity.cuda_op import ELEMENT_TYPES, CudaKernels
from maskring.plugins.windowed_affinity.cuda_op import Problem as KernelProblem


@dataclass
class Day:
    """What a step knows: where it runs and where its findings go."""

    out: Path
    seconds: float
    dry_run: bool
    carried: Path | None
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device("cpu" if self.dry_run else "cuda")
        self.end = time.monotonic() + 0.9 * self.seconds

    @property
    def in_time(self) -> bool:
        return time.monotonic() < self.end

    @property
    def sm(self) -> int:
        if self.dry_run:
            return 86
        major, minor = torch.cuda.get_device_capability()
        return 10 * major + minor

    def note(self, name: str, value: Any) -> None:
        """Add a finding and write all of them, so that nothing is lost when time runs out."""
        self.found[name] = value
        self.out.write_text(json.dumps(self.found))

    def synchronize(self) -> None:
        if not self.dry_run:
            torch.cuda.synchronize()

    def milliseconds(self, run: Callable[[], Any], rounds: int = 20) -> float:
        """Median time of a call, warm."""
        run()
        self.synchronize()
        times: list[float] = []
        for _ in range(1 if self.dry_run else rounds):
            start = time.perf_counter()
            if self.dry_run:
                run()
            else:
                events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
                events[0].record()
                run()
                events[1].record()
                events[1].synchronize()
                times.append(events[0].elapsed_time(events[1]))
                continue
            times.append(1e3 * (time.perf_counter() - start))
        return round(statistics.median(times), 4)


def kernels() -> CudaKernels:
    return CudaKernels(Path(os.environ["MASKRING_ONNXRUNTIME_LIBRARY"]))


def described(problem: Problem, given: Tensors, out: Tensor) -> KernelProblem:
    batch, slots, labels, height, width = given.values.shape
    return KernelProblem(
        type=ELEMENT_TYPES[problem.dtype],
        batch=batch,
        slots=slots,
        channels=problem.channels,
        labels=labels,
        height=height,
        width=width,
        radius=problem.radius,
        scale=problem.scale,
        query=given.query.data_ptr(),
        keys=given.keys.data_ptr(),
        values=given.values.data_ptr(),
        dilation=given.dilation.data_ptr(),
        offsets=None if given.offsets is None else given.offsets.data_ptr(),
        out=out.data_ptr(),
    )


def with_workspace(library: CudaKernels, row: int, problem: KernelProblem, day: Day) -> Tensor:
    """Scratch memory for a row, which holds NaN, noted in the problem. It must live as long as launches may come."""
    size = library.workspace_bytes(row, problem)
    workspace = torch.full((size,), 0xFF, dtype=torch.uint8, device=day.device)
    problem.workspace = workspace.data_ptr()
    return workspace


def stream_of(day: Day) -> int:
    return 0 if day.dry_run else torch.cuda.current_stream().cuda_stream


def reason(day: Day, library: CudaKernels, row: int, problem: Problem, given: Tensors) -> str | None:
    return library.reason_against(row, described(problem, given, given.query), day.sm)
