"""``maskring train``."""

from __future__ import annotations

import os

import typer

from ..common.errors import one_line
from ..common.interrupts import EXIT_INTERRUPTED, stop_request
from . import options
from .console import note, say
from .progress import StepMeter, show_progress

MAX_CACHE_GB = 1e6


def train(
    recipe: options.Recipe,
    data: options.Data,
    out_dir: options.RunFolder,
    more: options.MoreData = None,
    stills: options.Stills = None,
    start: options.Start = None,
    max_minutes: options.MaxMinutes = None,
    validate: options.Validate = None,
    cache_gb: options.CacheGb = 8.0,
    workers: options.BatchWorkers = 0,
    tensorboard: options.TensorBoard = False,
) -> None:
    """Train an encoder on unlabelled footage."""
    # Waiting threads spin by default, which takes cores from the decoding of clips.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ..models import model_file
    from ..runtime.video.opencv import silence_opencv
    from ..training.checkpoint import abbreviated
    from ..training.loop import train as train_encoder
    from ..training.recipe import load_recipe
    from ..training.validation import validator

    silence_opencv()  # clips that cannot be decoded are listed at the end
    settings = load_recipe(recipe)
    steps = settings.total_steps
    score = None if validate is None else validator(validate, settings.tracking)
    meter = StepMeter(steps, max_minutes)
    with stop_request(_announce_stop) as stop, show_progress(speed=False) as progress:
        outcome = train_encoder(
            settings,
            [*data, *(more or [])],
            out_dir,
            stills=stills or [],
            start=None if start is None else model_file(start),
            max_minutes=max_minutes,
            validate=score,
            tensorboard=tensorboard,
            cache_bytes=int(min(MAX_CACHE_GB, cache_gb) * 1e9),
            workers=workers,
            report=lambda report: progress("step", report.step, steps, meter.text(report)),
            stop=stop,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun started several processes, of which the first one reports
    for clip, reason in outcome.skipped.items():
        note(one_line(f"skipped {clip}: {reason}"))
    if stills_skipped := list(outcome.skipped_stills.values()):
        note(one_line(f"skipped {len(stills_skipped)} photographs: {abbreviated(stills_skipped)}"))
    todo = "" if outcome.finished else "; run the same command again to continue"
    skipped = f"{len(outcome.skipped)} clips skipped"
    say(f"step {outcome.step} of {steps}, {skipped}; wrote {outcome.checkpoint}{todo}")
    if stop() and not outcome.finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def _announce_stop() -> None:
    note("stopping after this step; Ctrl-C again stops at once.")
