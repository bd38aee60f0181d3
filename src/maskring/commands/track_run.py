"""A run of ``maskring track``, once its options are known to fit together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .console import busy, note, say, say_lost
from .edits import Planned
from .progress import show_progress

if TYPE_CHECKING:
    from ..runtime.interaction.session import Interaction
    from ..runtime.pipeline.edits import Steering
    from ..runtime.pipeline.progress import Progress
    from ..runtime.pipeline.summary import Summary
    from ..runtime.refinement.session import AnyTracker, Refinement
    from ..runtime.tracking.tracker import Tracker
    from ..runtime.video.sinks import Sink
    from ..runtime.video.source import Source


@dataclass(frozen=True)
class Footage:
    """Which frames are tracked.

    Attributes:
        source: what SOURCE names.
        live: drop frames instead of falling behind.
        first, last: numbers of frames; None for the end.
        size: shorter side of the frames that the tracker sees, None for their own.
    """

    source: str
    live: bool
    first: int
    last: int | None
    size: int | None


@dataclass(frozen=True)
class Outputs:
    """What is written and shown.

    Attributes:
        folder: takes the results, None for none.
        masks, overlay: whether they are written.
        show: whether a window shows the results.
        refiner: file that takes the adapted U-Net.
    """

    folder: Path | None
    masks: bool
    overlay: bool
    show: bool
    refiner: Path | None


@dataclass(frozen=True)
class TrackRun:
    """Everything that ``track`` was told.

    Attributes:
        footage: the frames.
        planned: objects, and what becomes of them.
        refining: how masks are refined.
        new_tracker: opens a tracker that has seen no frame.
        outputs: where results go.
        backward: follow objects backwards as well.
    """

    footage: Footage
    planned: Planned
    refining: Refinement
    new_tracker: Callable[[], Tracker]
    outputs: Outputs
    backward: bool

    def go(self) -> Summary:
        """Track, and print what came of it.

        Raises:
            UserError: when something cannot be opened, tracked or written.
        """
        footage, outputs = self.footage, self.outputs
        with ExitStack() as stack:
            self._enter_folder(stack)
            stream = stack.enter_context(self._open())
            self.planned.require_reached(stream.end)
            if not outputs.show:
                self.planned.require_known()
            for sentence in self.planned.notes:
                note(f"note: {sentence}")
            self.refining.check_source(footage.source, stream, footage.live, outputs.refiner is not None)
            with busy("opening the model"):
                tracker = self.refining.wrap(self.new_tracker())
            stack.push(tracker)
            sinks = self._file_sinks(stack, stream)
            steering = self._steered(stack, sinks) if outputs.show else self.planned.steering
            progress = stack.enter_context(show_progress())
            summary = self._follow(stack, stream, tracker, sinks, steering, progress)
            if outputs.refiner is not None:
                from ..runtime.refinement import session

                session.save_refiner(tracker, outputs.refiner)
        self._report(summary, stream, sinks)
        if not outputs.show:  # whoever watches may stop early
            self.planned.require_reached(summary.last)
        return summary

    def _open(self) -> Source:
        from ..runtime.video.open_source import open_source

        frames, ignored = self.footage, self.planned.mask_files
        return open_source(
            frames.source, live=frames.live, first=frames.first, last=frames.last, ignored=ignored
        )

    def _follow(
        self,
        stack: ExitStack,
        stream: Source,
        tracker: AnyTracker,
        sinks: list[Sink],
        steering: Steering,
        progress: Progress,
    ) -> Summary:
        from ..runtime.pipeline.both_ways import follow_both_ways
        from ..runtime.video.open_source import open_source

        folder, size = self.outputs.folder, self.footage.size
        if not self.backward:
            return self.refining.follow(stream, self._open, tracker, sinks, steering, folder, size, progress)
        trackers = tracker, stack.enter_context(self.new_tracker())
        part = partial(open_source, self.footage.source)
        return follow_both_ways(stream, part, trackers, sinks, steering, folder, size, progress)

    def _enter_folder(self, stack: ExitStack) -> None:
        from ..common.files import directory

        if self.outputs.folder is not None:
            stack.enter_context(directory(self.outputs.folder))

    def _file_sinks(self, stack: ExitStack, stream: Source) -> list[Sink]:
        """Sinks that write results to the folder, closed with the stack; none without a folder."""
        from ..runtime.refinement.comparison import ComparisonVideoSink
        from ..runtime.video.overlay_video import OverlayVideoSink
        from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink

        outputs, folder = self.outputs, self.outputs.folder
        if folder is None:
            return []
        sinks: list[Sink] = [stack.enter_context(JsonLinesSink(folder / "objects.jsonl"))]
        if outputs.masks:
            sinks.append(stack.enter_context(MaskFolderSink(folder / "masks")))
        timed = stream.length is not None  # cameras and endless streams only give times of arrival
        if outputs.overlay:
            video = OverlayVideoSink(folder / "overlay.mp4", stream.fps, by_time=timed)
            sinks.append(stack.enter_context(video))
        if outputs.overlay and self.refining.mode == "offline":
            before = folder / "propagated" / "masks"
            comparison = ComparisonVideoSink(folder / "comparison.mp4", stream.fps, before, by_time=timed)
            sinks.append(stack.enter_context(comparison))
        return sinks

    def _steered(self, stack: ExitStack, sinks: list[Sink]) -> Interaction:
        """A window, closed with the stack, that shows each result last and steers the run."""
        from ..runtime.interaction.session import Interaction
        from ..runtime.interaction.window import OpenCVWindow

        interaction = Interaction(OpenCVWindow("maskring"), self.planned.steering)
        stack.callback(interaction.close)
        sinks.append(interaction)
        return interaction

    def _report(self, summary: Summary, stream: Source, sinks: list[Sink]) -> None:
        from ..runtime.video.sinks import MaskFolderSink

        parts = [f"{summary.frames} frames"]
        if self.footage.live:
            parts.append(f"{stream.dropped} dropped")
        if stream.undecodable:
            parts.append(f"{stream.undecodable} undecodable")
        if stream.reconnects:
            parts.append(f"reconnects: {stream.reconnects}")
        if not self.outputs.show:  # with a window, most of the time may have been the user's
            parts.append(f"{summary.fps:.1f} fps")
        folder = self.outputs.folder
        where = "" if folder is None or not summary.frames else f"; results in {folder}"
        say(", ".join(parts) + where)
        say_lost(summary.lost_objects())
        for sink in sinks:
            if isinstance(sink, MaskFolderSink) and sink.others:
                note(
                    f"note: {sink.folder} also holds {len(sink.others)} masks of earlier runs, left unchanged"
                )
