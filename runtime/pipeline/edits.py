"""What happens to a stream while it runs: masks, removals, skipped frames, the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from ...common.errors import MaskError
from ...common.types import Labels
from ..video.frame import Frame


@dataclass(frozen=True)
class Edits:
    """Masks and removals by frame index.

    Attributes:
        masks: frame index -> [H, W] uint8 object ids. Frame 0 starts the tracking; later masks add or correct
            objects.
        removals: frame index -> ids of objects that are dropped before this frame is processed.
    """

    masks: Mapping[int, Labels]
    removals: Mapping[int, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Decision:
    """What to do at one frame.

    Attributes:
        mask: [H, W] uint8 object ids to give the tracker with the frame, None for none.
        removals: ids of objects to drop before the frame is processed.
        verdict: ``track`` processes the frame; ``skip`` leaves it out and writes nothing for it; ``stop``
            ends the run before it.
    """

    mask: Labels | None = None
    removals: Sequence[int] = ()
    verdict: Literal["track", "skip", "stop"] = "track"


class Steering(Protocol):
    """Decides what to do at each frame."""

    def decide(self, frame: Frame) -> Decision:
        """Called once for each frame of the source, in order."""


class Schedule:
    """Steers by edits that are known beforehand.

    An edit takes effect at the first frame whose index is at least its own, so a live source that drops
    frames loses no edit.
    """

    def __init__(self, edits: Edits) -> None:
        self._masks, self._removals = sorted(edits.masks.items()), sorted(edits.removals.items())

    def decide(self, frame: Frame) -> Decision:
        """All edits that are due at this frame. Of several masks, later ones lie on top.

        Raises:
            MaskError: when these masks differ in size.
        """
        removals: list[int] = []
        while self._removals and self._removals[0][0] <= frame.index:
            removals += self._removals.pop(0)[1]
        mask = None
        while self._masks and self._masks[0][0] <= frame.index:
            later = self._masks.pop(0)[1]
            mask = later if mask is None else merge_masks(later, mask)
        return Decision(mask, removals)


def merge_masks(upper: Labels, lower: Labels) -> Labels:
    """Lay one mask [H, W] over another: where both show an object, that of ``upper`` counts.

    Raises:
        MaskError: when they differ in size.
    """
    if upper.shape != lower.shape:
        raise MaskError(
            f"two masks for one frame differ in size, {list(upper.shape)} and {list(lower.shape)}",
            "draw both at the size of the frames",
        )
    return np.where(upper > 0, upper, lower)
