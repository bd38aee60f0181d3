"""The main loop: source -> tracker -> sinks, one frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ...common.interrupts import defer_interrupts
from ...common.types import Image, Labels
from ..tracking.result import Result
from ..video.frame import Frame
from ..video.sinks import Sink
from ..video.source import Source
from .edits import Edits, Schedule, Steering
from .summary import Summary, SummaryBuilder


class FrameTracker(Protocol):
    """What the loop needs of a tracker: :class:`Tracker`, or one that wraps it."""

    def step(self, frame: Image, mask: Labels | None = None) -> Result:
        """Label the next frame."""

    def prefetch(self, frame: Image) -> None:
        """Announce the frame after the next one."""

    def remove(self, object_id: int) -> None:
        """Stop tracking an object."""


def track(
    source: Iterable[Frame],
    tracker: FrameTracker,
    sinks: Sequence[Sink],
    edits: Edits | Steering,
    on_frame: Callable[[Frame, Result], None] = lambda frame, result: None,
) -> Summary:
    """Track a source to its end, or until the steering stops it.

    Args:
        source: an open source, or any frames in order.
        tracker: a tracker that has seen no frame of this stream.
        sinks: take each result, in this order; the caller closes them.
        edits: masks and removals by frame index, or an object that decides at each frame.
        on_frame: called after each frame, for example to show progress.

    Raises:
        SourceError: when a frame cannot be read or differs in size (:meth:`Tracker.step`).
        MaskError: when a mask does not fit its frame, or an object to remove is not tracked.
        OutputError: when a sink cannot write.
    """
    steering = Schedule(edits) if isinstance(edits, Edits) else edits
    builder = SummaryBuilder()
    for frame in source:
        decision = steering.decide(frame)
        if decision.verdict == "stop":
            break
        for object_id in decision.removals:
            tracker.remove(object_id)
        if decision.verdict == "skip":
            continue
        upcoming = source.upcoming if isinstance(source, Source) else None
        with defer_interrupts():
            if upcoming is not None:
                tracker.prefetch(upcoming.image)
            result = tracker.step(frame.image, decision.mask)
            _deliver(frame, result, sinks, builder, on_frame)
    return builder.summary()


def revisit(
    source: Iterable[Frame],
    refine: Callable[[Image, int], Result],
    sinks: Sequence[Sink],
    on_frame: Callable[[Frame, Result], None] = lambda frame, result: None,
) -> Summary:
    """Pass over a tracked source once more, for its final results.

    Args:
        source: the same frames again.
        refine: returns the final result of a frame, given its image and its position in the first pass
            (from 0).
        sinks: take each result, in this order; the caller closes them.
        on_frame: called after each frame, for example to show progress.
    """
    builder = SummaryBuilder()
    for index, frame in enumerate(source):
        with defer_interrupts():
            _deliver(frame, refine(frame.image, index), sinks, builder, on_frame)
    return builder.summary()


def _deliver(
    frame: Frame,
    result: Result,
    sinks: Sequence[Sink],
    builder: SummaryBuilder,
    on_frame: Callable[[Frame, Result], None],
) -> None:
    for sink in sinks:
        sink.write(frame, result)
    builder.add(frame, result)
    on_frame(frame, result)
