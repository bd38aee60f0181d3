"""A whole source, with each object followed forwards and backwards from the frame of its first mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...common.errors import MaskError, SourceError
from ...common.types import Labels
from ..tracking.objects import ids_in, remeasure
from ..tracking.result import Result, Timings
from ..video.frame import Frame
from ..video.sinks import Sink
from ..video.source import Source
from .directions import Drawn, Run, merge_runs
from .edits import Decision, Steering
from .loop import FrameTracker, revisit, track
from .progress import Progress, count_frames
from .resized import ResizedTracker
from .result_store import ResultStore
from .summary import Summary

BACKWARD_BYTES = 1 << 28
"""Memory for frames that are decoded forwards and handed out backwards."""

OpenPart = Callable[..., Source]
"""Opens the source from ``first`` to ``last``."""


def follow_both_ways(
    stream: Source,
    open_part: OpenPart,
    trackers: tuple[FrameTracker, FrameTracker],
    sinks: Sequence[Sink],
    steering: Steering,
    folder: Path | None,
    size: int | None,
    progress: Progress,
) -> Summary:
    """Track forwards from the first mask, then backwards what later masks add, then write all frames in order.

    Backwards, an object is followed from the frame of its first mask to the first frame; masks on the way hold. Where
    it meets an object that has been followed forwards, it lies on top, as later masks do.

    Args:
        stream: the opened source, from the first frame to be written to the last.
        open_part: opens the same source again: ``open_part(first=..., last=...)``.
        trackers: two that have seen no frame; the caller closes them.
        sinks: take the results, in the order of the frames.
        steering: masks and removals; it may not stop.
        folder: takes a temporary folder of results, None for the system's place.
        size: shorter side of the frames that the trackers see, None for their own.
        progress: told after each frame of each pass.

    Raises:
        SourceError: when the source has no end.
        MaskError: when no frame has a mask, or one does not fit.
        OutputError: when something cannot be written.
    """
    if stream.length is None:
        raise SourceError("a camera cannot be followed backwards", "leave --backward out")
    forward, backward = (each if size is None else ResizedTracker(each, size) for each in trackers)
    noted = _FromFirstMask(steering)
    store = ResultStore(folder)
    try:
        keep = _Keep(store)
        track(stream, forward, [keep], noted, count_frames(progress, "forwards", stream.length))
        if not noted.shown:
            raise MaskError("no frame has a mask", "give one: --add FRAME=PNG")
        first, last = noted.begun, max(noted.shown.values())
        if last > first:
            back = _Back(store, noted.shown)
            frames = backwards(open_part, first, last, stream.size)
            run = Run(Drawn.of(store.read(last).labels), noted.drawn)
            track(frames, backward, [back], run, count_frames(progress, "backwards", last - first + 1))
        with open_part(first=first, last=keep.last) as again:
            on_frame = count_frames(progress, "writing", stream.length)
            indices = iter(keep.indices(noted.passed))
            return revisit(
                again, lambda image, _: _stored(store, next(indices), image.shape), sinks, on_frame
            )
    finally:
        store.close()


def backwards(open_part: OpenPart, first: int, last: int, size: tuple[int, int]) -> Iterator[Frame]:
    """Frames from ``last`` down to ``first``, decoded in parts that fit into :data:`BACKWARD_BYTES`.

    Containers do not seek exactly, so each part is decoded from the beginning of the source.

    Args:
        open_part: opens the source from ``first`` to ``last``.
        first, last: numbers of frames.
        size: (H, W) of the frames.
    """
    count = max(1, BACKWARD_BYTES // (3 * size[0] * size[1]))
    while last >= first:
        begin = max(first, last - count + 1)
        with open_part(first=begin, last=last) as part:
            frames = list(part)
        while frames:
            yield frames.pop()
        last = begin - 1


class _FromFirstMask:
    """Skips frames until a mask is due, and takes note of all masks.

    Attributes:
        begun: number of the source's first frame.
        passed: numbers of the frames before the first mask.
        drawn: frame -> its mask.
        shown: object -> the frame of its first mask.
    """

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self.begun = 0
        self.passed: list[int] = []
        self.drawn: dict[int, Drawn] = {}
        self.shown: dict[int, int] = {}
        self._started = False

    def decide(self, frame: Frame) -> Decision:
        """The decision of the steering, once there is a mask."""
        decision = self._steering.decide(frame)
        if not self._started:
            self._started, self.begun = True, frame.index
        if decision.mask is not None:
            self.drawn[frame.index] = Drawn.of(decision.mask)
            for object_id in ids_in(decision.mask):
                self.shown.setdefault(object_id, frame.index)
        elif not self.shown:
            self.passed.append(frame.index)
            return replace(decision, removals=(), verdict="skip")
        return decision


class _Keep:
    """Stores the results of the pass forwards."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._written: list[int] = []
        self.last = 0

    def write(self, frame: Frame, result: Result) -> None:
        """Store a result under the number of its frame."""
        self._store.replace(frame.index, result)
        self._written.append(frame.index)
        self.last = frame.index

    def indices(self, passed: list[int]) -> list[int]:
        """Numbers of all frames, in order."""
        return [*passed, *self._written]

    def close(self) -> None:
        """Nothing is held open."""


class _Back:
    """Merges the results of the pass backwards with those of the pass forwards."""

    def __init__(self, store: ResultStore, shown: dict[int, int]) -> None:
        self._store, self._shown = store, shown

    def write(self, frame: Frame, result: Result) -> None:
        """Take over the objects whose first mask lies after this frame."""
        followed = {object_id for object_id, first in self._shown.items() if first > frame.index}
        earlier = self._store.read(frame.index) if frame.index in self._store else None
        before = np.zeros_like(result.labels) if earlier is None else earlier.labels
        states = {state.id: state for state in (() if earlier is None else earlier.objects)}
        states |= {state.id: state for state in result.objects if state.id in followed}
        labels = merge_runs(before, result.labels, followed)
        objects = remeasure([states[object_id] for object_id in sorted(states)], labels)
        self._store.replace(frame.index, replace(result, labels=labels, objects=objects))

    def close(self) -> None:
        """Nothing is held open."""


def _stored(store: ResultStore, index: int, shape: tuple[int, ...]) -> Result:
    """The result of a frame; an empty one where no object was followed."""
    if index in store:
        return store.read(index)
    labels: Labels = np.zeros(shape[:2], np.uint8)
    return Result(labels, np.zeros((1, 1, 1), np.float32), (), Timings(0.0, 0.0, 0.0), index)
