"""``maskring track``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..common.errors import MaskError, SourceError, UserError
from ..runtime.refinement.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE
from . import conversion, options, refinement
from .edits import planned_edits
from .options import DeviceChoice, KernelChoice
from .refinement import ModeChoice
from .track_run import Footage, Outputs, TrackRun


def track(
    source: options.Source,
    mask: options.Masks = None,
    boxes: options.Boxes = None,
    out_dir: options.TrackOut = None,
    model: options.Model = None,
    live: options.Live = False,
    first: options.First = 0,
    last: options.Last = None,
    size: options.TrackSize = None,
    add: options.Add = None,
    remove: options.Remove = None,
    backward: options.Backward = False,
    masks: options.WriteMasks = True,
    overlay: options.WriteOverlay = True,
    formats: conversion.Formats = None,
    names: conversion.ClassNames = None,
    show: options.Show = False,
    kernel: options.Kernel = KernelChoice.native,
    threads: options.Threads = 0,
    device: options.Device = DeviceChoice.cpu,
    refine: refinement.Mode = ModeChoice.off,
    refine_iterations: refinement.Iterations = DEFAULT_ITERATIONS,
    refine_steps: refinement.Steps = 0,
    refine_size: refinement.Size = DEFAULT_SIZE,
    refine_budget: refinement.Budget = 1.0,
    refine_feedback: refinement.Feedback = False,
    refiner: refinement.Start = None,
    save_refiner: refinement.Save = None,
) -> None:
    """Follow objects through SOURCE: those of a mask, in boxes, or drawn in a window."""
    from ..models import open_tracker

    _require_use(mask, boxes, out_dir, show, refine, add if backward else None)
    _require_file(backward, live, show, refine)
    classes = conversion.require_formats(formats, names, out_dir, masks)
    planned = planned_edits(source, mask or [], boxes or [], add or [], remove or [], first)
    refining = refinement.chosen_refinement(
        refine,
        iterations=refine_iterations,
        steps=refine_steps,
        size=refine_size,
        budget=refine_budget,
        feedback=refine_feedback,
        start=refiner,
    )
    footage = Footage(source, live, first, last, size)
    outputs = Outputs(out_dir, masks, overlay, show, save_refiner)
    opened = partial(open_tracker, model, kernel=kernel.value, threads=threads, device=device.value)
    summary = TrackRun(footage, planned, refining, opened, outputs, backward).go()
    if formats and out_dir and summary.frames:
        conversion.write_formats(formats, out_dir, source, planned.classes, classes)


def _require_file(backward: bool, live: bool, show: bool, refine: ModeChoice) -> None:
    """Refuse what cannot be followed backwards."""
    others = {"--live": live, "--show": show, f"--refine {refine.value}": refine is not ModeChoice.off}
    for option, given in others.items():
        if backward and given:
            raise UserError(f"--backward and {option} exclude each other", f"leave {option} out")


def _require_use(
    mask: list[str] | None,
    boxes: list[str] | None,
    out_dir: Path | None,
    show: bool,
    refine: ModeChoice,
    add: list[str] | None,
) -> None:
    """Refuse a run that tracks nothing, that nobody sees, or that cannot be watched."""
    if not mask and not boxes and not show and not add:
        raise MaskError(
            "no object was given",
            "add --mask FIRST.png (the objects of the first frame), --box X0,Y0,X1,Y1 for each, or --show to "
            "draw them",
        )
    if out_dir is None and not show:
        raise SourceError("no output folder was given", "add --out DIR")
    if show and refine is ModeChoice.offline:
        raise UserError(
            "--show cannot display offline refinement, which runs after tracking",
            "use --refine online or drop --show",
        )
