"""Which frames build upon a damaged one, by the order in which they are decoded.

A frame may be shown before those that it is predicted from (B-frames). Decoders hand frames out in the order in
which they are shown, so frames that repeat damage may come before the one that is marked as damaged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

F = TypeVar("F")

MAX_REORDER = 16
"""Frames that are held back at most: H.264 and HEVC reorder no more."""


class DecodeOrder(Generic[F]):
    """Holds each frame back until all have come that were decoded before it.

    Without B-frames nothing is held back.
    """

    def __init__(self) -> None:
        self._count = 0  # of packets; places in the order of decoding are counted from 0
        self._expected: dict[int, int] = {}  # timestamps of packets whose frames have not come -> place
        self._keys: deque[int] = deque(maxlen=2 * MAX_REORDER)  # places of keyframes
        self._damaged: deque[int] = deque(maxlen=2 * MAX_REORDER)  # places of what is damaged
        self._held: deque[tuple[F, int | None, bool]] = deque()

    def packet(self, pts: int | None, *, key: bool) -> None:
        """Take note of a packet that goes to the decoder; without a timestamp none of its frames is awaited."""
        if key:
            self._keys.append(self._count)
        if pts is not None:
            self._expected[pts] = self._count
        self._count += 1

    def damage(self, packets_ago: int = 0) -> None:
        """The latest packet is damaged, or one before it."""
        self._damaged.append(max(0, self._count - 1 - packets_ago))

    def frame(self, frame: F, pts: int | None, *, corrupt: bool) -> Iterator[tuple[F, bool]]:
        """Give a frame as it comes from the decoder.

        Yields:
            Frames that are ready, and whether they are damaged or build upon one that is.
        """
        place = None if pts is None else self._expected.get(pts)
        if corrupt and place is not None:
            self._damaged.append(place)
        if pts is not None:  # frames come in the order of their timestamps: no earlier one follows
            self._expected = {at: n for at, n in self._expected.items() if at > pts}
        self._held.append((frame, place, corrupt))
        while self._held and (len(self._held) > MAX_REORDER or not self._waits(self._held[0][1])):
            yield self._next()

    def flush(self) -> Iterator[tuple[F, bool]]:
        """No frame follows; yields the last ones."""
        while self._held:
            yield self._next()

    def _waits(self, place: int | None) -> bool:
        """Whether a frame that was decoded before this one has not come."""
        return place is not None and any(place - MAX_REORDER <= n < place for n in self._expected.values())

    def _next(self) -> tuple[F, bool]:
        frame, place, corrupt = self._held.popleft()
        return frame, corrupt or (place is not None and self._repeats_damage(place))

    def _repeats_damage(self, place: int) -> bool:
        last_key = max((key for key in self._keys if key <= place), default=0)
        return any(last_key <= damaged <= place for damaged in self._damaged)
