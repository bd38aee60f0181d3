"""``maskring label``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from . import options, workers
from .console import EXIT_USER_ERROR, busy, complain, note, say, say_lost
from .options import DeviceChoice, KernelChoice
from .progress import show_progress


def label(
    videos: options.Videos,
    masks: options.FirstMasks,
    out_dir: options.LabelOut,
    model: options.Model = None,
    size: options.TrackSize = None,
    kernel: options.Kernel = KernelChoice.native,
    threads: options.Threads = 0,
    device: options.Device = DeviceChoice.cpu,
    processes: workers.NumProcesses = 1,
    ray: workers.Ray = None,
) -> None:
    """Follow objects through many videos, from the masks of their first frames."""
    from ..common.files import directory
    from ..models import resolve_model
    from ..runtime.pipeline.clips import clips_to_label, masks_without_clip
    from ..runtime.pipeline.label_many import label_clips
    from ..runtime.video.storage import is_url
    from .tracker_factory import TrackerFactory

    if ray is not None:  # processes of Ray have another working folder
        videos, (masks, out_dir) = _absolute(videos), _absolute([masks, out_dir])
    clips = clips_to_label(videos, masks, out_dir)
    for path in masks_without_clip(clips, masks):
        note(f"note: {path} belongs to none of the videos")
    with nullcontext() if is_url(out_dir) else directory(Path(out_dir)):
        with busy("opening the model"):
            executable = resolve_model(model)
        chosen = workers.chosen_workers(processes, ray, threads, device, executable)
        new_tracker = TrackerFactory(executable, kernel.value, chosen.threads_each, device.value)
        if ray is not None:
            new_tracker = new_tracker.carried()
        with show_progress(lines=not chosen.here) as progress:
            labelled = label_clips(
                clips, new_tracker, out=out_dir, size=size, workers=chosen, progress=progress
            )
    where = f"; labels in {out_dir}" if labelled.videos or labelled.present else ""
    say(f"{labelled}{where}")
    say_lost(labelled.lost_objects)
    for sentence in dict.fromkeys(labelled.notes):
        note(f"note: {sentence}")
    for clip, reason in labelled.failed.items():
        complain(f"error: {clip} was not labelled: {reason}")
    if labelled.failed:
        raise typer.Exit(EXIT_USER_ERROR)


def _absolute(places: list[str]) -> list[str]:
    from ..runtime.video.storage import is_url

    return [place if is_url(place) else str(Path(place).absolute()) for place in places]
