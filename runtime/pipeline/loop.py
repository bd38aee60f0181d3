"""The way of the data: source -> tracker -> sinks, one frame at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.interrupts import defer_interrupts
from ..tracking.result import Result
from ..video.open_source import Frame, Source
from ..video.sinks import Sink


@dataclass(frozen=True)
class Edits:
    """What the user changes while the stream runs.

    Attributes:
        masks: frame index -> [H, W] uint8 object ids; frame 0 starts the tracking, later ones add or correct.
        removals: frame index -> ids of objects dropped before that frame is processed.
    """

    masks: Mapping[int, NDArray[np.uint8]]
    removals: Mapping[int, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Decision:
    """What is to happen at a frame.

    Attributes:
        mask: [H, W] uint8 object ids that the frame is given, None for none.
        removals: ids of objects dropped before it is processed.
        verdict: process the frame; leave it out (nothing is written for it); or stop before it.
    """

    mask: NDArray[np.uint8] | None = None
    removals: Sequence[int] = ()
    verdict: Literal["track", "skip", "stop"] = "track"


class Steering(Protocol):
    """Says what is to happen at each frame."""

    def decide(self, frame: Frame) -> Decision:
        """Called once for each frame of the source, in order."""


def merge_masks(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The objects of two masks [H, W]; where both have one, that of the upper mask.

    Raises:
        MaskError: when they are of different sizes.
    """
    if upper.shape != lower.shape:
        raise MaskError(
            f"two masks for one frame are of different sizes, {list(upper.shape)} and {list(lower.shape)}",
            "draw both at the size of the frames",
        )
    return np.where(upper > 0, upper, lower)


class Schedule:
    """Carries out edits that are known beforehand.

    An edit takes effect at the first frame whose index is not below its own, so that a live source that drops
    frames loses no edit.
    """

    def __init__(self, edits: Edits) -> None:
        self._masks, self._removals = sorted(edits.masks.items()), sorted(edits.removals.items())

    def decide(self, frame: Frame) -> Decision:
        """What is due at this frame; of several masks, the later ones lie on top.

        Raises:
            MaskError: when they are of different sizes.
        """
        removals: list[int] = []
        while self._removals and self._removals[0][0] <= frame.index:
            removals += self._removals.pop(0)[1]
        mask = None
        while self._masks and self._masks[0][0] <= frame.index:
            later = self._masks.pop(0)[1]
            mask = later if mask is None else merge_masks(later, mask)
        return Decision(mask, removals)


@dataclass(frozen=True)
class Summary:
    """What a finished run did.

    Attributes:
        frames: processed.
        seconds: of wall-clock time.
        last: index of the last frame, None when there was none.
        lost: objects that are followed and cover no pixel of it, with the index of the last frame that shows
            them, None when there is none.
    """

    frames: int
    seconds: float
    last: int | None = None
    lost: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second of the whole loop: decoding, tracking and writing."""
        return self.frames / self.seconds if self.seconds else 0.0

    def losses(self) -> list[str]:
        """A sentence for each object that was lost."""
        return [
            f"object {object_id} was " + ("never seen" if index is None else f"last seen in frame {index}")
            for object_id, index in self.lost.items()
        ]


class _Log:
    """Takes note of results for a :class:`Summary`."""

    def __init__(self) -> None:
        self._start, self._frames = time.perf_counter(), 0
        self._last: int | None = None
        self._seen: dict[int, int] = {}
        self._lost: dict[int, int | None] = {}

    def add(self, frame: Frame, result: Result) -> None:
        self._frames += 1
        self._last = frame.index
        self._seen |= {state.id: frame.index for state in result.objects if state.area}
        self._lost = {state.id: self._seen.get(state.id) for state in result.objects if not state.area}

    def summary(self) -> Summary:
        return Summary(self._frames, time.perf_counter() - self._start, self._last, self._lost)


class FrameTracker(Protocol):
    """What the pipeline needs of a tracker: a :class:`Tracker`, or one whose results are refined."""

    def step(self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> Result:
        """Label the next frame."""

    def stage(self, frame: NDArray[np.uint8]) -> None:
        """Say which frame follows the next one."""

    def remove(self, object_id: int) -> None:
        """Stop following an object."""


def track(
    source: Iterable[Frame],
    tracker: FrameTracker,
    sinks: Sequence[Sink],
    edits: Edits | Steering,
    on_frame: Callable[[Frame, Result], None] = lambda frame, result: None,
) -> Summary:
    """Track a source to its end, or to where its steering stops.

    Args:
        source: an open source, or any frames in order.
        tracker: a tracker that has seen no frame of this stream.
        sinks: where results go, in this order; the caller closes them.
        edits: masks and removals by frame index, or what decides at each frame.
        on_frame: called after each frame, e.g. for progress.

    Raises:
        SourceError: when a frame cannot be read or is of another size (:meth:`Tracker.step`).
        MaskError: when a mask does not fit its frame, or an object that is to be dropped is not followed.
        OutputError: when a sink cannot write.
    """
    steering = Schedule(edits) if isinstance(edits, Edits) else edits
    log = _Log()
    for frame in source:
        decision = steering.decide(frame)
        if decision.verdict == "stop":
            break
        for object_id in decision.removals:
            tracker.remove(object_id)
        if decision.verdict == "skip":
            continue
        following = source.upcoming if isinstance(source, Source) else None
        with defer_interrupts():
            if following is not None:
                tracker.stage(following.image)
            result = tracker.step(frame.image, decision.mask)
            for sink in sinks:
                sink.write(frame, result)
            log.add(frame, result)
            on_frame(frame, result)
    return log.summary()


def revisit(
    source: Iterable[Frame],
    refine: Callable[[NDArray[np.uint8], int], Result],
    sinks: Sequence[Sink],
    on_frame: Callable[[Frame, Result], None] = lambda frame, result: None,
) -> Summary:
    """Go over a source that was tracked once more, for its final results.

    Args:
        source: the same frames again.
        refine: the final result of a frame, given its image and its number in the order of tracking, from 0.
        sinks: where results go, in this order; the caller closes them.
        on_frame: called after each frame, e.g. for progress.
    """
    log = _Log()
    for index, frame in enumerate(source):
        with defer_interrupts():
            result = refine(frame.image, index)
            for sink in sinks:
                sink.write(frame, result)
            log.add(frame, result)
            on_frame(frame, result)
    return log.summary()
