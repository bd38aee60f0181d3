"""Following objects forwards and backwards from any frame that has a mask.

A *run* goes through frames in one direction and begins at a frame whose mask is complete. On its way it meets frames
where a user drew some of the objects: these pixels hold, and the tracker goes on from them. Results of an earlier
run stay for all objects that the new one does not follow.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ...common.types import Labels
from ..arrays import label_maps
from ..tracking.objects import ids_in
from ..video.frame import Frame
from .edits import Decision


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a user drew on one frame.

    Attributes:
        mask: [H, W] uint8 ids of the drawn objects, 0 elsewhere.
        ids: the drawn objects. One that covers no pixel of ``mask`` was erased: it is not on this frame.
    """

    mask: Labels
    ids: frozenset[int]

    @classmethod
    def of(cls, mask: Labels) -> Drawn:
        """All objects of a mask [H, W]."""
        return cls(mask, frozenset(ids_in(mask)))

    def over(self, labels: Labels | None) -> Labels:
        """The drawn objects over other labels [H, W], of which those objects are taken out first."""
        if labels is None:
            return np.array(self.mask)
        return label_maps.overwrite(labels, self.mask, sorted(self.ids))


class Run:
    """Steers one run (:class:`maskring.runtime.pipeline.edits.Steering`), forwards or backwards.

    Args:
        start: the complete mask of the run's first frame.
        drawn: frame index -> what was drawn there. The first frame's is part of ``start``.
        stop: set to end the run before the next frame.

    Attributes:
        followed: ids of all objects that the run has followed so far, those erased on the way included.
    """

    def __init__(self, start: Drawn, drawn: Mapping[int, Drawn], stop: threading.Event | None = None) -> None:
        self._start: Drawn | None = start
        self._drawn, self._stop = drawn, stop or threading.Event()
        self._tracked: set[int] = set()
        self.followed: set[int] = set()

    def decide(self, frame: Frame) -> Decision:
        """The mask of this frame, and the objects that were erased on it."""
        if self._stop.is_set():
            return Decision(verdict="stop")
        if self._start is not None:
            here, self._start = self._start, None
        elif frame.index in self._drawn:
            here = self._drawn[frame.index]
        else:
            return Decision()
        visible = set(ids_in(here.mask))
        erased = sorted((here.ids - visible) & self._tracked)
        self._tracked = (self._tracked - set(erased)) | visible
        self.followed |= here.ids
        return Decision(here.mask if visible else None, erased)


def merge_runs(earlier: Labels | None, later: Labels, followed: Collection[int]) -> Labels:
    """The labels of a frame after a later run.

    Args:
        earlier: [H, W] labels before that run, None for none.
        later: [H, W] labels of the run.
        followed: objects whose earlier labels the run replaces. The others keep theirs, under the run's.

    Returns:
        [H, W] labels. Where a followed object of the run meets another one, it lies on top, as later masks do.
    """
    if earlier is None:
        return later
    taken = np.zeros(256, np.uint8)
    taken[list(followed)] = list(followed)
    return Drawn(label_maps.relabel(later, taken), frozenset(followed)).over(earlier)
