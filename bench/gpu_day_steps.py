"""The steps of ``gpu_day.py``: ``python bench/gpu_day_steps.py NAME --out FILE`` runs one and writes what it found."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import gpu_day_triton
import torch
from gpu_day_kernels import MIB, correctness, roofs, small, tuning
from gpu_day_plugin import plugin
from gpu_day_state import Day, kernels
from gpu_day_tracking import tracking

# ---- versions, and the library


def versions(day: Day) -> None:
    day.note("torch", torch.__version__)
    day.note("python", sys.version.split()[0])
    if not day.dry_run:
        properties = torch.cuda.get_device_properties(0)
        day.note("gpu", properties.name)
        day.note("compute_capability", day.sm)
        day.note("cuda", torch.version.cuda)
        driver = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
        day.note("driver", subprocess.run(driver, capture_output=True, text=True, check=False).stdout.strip())
    library = Path(os.environ["MASKRING_ONNXRUNTIME_LIBRARY"])
    if not library.exists():
        from gpu_day_pack import build_library

        start = time.monotonic()
        build_library(library, str(day.sm))
        day.note("build_seconds", round(time.monotonic() - start, 1))
    day.note("rows", list(kernels().names))


def triton_kernels(day: Day) -> None:
    gpu_day_triton.correctness(day)


def operators(day: Day) -> None:
    """Forward and backward of the torch operator: plain torch, in blocks and tile by tile, and Triton's kernels."""
    from blocks import PROBLEMS, Passes, tile_by_tile
    from blocks import Problem as BlockProblem

    problems = [BlockProblem((1, 1), 16, 2)] if day.dry_run else PROBLEMS
    for problem in problems:
        passes = Passes(problem, day.device.type)
        found = {}
        for name, way in (("blocks", contextlib.nullcontext), ("tile by tile", tile_by_tile)):
            with way():
                runs = (passes.forward, functools.partial(passes.backward, passes.forward()))
                times = [day.milliseconds(run, 3) for run in runs]
            found[name] = dict(zip(("forward_ms", "backward_ms"), times, strict=True))
        if gpu_day_triton.runs_here(day):
            found["triton"] = gpu_day_triton.times(day, passes)
        day.note(str(problem), found)


def peers(day: Day) -> None:
    """FlexAttention with a mask of windows, and unfold, on the read of `paper`."""
    from peer_ways_gpu import flex_attention_ms, unfold_ms

    size, radius, slots = (8, 2, 2) if day.dry_run else (96, 6, 5)
    for name, measure in (("flex_attention", flex_attention_ms), ("unfold", unfold_ms)):
        try:
            day.note(name, measure(day, size, radius, slots))
        except Exception as error:  # a peer that does not run here is a finding too
            day.note(name, f"{type(error).__name__}: {str(error)[:300]}")


# ---- tools of NVIDIA, training


def tool(day: Day, name: str, *arguments: str) -> None:
    """Run a program of the CUDA toolkit on the correctness of one small case."""
    program = shutil.which(name) or (name if Path(f"/usr/local/cuda/bin/{name}").exists() else None)
    if program is None or day.dry_run:
        return day.note("skipped", f"{name} is not here" if program is None else "dry run")
    step = [sys.executable, __file__, "small", "--out", str(day.out.with_suffix(".tool")), "--seconds", "60"]
    command = [program, *arguments, *step]
    done = subprocess.run(command, capture_output=True, text=True, timeout=day.seconds, check=False)
    return day.note("output", (done.stdout + done.stderr)[-6000:])


def counters(day: Day) -> None:
    tool(day, "ncu", "--set", "basic", "--kernel-name", "regex:affinity", "--launch-count", "4")


def sanitizer(day: Day) -> None:
    tool(day, "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1")


def training(day: Day) -> None:
    """Steps of `paper` on made-up frames: images per second with old blocks, vectorised ones, and Triton's kernels."""
    from blocks import tile_by_tile

    from maskring.training.batches import Batch
    from maskring.training.distributed import DistributedContext
    from maskring.training.recipe import load_recipe
    from maskring.training.trainer import Trainer

    recipe = load_recipe("paper")
    steps = 10
    if day.dry_run:
        recipe, steps = replace(recipe, encoder="nano", clips=1, frames=2, crop=32, precision="float32"), 1
    shape = (recipe.clips, recipe.frames, 3, recipe.crop, recipe.crop)
    batch = Batch(
        torch.randint(0, 256, shape, dtype=torch.uint8), torch.ones(recipe.clips, dtype=torch.int64)
    )
    ways: dict[str, Callable[[], AbstractContextManager[None]]]
    ways = {"triton": contextlib.nullcontext} if gpu_day_triton.runs_here(day) else {}
    ways |= {
        "blocks": gpu_day_triton.without,
        "tile by tile": lambda: both(gpu_day_triton.without(), tile_by_tile()),
    }
    for name, way in ways.items():
        trainer = Trainer(recipe, DistributedContext(0, 1, day.device))
        with way():
            trainer.advance([batch])
            day.synchronize()
            start, count = time.monotonic(), 0
            while count < steps and day.in_time:
                trainer.advance([batch])
                count += 1
            day.synchronize()
        day.note(
            name,
            {"images_s": round(count * batch.num_images / (time.monotonic() - start), 1), "steps": count},
        )
    if not day.dry_run:
        day.note("peak_mib", round(torch.cuda.max_memory_allocated() / MIB))


@contextlib.contextmanager
def both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


def best_recipe(day: Day) -> None:
    """Train on the carried footage for the rest of the time; the checkpoint comes home in the output folder."""
    footage = day.carried / "footage" if day.carried else None
    if footage is None or not footage.is_dir():
        return day.note("skipped", "no footage was carried")
    from maskring.training.loop import train
    from maskring.training.recipe import load_recipe

    minutes = (day.end - time.monotonic()) / 60
    done = train(load_recipe("paper"), [footage], day.out.parent / "run", max_minutes=minutes, workers=8)
    return day.note("steps", done.step)


STEPS = {
    step.__name__: step
    for step in (
        versions,
        correctness,
        triton_kernels,
        plugin,
        roofs,
        tuning,
        operators,
        tracking,
        training,
        counters,
        sanitizer,
        peers,
        best_recipe,
        small,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--carried", type=Path)
    options = parser.parse_args()
    day = Day(options.out, options.seconds, options.dry_run, options.carried)
    STEPS[options.step](day)


if __name__ == "__main__":
    main()
