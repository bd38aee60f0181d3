"""``maskring profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from . import options
from .console import busy, complain, out, say

if TYPE_CHECKING:
    from ..runtime.profiling.report import Profile


def profile(
    model: options.ProfiledModel,
    compare: options.Compare = None,
    out_dir: options.ProfileOut = Path("profile"),
    source: options.FrameSource = None,
    height: options.ProfileHeight = 480,
    width: options.ProfileWidth = 480,
    iterations: options.ProfileFrames = 50,
    warm_up: options.WarmUp = 8,
    runner_iterations: options.RunnerIterations = 5,
    budget: options.Budget = None,
    threads: options.Threads = 0,
) -> None:
    """Measure where the time of a frame goes: stages of the tracker, the model alone, its layers."""
    from ..models import resolve_model
    from ..runtime.profiling.report import budget_ms
    from ..runtime.profiling.run import ProfileOptions, profile_models

    limit = None if budget is None else budget_ms(budget)
    models = [model] if compare is None else [model, compare]
    settings = ProfileOptions(source, height, width, iterations, warm_up, threads, runner_iterations)
    with busy(f"profiling {' and '.join(path.name for path in models)}"):
        executables = [resolve_model(path) for path in models]
        profiles, commands = profile_models(executables, settings, out_dir, limit)
    for measured in profiles:
        _print(measured)
    say("To measure the model file alone with NVIDIA's tools, on a frame of this run:")
    for line in commands.values():
        say(line)
    say(f"wrote {out_dir / 'profile.html'}")
    late = [measured for measured in profiles if limit is not None and measured.total.p99 > limit]
    for measured in late:
        complain(f"{measured.model}: p99 {measured.total.p99:.2f} ms is above the budget of {limit:g} ms")
    if late:
        raise typer.Exit(1)


def _print(measured: Profile) -> None:
    table = Table("ms", "p50", "p90", "p99", "max", "jitter", box=box.SIMPLE, title=measured.model)
    rows = {"whole frame": measured.total, **measured.stages}
    if measured.runner is not None:
        rows["model file, polygraphy"] = measured.runner
    for name, latency in rows.items():
        figures = (latency.p50, latency.p90, latency.p99, latency.max, latency.jitter)
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    out.print(table)
    say(f"{measured.fps:.1f} fps, peak memory {measured.peak_memory_mb:.0f} MB")
