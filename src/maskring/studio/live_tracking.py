"""The trackers of a live stream: one for the stream, one for what is drawn on frozen frames."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..common.errors import MaskError
from ..common.types import Labels
from ..runtime.pipeline.directions import Drawn
from ..runtime.pipeline.loop import FrameTracker
from ..runtime.pipeline.resized import ResizedTracker
from ..runtime.tracking.result import Result
from ..runtime.tracking.tracker import Tracker
from ..runtime.video.frame import Frame
from .catch_up import CatchUp
from .live_frames import MissedFrames


class LiveTracking:
    """One thread calls the methods.

    Args:
        new_tracker: opens a tracker that has seen no frame; the caller closes it.
        size: shorter side of the frames that trackers see, None for their own.
        on_error: told in one sentence why a drawing is not tracked.
        on_lost: told the id of a drawn object that left the picture before the newest frame was reached.

    Attributes:
        tracked: ids of the objects that are tracked.
        catch_up: what was drawn and has not reached the newest frame, None for nothing.
    """

    def __init__(
        self,
        new_tracker: Callable[[], Tracker],
        size: int | None,
        on_error: Callable[[str], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._new_tracker, self._size = new_tracker, size
        self._on_error, self._on_lost = on_error, on_lost
        self._main = self._sized(new_tracker())
        self._second: Tracker | None = None  # opened when it is needed first
        self.tracked: frozenset[int] = frozenset()
        self.catch_up: CatchUp | None = None

    def draw(self, drawn: Drawn, shown: Labels | None, missed: MissedFrames) -> None:
        """Begin to follow what was drawn on a frozen frame, see :class:`CatchUp`."""
        if self._second is None:
            self._second = self._new_tracker()
        self._second.reset()
        self.catch_up = CatchUp(drawn, shown, missed, self._sized(self._second))
        self.remove(drawn.ids - self.catch_up.ids)  # erased

    def remove(self, ids: Collection[int]) -> None:
        """Stop tracking objects."""
        for object_id in sorted(self.tracked & set(ids)):
            self._main.remove(object_id)
        self.tracked -= set(ids)
        if self.catch_up is not None:
            self.catch_up.ids -= set(ids)
            if not self.catch_up.ids:
                self.catch_up = None

    def follow(self, frame: Frame) -> Result | None:
        """Track the newest frame; None when there is nothing to track."""
        mask = None if self.catch_up is None else self._reached(self.catch_up, frame)
        result = self._step(frame, mask)
        self.tracked = frozenset() if result is None else frozenset(state.id for state in result.objects)
        return result

    def _step(self, frame: Frame, mask: Labels | None) -> Result | None:
        try:
            if mask is not None:
                return self._main.step(frame.image, mask)
        except MaskError as error:  # more objects than the model can track, or nothing is left at --size
            self._on_error(str(error))
        return self._main.step(frame.image) if self.tracked else None

    def _reached(self, catch_up: CatchUp, frame: Frame) -> Labels | None:
        """The mask of drawn objects on this frame, once they have reached it."""
        labels = catch_up.advance(frame)
        if labels is None:
            return None
        self.catch_up = None
        for object_id in sorted(catch_up.ids):
            if not (labels == object_id).any():
                self._on_lost(object_id)
        return labels if labels.any() else None

    def _sized(self, tracker: Tracker) -> FrameTracker:
        return tracker if self._size is None else ResizedTracker(tracker, self._size)
