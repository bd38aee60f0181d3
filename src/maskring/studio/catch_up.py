"""Objects that were drawn on a frozen frame of a stream, on their way to the newest frame.

The stream goes on while a user draws. What they drew is true of the frozen frame alone, so a tracker of its own
follows it through the frames that came since, a few at a time, until it reaches the newest one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..common.types import Image, Labels
from ..runtime.arrays import label_maps
from ..runtime.pipeline.directions import Drawn
from ..runtime.tracking.objects import ids_in
from ..runtime.tracking.result import Result
from ..runtime.video.frame import Frame
from .live_frames import MissedFrames

STEPS = 4
"""Missed frames that are followed for each new one."""


class Steps(Protocol):
    """A tracker that has seen no frame."""

    def step(self, frame: Image, mask: Labels | None = None) -> Result:
        """Label the next frame."""


class CatchUp:
    """Follows what was drawn on a frozen frame.

    Args:
        drawn: the drawing.
        shown: [H, W] ids that the frozen frame showed before, None for none. Its other objects are followed too, so
            that the drawn ones do not spread over them.
        missed: the frozen frame and those since.
        tracker: has seen no frame.

    Attributes:
        ids: the drawn objects that are followed.
        done, total: frames that were followed, and these with those that wait.
    """

    def __init__(self, drawn: Drawn, shown: Labels | None, missed: MissedFrames, tracker: Steps) -> None:
        self._missed, self._tracker = missed, tracker
        self._start: Labels | None = drawn.over(shown)
        self.ids = frozenset(ids_in(drawn.mask))
        self.total, self.done = len(missed), 0

    def advance(self, newest: Frame) -> Labels | None:
        """Take the newest frame and follow :data:`STEPS` of those that wait.

        Returns:
            [H, W] ids of the drawn objects on the newest frame, once it is reached; None before that.
        """
        self._missed.add(newest)
        for _ in range(STEPS):
            frame = self._missed.pop()
            start, self._start = self._start, None
            result = self._tracker.step(frame.image, start)
            self.done += 1
            if frame is newest:
                return self._only_drawn(result.labels)
            if not len(self._missed):  # the newest one was given up when there were too many
                self._missed = MissedFrames([newest])
        self.total = self.done + len(self._missed)
        return None

    def _only_drawn(self, labels: Labels) -> Labels:
        table = np.zeros(256, np.uint8)
        table[list(self.ids)] = list(self.ids)
        return label_maps.relabel(labels, table)
