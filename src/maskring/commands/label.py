"""``maskring label``."""

from __future__ import annotations

from functools import partial

import typer

from . import options
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
    shard: options.Shard = False,
) -> None:
    """Follow objects through many videos, from the masks of their first frames."""
    from ..common.files import directory
    from ..models import open_tracker, resolve_model
    from ..runtime.pipeline.label_many import clips_to_label, label_clips, masks_without_clip
    from ..runtime.pipeline.shard import join

    clips = clips_to_label(videos, masks, out_dir)
    for path in masks_without_clip(clips, masks):
        note(f"note: {path} belongs to none of the videos")
    this, threads = join(shard, threads)
    with directory(out_dir):
        with busy("opening the model"):
            executable = resolve_model(model)
        new_tracker = partial(
            open_tracker, executable, kernel=kernel.value, threads=threads, device=device.value
        )
        with show_progress(shown=this is None or this.local_rank == 0) as progress:
            labelled = label_clips(clips, new_tracker, shard=this, size=size, progress=progress)
    where = f"; labels in {out_dir}" if labelled.videos or labelled.present else ""
    say(f"{labelled}{where}")
    say_lost(labelled.lost_objects)
    for sentence in dict.fromkeys(labelled.notes):
        note(f"note: {sentence}")
    for clip, reason in labelled.failed.items():
        complain(f"error: {clip} was not labelled: {reason}")
    if labelled.failed:
        raise typer.Exit(EXIT_USER_ERROR)
