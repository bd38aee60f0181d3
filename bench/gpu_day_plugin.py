"""GPU day: the TensorRT plugin, called as TensorRT calls it, on a machine without TensorRT."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from gpu_day import PLUGIN_PROGRAM
from gpu_day_cases import Problem, Tensors, cases, tensors_of
from gpu_day_kernels import TOLERANCE, reference
from gpu_day_state import Day
from torch import Tensor

from maskring.plugins.windowed_affinity.cuda_op import ELEMENT_TYPES

REPLAYS = 100
CHOSEN = -1
"""The row that the plugin chooses, in the program's input."""


def plugin(day: Day) -> None:
    """Create, enqueue, capture and replay: values against float64, the captured graph's bits, time of a replay."""
    program = program_of(day)
    if program is None:
        return day.note("skipped", f"no {PLUGIN_PROGRAM} was carried")
    problems = [problem for problem in cases(small=day.dry_run) if problem.labels in (3, 11)]
    wrong = []
    for checked, problem in enumerate(problems, 1):
        if not day.in_time:
            day.note("unfinished", f"stopped before {problem}")
            break
        given = tensors_of(problem, day.device)
        fault, ms = result_of(program, day, problem, given)
        if fault:
            wrong.append(f"{problem}: {fault}")
        day.note(str(problem), {"replay_ms": ms})
        day.note("checked", checked)
        day.note("wrong", wrong)
    if wrong:
        raise SystemExit(f"{len(wrong)} are wrong; the first: {wrong[0]}")
    return None


def program_of(day: Day) -> Path | None:
    """The carried program, or one that is built now."""
    library = Path(os.environ["MASKRING_ONNXRUNTIME_LIBRARY"])
    program = library.with_name(PLUGIN_PROGRAM)
    if not program.exists() and not day.dry_run:
        from gpu_day_pack import build_plugin_program

        build_plugin_program(program, library)
    return program if program.exists() else None


def result_of(program: Path, day: Day, problem: Problem, given: Tensors) -> tuple[str | None, float | None]:
    """What is wrong with the plugin's result, and the milliseconds of a replay."""
    with tempfile.TemporaryDirectory() as folder:
        read, made = Path(folder) / "in", Path(folder) / "out"
        write_problem(read, day.sm, problem, given)
        command: Sequence[str | Path] = [program, read, made, "1" if day.dry_run else str(REPLAYS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=day.seconds, check=False)
        if done.returncode:
            return done.stderr.strip()[-300:] or f"it ended with {done.returncode}", None
        flat = np.fromfile(made, problem.dtype)
    expected: Tensor = reference(problem, given)
    error = float((torch.from_numpy(flat).double().view(expected.shape) - expected.cpu()).abs().max())
    fault = None if error <= TOLERANCE[problem.dtype] else f"error {error}"
    return fault, float(done.stdout.split()[-1])


def write_problem(path: Path, sm: int, problem: Problem, given: Tensors) -> None:
    """A problem as ``tests/tools/tensorrt_cpp/plugin_values.cpp`` reads it."""
    batch, slots, labels, height, width = given.values.shape
    moved = given.offsets is not None
    sizes = (batch, slots, problem.channels, labels, height, width, problem.radius, moved)
    tensors = (given.query, given.keys, given.values, given.dilation, given.offsets)
    with path.open("wb") as file:
        file.write(struct.pack("11if", CHOSEN, sm, ELEMENT_TYPES[problem.dtype], *sizes, problem.scale))
        for tensor in tensors:
            if tensor is not None:
                file.write(tensor.cpu().contiguous().numpy().tobytes())
