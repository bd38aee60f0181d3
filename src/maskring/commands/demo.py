"""``maskring demo``: the whole path on a real clip and on a rendered clip whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .console import say
from .progress import show_progress

if TYPE_CHECKING:
    from ..demo.contact_sheet import ContactSheet
    from ..runtime.evaluation.measures import Score
    from ..runtime.pipeline.summary import Summary
    from ..runtime.tracking.result import Result
    from ..runtime.video.frame import Frame
    from ..runtime.video.sinks import Sink

RENDERED_HEIGHT, RENDERED_WIDTH = 360, 640


def demo(
    out_dir: options.DemoOut,
    clip: options.DemoClip = None,
    model: options.Model = None,
    threads: options.Threads = 0,
) -> None:
    """Export a checkpoint, track a real and a rendered clip, and show the result."""
    from ..common.files import cache_directory, make_directory
    from ..demo.clip import demo_clip
    from ..demo.contact_sheet import ContactSheet
    from ..models import provenance, resolve_model

    make_directory(out_dir)
    executable = resolve_model(model)
    say(f"model          {executable}")
    say(f"               {provenance(model)}")
    sheet = ContactSheet()
    real = _track_real(executable, clip or demo_clip(cache_directory()), out_dir / "real", sheet, threads)
    say(f"real clip      {_speed(real)}; {out_dir / 'real' / 'overlay.mp4'}")
    rendered, score = _track_rendered(executable, out_dir / "rendered", sheet, threads)
    say(f"rendered clip  {_speed(rendered)}; {out_dir / 'rendered' / 'overlay.mp4'}")
    say(f"               J&F {score.jf:.1f} (J {score.j.mean:.1f}, F {score.f.mean:.1f}) against its truth")
    sheet.write(out_dir / "contact_sheet.png")
    say(f"look at        {out_dir / 'contact_sheet.png'}")


def _track_real(model: Path, clip: Path, out_dir: Path, sheet: ContactSheet, threads: int) -> Summary:
    from ..demo.clip import FIRST_FRAME, LAST_FRAME, demo_mask
    from ..models import open_tracker
    from ..runtime.pipeline.edits import Edits
    from ..runtime.pipeline.loop import track
    from ..runtime.pipeline.progress import count_frames
    from ..runtime.video.masks import read_mask
    from ..runtime.video.open_source import open_source

    edits = Edits({FIRST_FRAME: read_mask(demo_mask())})
    with (
        open_source(clip, first=FIRST_FRAME, last=LAST_FRAME) as source,
        open_tracker(model, threads=threads) as tracker,
        _sinks(out_dir, source.fps) as sinks,
        show_progress() as progress,
    ):
        row = sheet.row(f"real: {clip.name}", source.length or 1)
        on_frame = _each(row, count_frames(progress, "real clip", source.length))
        return track(source, tracker, sinks, edits, on_frame)


def _track_rendered(model: Path, out_dir: Path, sheet: ContactSheet, threads: int) -> tuple[Summary, Score]:
    """Track the rendered clip and score it; drawing it beforehand keeps that out of the time."""
    from ..models import open_tracker
    from ..runtime.evaluation.measures import Score, SequenceScorer
    from ..runtime.pipeline.edits import Edits
    from ..runtime.pipeline.loop import track
    from ..runtime.pipeline.progress import count_frames
    from ..runtime.video.frame import Frame
    from ..runtime.video.synthetic import FRAME_RATE, render_clip

    clip = list(render_clip(RENDERED_HEIGHT, RENDERED_WIDTH))
    frames = [
        Frame(image, index, index / FRAME_RATE, f"{index:05d}") for index, (image, _) in enumerate(clip)
    ]
    scorer = SequenceScorer()

    def score(frame: Frame, result: Result) -> None:
        if 0 < frame.index < len(clip) - 1:  # DAVIS scores neither the first frame nor the last
            scorer.add(result.labels, clip[frame.index][1])

    with (
        open_tracker(model, threads=threads) as tracker,
        _sinks(out_dir, FRAME_RATE) as sinks,
        show_progress() as progress,
    ):
        row = sheet.row("rendered, with known truth", len(frames))
        on_frame = _each(row, score, count_frames(progress, "rendered clip", len(frames)))
        summary = track(frames, tracker, sinks, Edits({0: clip[0][1]}), on_frame)
    return summary, Score.of_objects(list(scorer.scores().values()))


@contextmanager
def _sinks(out_dir: Path, fps: float) -> Iterator[list[Sink]]:
    from ..common.files import make_directory
    from ..runtime.video.overlay_video import OverlayVideoSink
    from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink

    make_directory(out_dir)
    with ExitStack() as stack:
        yield [
            stack.enter_context(JsonLinesSink(out_dir / "objects.jsonl")),
            stack.enter_context(MaskFolderSink(out_dir / "masks")),
            stack.enter_context(OverlayVideoSink(out_dir / "overlay.mp4", fps)),
        ]


def _each(*callbacks: Callable[[Frame, Result], None]) -> Callable[[Frame, Result], None]:
    def call(frame: Frame, result: Result) -> None:
        for callback in callbacks:
            callback(frame, result)

    return call


def _speed(summary: Summary) -> str:
    return f"{summary.frames} frames, {summary.fps:.1f} fps, including reading and writing"
