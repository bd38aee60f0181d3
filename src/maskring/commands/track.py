"""``maskring track``."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import MaskError, SourceError, UserError
from ..runtime.refinement.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE
from . import conversion, options, refinement
from .console import busy, note, say, say_lost
from .edits import planned_edits, require_reached
from .options import DeviceChoice, KernelChoice
from .progress import show_progress
from .refinement import ModeChoice

if TYPE_CHECKING:
    from ..runtime.interaction.session import Interaction
    from ..runtime.pipeline.edits import Steering
    from ..runtime.pipeline.summary import Summary
    from ..runtime.video.sinks import Sink
    from ..runtime.video.source import Source


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
    from ..runtime.pipeline.both_ways import follow_both_ways
    from ..runtime.refinement import session
    from ..runtime.video.open_source import open_source

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
    with ExitStack() as stack:
        _enter_folder(stack, out_dir)
        reopen = partial(open_source, source, live=live, first=first, last=last, ignored=planned.mask_files)
        stream = stack.enter_context(reopen())
        require_reached(stream.end, add, remove)
        for sentence in planned.notes:
            note(f"note: {sentence}")
        refining.check_source(source, stream, live, save_refiner is not None)
        with busy("opening the model"):
            tracker = refining.wrap(
                open_tracker(model, kernel=kernel.value, threads=threads, device=device.value)
            )
        stack.push(tracker)
        sinks = _file_sinks(stack, out_dir, stream, masks, overlay, refine)
        steering = _steered(stack, planned.steering, sinks) if show else planned.steering
        progress = stack.enter_context(show_progress())
        if backward:
            again = stack.enter_context(open_tracker(model, kernel=kernel.value, threads=threads))
            part = partial(open_source, source)
            summary = follow_both_ways(
                stream, part, (tracker, again), sinks, steering, out_dir, size, progress
            )
        else:
            summary = refining.follow(stream, reopen, tracker, sinks, steering, out_dir, size, progress)
        if save_refiner is not None:
            session.save_refiner(tracker, save_refiner)
    _report(summary, stream, sinks, out_dir, live, show)
    if not show:  # whoever watches may stop early
        require_reached(summary.last, add, remove)
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


def _enter_folder(stack: ExitStack, out_dir: Path | None) -> None:
    from ..common.files import directory

    if out_dir is not None:
        stack.enter_context(directory(out_dir))


def _file_sinks(
    stack: ExitStack, out_dir: Path | None, stream: Source, masks: bool, overlay: bool, refine: ModeChoice
) -> list[Sink]:
    """Sinks that write results to ``out_dir``, closed with the stack; none without a folder."""
    from ..runtime.refinement.comparison import ComparisonVideoSink
    from ..runtime.video.overlay_video import OverlayVideoSink
    from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink

    if out_dir is None:
        return []
    sinks: list[Sink] = [stack.enter_context(JsonLinesSink(out_dir / "objects.jsonl"))]
    if masks:
        sinks.append(stack.enter_context(MaskFolderSink(out_dir / "masks")))
    timed = stream.length is not None  # cameras and endless streams only give times of arrival
    if overlay:
        video = OverlayVideoSink(out_dir / "overlay.mp4", stream.fps, by_time=timed)
        sinks.append(stack.enter_context(video))
    if overlay and refine is ModeChoice.offline:
        before = out_dir / "propagated" / "masks"
        comparison = ComparisonVideoSink(out_dir / "comparison.mp4", stream.fps, before, by_time=timed)
        sinks.append(stack.enter_context(comparison))
    return sinks


def _steered(stack: ExitStack, planned: Steering, sinks: list[Sink]) -> Interaction:
    """A window, closed with the stack, that shows each result last and steers the run."""
    from ..runtime.interaction.session import Interaction
    from ..runtime.interaction.window import OpenCVWindow

    interaction = Interaction(OpenCVWindow("maskring"), planned)
    stack.callback(interaction.close)
    sinks.append(interaction)
    return interaction


def _report(
    summary: Summary, stream: Source, sinks: list[Sink], out_dir: Path | None, live: bool, show: bool
) -> None:
    from ..runtime.video.sinks import MaskFolderSink

    parts = [f"{summary.frames} frames"]
    if live:
        parts.append(f"{stream.dropped} dropped")
    if stream.undecodable:
        parts.append(f"{stream.undecodable} undecodable")
    if stream.reconnects:
        parts.append(f"reconnects: {stream.reconnects}")
    if not show:  # with a window, most of the time may have been the user's
        parts.append(f"{summary.fps:.1f} fps")
    where = "" if out_dir is None or not summary.frames else f"; results in {out_dir}"
    say(", ".join(parts) + where)
    say_lost(summary.lost_objects())
    for sink in sinks:
        if isinstance(sink, MaskFolderSink) and sink.others:
            note(f"note: {sink.folder} also holds {len(sink.others)} masks of earlier runs, left unchanged")
