"""Which past frames are read, and where each new frame is written. Bookkeeping alone: no tensors."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..model.metadata import DEFAULT_LONG_TERM, DEFAULT_SHORT_TERM, ModelMetadata

MAX_SLOTS = 256
"""Frames that memory may hold. More do not help, and a typing error must not fill the machine's memory."""


@dataclass(frozen=True)
class MemoryPolicy:
    """Which past frames each frame is compared with, and in how large a window.

    All frame numbers count from the last mask: frame 0 is the masked frame.

    Attributes:
        long_term: frames that stay in memory for good.
        short_term: ages, in frames, of the recent frames that are read.
        dilate_after: frames older than this are read with a dilated window, because objects move; 0 never
            dilates. MAST: 15.
        max_dilation: limits the window step. A frame is read with step
            ``min(max_dilation, age // dilate_after + 1)``.
        reach: limits the reach of a dilated window to this fraction of the frame's shorter side. On small
            frames this disables dilation. MAST: no limit.

    Raises:
        UserError: on construction, when the policy is contradictory or too large.

    Source: arXiv 2006.12480 (frames 0 and 5, t-1, t-3, t-5, no dilation); MAST (CVPR 2020) for the dilation,
    which helps most where objects move fast.
    """

    long_term: tuple[int, ...] = DEFAULT_LONG_TERM
    short_term: tuple[int, ...] = DEFAULT_SHORT_TERM
    dilate_after: int = 1
    max_dilation: int = 4
    reach: float = 0.3

    def __post_init__(self) -> None:
        _check_distinct("long_term", self.long_term, least=0)
        _check_distinct("short_term", self.short_term, least=1)
        if 0 not in self.long_term and 1 not in self.short_term:
            raise UserError(
                "the memory policy reads neither the masked frame nor the previous one, so the frame after a "
                "mask would have nothing to read",
                "add 0 to long_term or 1 to short_term",
            )
        if self.dilate_after < 0 or self.max_dilation < 1 or not self.reach >= 0:
            raise UserError(
                f"the memory policy has dilate_after={self.dilate_after}, max_dilation={self.max_dilation}, "
                f"reach={self.reach}",
                "give dilate_after >= 0, max_dilation >= 1 and reach >= 0",
            )
        if self.num_slots > MAX_SLOTS:
            raise UserError(
                f"the memory policy holds {self.num_slots} frames; at most {MAX_SLOTS} are allowed",
                "use fewer long-term frames or a shorter short-term memory",
            )

    @classmethod
    def of_model(cls, metadata: ModelMetadata) -> MemoryPolicy:
        """The policy that is stored in a model."""
        return cls(metadata.long_term, metadata.short_term)

    @property
    def oldest_age(self) -> int:
        """Age of the oldest recent frame that is read."""
        return max(self.short_term, default=0)

    @property
    def num_slots(self) -> int:
        """Frames in memory at once: the long-term ones, every recent one, and the one being written."""
        return len(self.long_term) + self.oldest_age + 1

    def frames_read(self, clock: int) -> set[int]:
        """Frames that frame ``clock`` reads."""
        long_term = {frame for frame in self.long_term if frame < clock}
        return long_term | {clock - age for age in self.short_term if age <= clock}

    def frame_dropped(self, clock: int) -> int | None:
        """The frame that memory no longer needs once frame ``clock`` was written; None when there is none."""
        aged_out = clock - self.oldest_age
        return None if aged_out < 0 or aged_out in self.long_term else aged_out

    def dilation(self, age: int, frame_in_radii: float) -> int:
        """Window step for a frame that is ``age`` frames old.

        Args:
            age: 1 for the previous frame.
            frame_in_radii: shorter side of the frame, in window radii.
        """
        if self.dilate_after == 0 or age <= self.dilate_after:
            return 1
        farthest = int(min(self.reach * frame_in_radii, self.max_dilation))
        return max(1, min(farthest, age // self.dilate_after + 1))

    def reads(self, clock: int, frame_in_radii: float) -> dict[int, int]:
        """Frames that frame ``clock`` reads, ascending, each with its window step.

        Args:
            clock: the current frame.
            frame_in_radii: shorter side of the frame, in window radii.
        """
        frames = sorted(self.frames_read(clock))
        return {frame: self.dilation(clock - frame, frame_in_radii) for frame in frames}


class MemoryRing:
    """Assigns frames to slots; O(1) per frame.

    A frame is written once and never moved. Its slot becomes free when the frame is older than the oldest
    recent age. Slots of long-term frames never become free. A frame that is both recent and long-term stands
    in one slot and is read once.

    Per frame, call :meth:`plan`, then :meth:`restart` or :meth:`retain` if the user gave a mask, then
    :meth:`commit`. A frame that fails between ``plan`` and ``commit`` leaves no trace.

    Args:
        policy: which past frames are read.
        num_slots: slots of the model; None for as many as the policy needs. Surplus slots stay empty.

    Raises:
        UserError: when there are fewer slots than the policy needs.
    """

    def __init__(self, policy: MemoryPolicy, num_slots: int | None = None) -> None:
        self.policy = self._initial_policy = policy
        self.num_slots = policy.num_slots if num_slots is None else num_slots
        if self.num_slots < policy.num_slots:
            raise UserError(
                f"the memory policy needs {policy.num_slots} slots and the model has {self.num_slots}",
                "export the model without a fixed number of slots, or remember fewer frames",
            )
        self._clock = 0
        self._slot_of_frame: dict[int, int] = {}
        self._free = deque(range(policy.num_slots))

    def plan(self, frame_in_radii: float) -> tuple[NDArray[np.int32], int]:
        """Slots that the current frame reads, and the slot that it is written to.

        Args:
            frame_in_radii: shorter side of the frame, in window radii.

        Returns:
            dilation [N], the window step per slot, 0 = not read; and the slot to write, which is not read.
        """
        dilation = np.zeros(self.num_slots, np.int32)
        for frame, step in self.policy.reads(self._clock, frame_in_radii).items():
            dilation[self._slot_of_frame[frame]] = step
        return dilation, self._free[0]

    def restart(self) -> None:
        """Forget all frames and make the current one, which has a mask, frame 0.

        Recent frames go, too. They hold the error that the mask corrects: in a joint softmax they would
        outvote the one frame that is right. Objects that the mask does not touch lose only their older views,
        because their labels at this frame are stored.
        """
        self.policy = self._initial_policy
        self._free.extend(self._slot_of_frame.values())
        self._slot_of_frame.clear()
        self._clock = 0

    @property
    def can_retain(self) -> bool:
        """Whether a long-term frame can be replaced and the first one still stays."""
        return len(self.policy.long_term) > 1 and bool(self._slot_of_frame)

    def retain(self) -> None:
        """Make the current frame, which has a mask, the newest long-term frame, in place of the last one.

        For masks that only add objects. The frames in memory must learn of the new objects first.
        """
        *older, newest = sorted(self.policy.long_term)
        if newest < self._clock - self.policy.oldest_age:
            self._free.append(self._slot_of_frame.pop(newest))
        self.policy = replace(self.policy, long_term=(*older, self._clock))

    def slots(self) -> dict[int, int]:
        """Age of each frame in memory -> its slot; the newest frame, of age 1, comes first."""
        return {
            self._clock - frame: slot for frame, slot in sorted(self._slot_of_frame.items(), reverse=True)
        }

    def commit(self) -> None:
        """Record that the current frame was written, and move on to the next one."""
        self._slot_of_frame[self._clock] = self._free.popleft()
        dropped = self.policy.frame_dropped(self._clock)
        if dropped is not None:
            self._free.append(self._slot_of_frame.pop(dropped))
        self._clock += 1


def _check_distinct(name: str, frames: tuple[int, ...], least: int) -> None:
    if len(set(frames)) != len(frames) or any(frame < least for frame in frames):
        raise UserError(
            f"the memory policy's {name} is {list(frames)}", f"give different numbers, each {least} or more"
        )
