"""Which past frames are read, and where each new frame is written: bookkeeping alone, no tensors."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..model.metadata import DEFAULT_LONG_TERM, DEFAULT_SHORT_TERM

MAX_SLOTS = 256
"""Frames that memory may hold: far more than helps, and few enough that no typing error fills the machine."""


@dataclass(frozen=True)
class MemoryPolicy:
    """Which past frames a frame is compared with.

    Attributes:
        long_term: frames that stay readable for good, counted from the last mask (0 is the masked frame).
        short_term: ages, in frames, of the recent frames that are read.
        dilate_after: frames older than this are read with a dilated window, since things move on; 0 = none
            ever is. MAST: 15.
        max_dilation: largest window step. The step of a dilated frame is
            ``min(max_dilation, age // dilate_after + 1)``.
        reach: no dilated window goes farther from its centre than this share of the frame's shorter side: on
            small frames an undilated window goes as far already. MAST: no limit.

    Raises:
        UserError: on construction, when the policy cannot be followed.

    Source: arXiv 2006.12480 (frames 0 and 5, t-1, t-3, t-5, no dilation); MAST (CVPR 2020) for the dilation,
    which is worth most where things move fast.
    """

    long_term: tuple[int, ...] = DEFAULT_LONG_TERM
    short_term: tuple[int, ...] = DEFAULT_SHORT_TERM
    dilate_after: int = 1
    max_dilation: int = 4
    reach: float = 0.3

    def __post_init__(self) -> None:
        _require_distinct("long_term", self.long_term, least=0)
        _require_distinct("short_term", self.short_term, least=1)
        if 0 not in self.long_term and 1 not in self.short_term:
            raise UserError(
                "the memory policy reads neither the masked frame nor the previous one, so the frame after a "
                "mask would have nothing to read",
                "put 0 into long_term or 1 into short_term",
            )
        if self.dilate_after < 0 or self.max_dilation < 1 or not self.reach >= 0:
            raise UserError(
                f"the memory policy has dilate_after={self.dilate_after}, max_dilation={self.max_dilation}, "
                f"reach={self.reach}",
                "give dilate_after >= 0, max_dilation >= 1 and reach >= 0",
            )

        if self.slots > MAX_SLOTS:
            raise UserError(
                f"the memory policy holds {self.slots} frames, of which {MAX_SLOTS} are allowed",
                "remember fewer long-term frames or younger short-term ones",
            )

    @property
    def oldest_age(self) -> int:
        """Frames for which a frame may still be wanted as a recent one."""
        return max(self.short_term, default=0)

    @property
    def slots(self) -> int:
        """Frames in memory at once: the long-term ones, every recent one, and the one being written."""
        return len(self.long_term) + self.oldest_age + 1

    def frames_read(self, clock: int) -> set[int]:
        """Frames read at frame ``clock``; both are counted from the last mask."""
        long_term = {frame for frame in self.long_term if frame < clock}
        return long_term | {clock - age for age in self.short_term if age <= clock}

    def dilation(self, age: int, windows: float) -> int:
        """Window step for a frame that is ``age`` frames old.

        Args:
            age: 1 for the previous frame.
            windows: shorter side of the frame, in window radii.
        """
        if self.dilate_after == 0 or age <= self.dilate_after:
            return 1
        farthest = int(min(self.reach * windows, self.max_dilation))
        return max(1, min(farthest, age // self.dilate_after + 1))


class MemoryRing:
    """Says, for each frame, which slots are read and which one is written; O(1) per frame.

    A frame is written once and never moved. Its slot is free again when the frame is older than the oldest
    recent age, unless it is a long-term frame: then the slot is simply not given back. So a frame that is
    both recent and long-term stands in one slot and is read once.

    Per frame: :meth:`plan`, then :meth:`restart` if the user gave a mask, then :meth:`commit`. A frame that
    fails between ``plan`` and ``commit`` leaves no trace.

    Args:
        policy: which past frames are read.
        slots: slots of the model, when it has more than ``policy.slots``; the others stay empty.

    Raises:
        UserError: when ``slots`` are too few for the policy.
    """

    def __init__(self, policy: MemoryPolicy, slots: int | None = None) -> None:
        self.policy = policy
        self.slots = policy.slots if slots is None else slots
        if self.slots < policy.slots:
            raise UserError(
                f"the memory policy needs {policy.slots} slots and the model has {self.slots}",
                "export the model without a fixed number of slots, or remember fewer frames",
            )
        self._clock = 0
        self._slot_of_frame: dict[int, int] = {}  # frame, counted from the last mask -> its slot
        self._free = deque(range(policy.slots))

    def plan(self, windows: float) -> tuple[NDArray[np.int32], int]:
        """The reads and the write of the current frame.

        Args:
            windows: shorter side of the frame, in window radii.

        Returns:
            dilation [N]: window step per slot, 0 = not read; and the slot to write, which is not read.
        """
        dilation = np.zeros(self.slots, np.int32)
        for frame in self.policy.frames_read(self._clock):
            dilation[self._slot_of_frame[frame]] = self.policy.dilation(self._clock - frame, windows)
        return dilation, self._free[0]

    def restart(self) -> None:
        """Make the current frame, whose labels the user has just given, the first one of a new memory.

        Older frames are forgotten, recent ones included. They know nothing of an object that the mask adds
        and hold the very error that the mask corrects, and in a joint softmax they would outvote the one
        frame that is right. Objects that the mask does not touch lose nothing but their older views: their
        labels at this frame are part of what is remembered.
        """
        self._free.extend(self._slot_of_frame.values())
        self._slot_of_frame.clear()
        self._clock = 0

    def commit(self) -> None:
        """Take the current frame, now written, into memory and move on to the next."""
        self._slot_of_frame[self._clock] = self._free.popleft()
        aged_out = self._clock - self.policy.oldest_age
        if aged_out >= 0 and aged_out not in self.policy.long_term:
            self._free.append(self._slot_of_frame.pop(aged_out))
        self._clock += 1


def _require_distinct(name: str, frames: tuple[int, ...], least: int) -> None:
    if len(set(frames)) != len(frames) or any(frame < least for frame in frames):
        raise UserError(
            f"the memory policy's {name} is {list(frames)}", f"give different numbers, each {least} or more"
        )
