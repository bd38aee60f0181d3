"""Index and time of each frame of a video, by the timestamps of its packets.

A container's packets announce the frames. Where one yields no frame, or where packets are missing, frames were
lost, but only if something else shows damage as well: an error of the decoder, a picture that it marks as
corrupt, a failed checksum, bytes in the file that belong to no packet. Without such a sign a gap is what it is
in videos of varying rate, and a packet without a frame may be a second field or a hidden picture.

What follows damage builds upon pictures that are not there. So frames are good again from the next keyframe on.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 64
"""Frames within which a sign of damage explains a gap: decoders reorder frames, and decode several at once."""

MAX_WAIT = 300
"""Frames that are left out after damage while no keyframe comes; some videos have only one."""

MAX_GAP_S = 10.0
"""A longer gap is a jump of the clock, as where recordings were joined, unless bytes are missing too."""


@dataclass(frozen=True)
class Place:
    """Where a frame belongs: its index, its time in seconds, and the frames lost just before it."""

    index: int
    timestamp: float
    lost: int


class Timeline:
    """Places frames, which come in the order of their timestamps.

    Args:
        rate: frames per second, by the container's account.
        time_base: seconds per unit of timestamps.
        start: timestamp of the first frame where the container tells it beside its packets, else None.

    Attributes:
        lost: frames lost so far.
        regular: no frame came later than the rate says, except after damage.
    """

    def __init__(self, rate: float, time_base: float, start: int | None = None) -> None:
        self.lost, self.regular = 0, True
        self._time_base = time_base
        self._interval = 1 / (rate * self._time_base)
        self._start = start
        self._known: list[int] = []  # timestamps of packets whose frames have not come; a heap
        self._keys: list[int] = []  # of keyframes, sorted
        self._signs: list[int] = []  # timestamps near which there was a sign of damage
        self._bytes_missing: list[int] = []
        self._bad_since: int | None = None
        self._waited = 0
        self._index = -1  # of the last good frame
        self._last: int | None = None  # timestamp of the last frame, good or not
        self._lost_now: set[float] = set()  # timestamps of the frames lost since the last good one
        self._last_good: int | None = None
        self._origin: int | None = None
        self._time = 0.0
        self._counts_leading = False
        self._ordered = (
            True  # otherwise timestamps are not those at which frames are shown, and gaps say nothing
        )

    def packet(self, pts: int | None, *, key: bool, delay: int = 0) -> None:
        """Take note of a packet that goes to the decoder.

        Args:
            pts: its timestamp; None where the container has none.
            key: it holds a keyframe.
            delay: to be added to the start that the container tells.
        """
        if pts is None:
            return
        heapq.heappush(self._known, pts)
        if key:
            insort(self._keys, pts)
        if self._origin is None:
            self._origin = pts if self._start is None else min(self._start + delay, pts)
            if pts - self._origin > 1.5 * self._interval:
                self._last = self._origin - round(self._interval)
                self._signs.append(pts)
                self._bytes_missing.append(pts)

    def damaged_start(self, *, packets_missing: bool) -> None:
        """The first packet is not the one that the video began with, or not what it was.

        Args:
            packets_missing: nobody knows how many were before it; they count as one.
        """
        self._counts_leading = True
        self.damage(None)
        if packets_missing:
            self._lost_now.add(-math.inf)

    def damage(self, pts: int | None, *, bytes_missing: bool = False) -> None:
        """Note a sign of damage near this timestamp, None for near the latest packet."""
        where = pts if pts is not None else max(self._known, default=self._last or 0)
        self._signs.append(where)
        if bytes_missing:
            self._bytes_missing.append(where)

    def frame(self, pts: int | None, *, corrupt: bool) -> Place | None:
        """Place a frame that was decoded; None when it is not used and counts as lost.

        Args:
            pts: its timestamp, None where the container has none.
            corrupt: it is damaged, or builds upon one that is.
        """
        if pts is None:
            pts = 0 if self._last is None else self._last + round(self._interval)
        if self._last is not None and pts < self._last and not self._signs:
            self._ordered = False
        passed = self._passed(pts)
        missing = self._missing(pts, passed)
        if corrupt:
            self._signs.append(pts)
        if corrupt or ((passed or missing) and (self._bad_since is not None or self._is_explained(pts))):
            self._lose([*passed, *missing])
            self._keys = [key for key in self._keys if key not in passed]
            if self._bad_since is None:
                self._bad_since, self._waited = passed[0] if passed else pts, 0
        elif missing:
            self.regular = False
        self._last = pts if self._last is None else max(self._last, pts)
        if self._is_bad(pts, corrupt):
            self._lose([pts])
            return None
        self._lost_now.discard(pts)
        return self._place(pts)

    def end(self) -> int:
        """No frame follows; returns the number of frames lost since the last good one."""
        after = [pts for pts in self._known if self._last is None or pts > self._last]
        if self._ordered and after and (self._bad_since is not None or self._is_explained(after[0])):
            self._lose(after)
        self._known.clear()
        lost = self._pending_lost()
        self.lost += lost
        return lost

    def _passed(self, pts: int) -> list[int]:
        """Timestamps before this one whose packets yielded no frame."""
        passed = []
        while self._known and self._known[0] <= pts:
            known = heapq.heappop(self._known)
            if known < pts and (self._last is None or known > self._last):
                passed.append(known)
        if self._index < 0 and self._bad_since is None and not self._counts_leading:
            # Before its first keyframe a recording may have frames that nothing decodes.
            first_key = self._keys[0] if self._keys else pts
            passed = [known for known in passed if known >= first_key]
        return passed if self._ordered else []

    def _missing(self, pts: int, passed: list[int]) -> list[float]:
        """Timestamps for which there is time before this one, and no packet."""
        if self._last is None or not self._ordered:
            return []
        missing: list[float] = []
        for before, after in zip([self._last, *passed], [*passed, pts], strict=True):
            count = round((after - before) / self._interval) - 1
            if self._is_plausible(count, pts):
                missing += [before + (after - before) * i / (count + 1) for i in range(1, count + 1)]
        return missing

    def _is_plausible(self, missing: int, pts: int) -> bool:
        return missing * self._interval * self._time_base <= MAX_GAP_S or self._near(self._bytes_missing, pts)

    def _lose(self, timestamps: Sequence[float]) -> None:
        """Decoders that recover may hand out frames late, so each is counted once."""
        self._lost_now.update(pts for pts in timestamps if self._last_good is None or pts > self._last_good)

    def _pending_lost(self) -> int:
        lost, self._lost_now = len(self._lost_now), set()
        return lost

    def _is_explained(self, pts: int) -> bool:
        return self._near(self._signs, pts)

    def _near(self, signs: list[int], pts: int) -> bool:
        reach = WINDOW * self._interval
        last = self._last if self._last is not None else pts
        return any(last - reach <= sign <= pts + reach for sign in signs)

    def _is_bad(self, pts: int, corrupt: bool) -> bool:
        if corrupt:
            self._bad_since, self._waited = pts + 1, 0
            return True
        if self._bad_since is None:
            return False
        self._waited += 1
        if self._waited <= MAX_WAIT and not any(self._bad_since <= key <= pts for key in self._keys):
            return True
        self._bad_since = None
        return False

    def _place(self, pts: int) -> Place:
        lost = self._pending_lost()
        self._index += 1 + lost
        self.lost += lost
        if self._origin is None:
            self._origin = pts
        if self._index == 0:
            self._origin = pts
        else:
            told = (pts - self._origin) * self._time_base
            step = self._interval * self._time_base * (1 + lost)
            self._time = (
                told if told > self._time else self._time + step
            )  # those of damaged files may jump back
        self._last_good = pts if self._last_good is None else max(self._last_good, pts)
        self._forget(pts)
        return Place(self._index, self._time, lost)

    def _forget(self, pts: int) -> None:
        oldest = pts - 2 * WINDOW * self._interval
        self._signs = [sign for sign in self._signs if sign >= oldest]
        self._bytes_missing = [sign for sign in self._bytes_missing if sign >= oldest]
        while self._keys and self._keys[0] < pts and len(self._keys) > 1:
            self._keys.pop(0)
