"""Timestamps of recordings that were joined, each of which begins its clock anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet

MAX_STEP_BACK = 16
"""Frames by which timestamps may go back without a new recording: more are never reordered."""


class JoinedClock:
    """Makes the timestamps of a video's packets go on where a new recording begins.

    Such a recording begins with a keyframe, and its packets say earlier times than those before. Players show
    it after the first one, and so it gets later times here.

    Args:
        interval: of two frames, in units of timestamps.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._latest: int | None = None  # time of decoding
        self._shift = 0

    def mend(self, packet: Packet) -> None:  # type: ignore[type-arg]
        """Shift the timestamps of the next packet, in the order of decoding."""
        if packet.dts is None:
            return
        if self._latest is not None and packet.is_keyframe:
            back = self._latest - packet.dts - self._shift
            if back > MAX_STEP_BACK * self._interval:
                self._shift += back + round(self._interval)
        if self._shift:
            packet.dts += self._shift
            if packet.pts is not None:
                packet.pts += self._shift
        self._latest = packet.dts if self._latest is None else max(self._latest, packet.dts)
