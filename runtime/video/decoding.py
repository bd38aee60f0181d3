"""Decode a video: packets in, upright RGB frames with their places out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.types import Image
from .containers import frame_rate, packets_of, video_stream
from .conversion import Converter, Deinterlacer
from .decode_order import DecodeOrder
from .joined_clock import JoinedClock
from .timeline import Place, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SYNC_BYTE = 0x47
"""First byte of an MPEG transport packet."""

MISSING_PACKETS = 2.0
"""A gap of so many average packets between two packets, in bytes, shows that a part of the file was lost."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A frame [H, W, 3] uint8 RGB, upright, and its place."""

    image: Image
    place: Place


class Decoder:
    """Decodes the video of a container.

    Args:
        container: an open file or address; closed by :meth:`close`.
        name: its name in errors.

    Attributes:
        stream: the stream that is decoded.
        fps: frames per second by the container's account.

    Raises:
        SourceError: when there is no video that can be decoded, or its frames are giant.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        self.stream = video_stream(container, name)
        self.fps = frame_rate(self.stream)
        self._container = container
        self._converter = Converter(name)
        self._survey = Survey(container, self.stream)
        self._time_base = float(self.stream.time_base or 1 / self.fps)
        self._timeline = Timeline(self.fps, self._time_base, self._survey.start)
        self._clock = JoinedClock(1 / (self.fps * self._time_base))
        self._first_index = 0
        self._first_pts: float | None = None

    @property
    def lost(self) -> int:
        """Frames lost so far, by damage."""
        return self._timeline.lost

    def frames(self) -> Iterator[Decoded]:
        """The frames that can be used, in order.

        Raises:
            SourceError: when a frame is giant.
        """
        deinterlacer = Deinterlacer[Place]()
        for frame, corrupt in self._decoded():
            place = self._timeline.frame(frame.pts, corrupt=corrupt)
            if place is None or self._is_before(frame, place):
                continue
            for ready, its_place in deinterlacer.push(frame, place):
                yield Decoded(self._converter.image(ready), its_place)
        for ready, its_place in deinterlacer.flush():
            yield Decoded(self._converter.image(ready), its_place)
        self._timeline.end()
        self._timeline.lost += self._survey.missing_end()

    def seek(self, index: int) -> None:
        """Make :meth:`frames` begin near this index: exactly there where the rate does not vary.

        Indices count from the first frame that comes then.
        """
        from av import FFmpegError

        interval = 1 / (self.fps * self._time_base)
        start = (self.stream.start_time or 0) + round(index * interval)
        try:
            self._container.seek(start, stream=self.stream)
        except FFmpegError:  # nothing can be sought in raw streams
            self._first_index = index
        else:
            self._first_pts = start - interval / 2
            self._timeline = Timeline(self.fps, self._time_base)

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def _is_before(self, frame: VideoFrame, place: Place) -> bool:
        """Whether the frame lies before the one that was sought."""
        if self._first_pts is not None and frame.pts is not None:
            return frame.pts < self._first_pts
        return place.index < self._first_index

    def _decoded(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Frames in order, and whether they are damaged; signs of damage are passed to the timeline."""
        from av import FFmpegError

        order: DecodeOrder[VideoFrame] = DecodeOrder()
        missing = False
        for packet in packets_of(self._container):
            if isinstance(packet, Exception):
                self._timeline.damage(None)
                continue
            missing = self._survey.packet(packet) or missing  # the next packet may be one of sound
            if packet.stream.index != self.stream.index:
                continue
            self._clock.mend(packet)
            self._announce(packet, order)
            if missing:
                self._timeline.damage(packet.pts, bytes_missing=True)
                order.damage(packets_ago=1)
                missing = False
            if packet.is_corrupt:
                self._timeline.damage(packet.pts)
                order.damage()
            try:
                frames = self.stream.decode(packet)
            except FFmpegError:
                self._timeline.damage(packet.pts)
                order.damage()
                continue
            for frame in frames:
                yield from order.frame(frame, frame.pts, corrupt=frame.is_corrupt)
        yield from order.flush()

    def _announce(self, packet: Packet, order: DecodeOrder[VideoFrame]) -> None:  # type: ignore[type-arg]
        """Take note of a packet of the video; those without content end a stream."""
        if packet.size:
            shown = not packet.is_discard
            order.packet(packet.pts if shown else None, key=packet.is_keyframe)
            if shown:
                delay = self._survey.delay(packet)
                self._timeline.packet(packet.pts, key=packet.is_keyframe, delay=delay)
        if self._survey.begins_damaged(packet):
            self._timeline.damaged_start(packets_missing=not self._survey.begins_with_key)
        if not packet.size and self._survey.may_be_cut_off(self._timeline.regular):
            self._timeline.damage(None)  # a frame may have come before those that are shown before it


class Survey:
    """Compares the packets of a file with what its index and its size say, and finds what is missing.

    Args:
        container: a file or address that was opened.
        stream: its video.

    Attributes:
        start: timestamp at which the video begins by the index of a Matroska or AVI file, else None.
        begins_with_key: the first frame of such a container is a keyframe.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        formats = container.format.name.split(",")
        self._is_avi, self._is_matroska = "avi" in formats, "matroska" in formats
        # In these, packets lie side by side. Others have padding between them, or list all packets.
        self._checks_bytes = bool({"avi", "matroska", "flv"} & set(formats))
        self._container, self._stream = container, stream
        self._index = _index(stream) if self._is_avi else []
        self._packets = self._bytes = 0
        self._position: int | None = None  # at which the next packet should begin
        self._latest_dts, self._step = -1, 0  # smallest difference between two
        self._latest_s = 0.0
        self.start = self._told_start()
        self.begins_with_key = bool({"avi", "matroska", "mp4"} & set(formats))
        self._is_broadcast = "mpegts" in formats

    def packet(self, packet: Packet) -> bool:  # type: ignore[type-arg]
        """Take note of a packet of any stream, and mend its timestamps where the index knows better.

        Returns:
            Whether bytes that belong to no packet lie before it.
        """
        missing = self._is_after_hole(packet)
        if not packet.size:
            return missing
        if packet.pts is not None:
            end = packet.pts + (packet.duration or 0)
            self._latest_s = max(self._latest_s, float(end * packet.time_base))
        if packet.stream.index == self._stream.index:
            self._packets += 1
            self._bytes += packet.size
            self._mend(packet)
            dts = packet.dts or 0
            if 0 <= self._latest_dts < dts:
                step = dts - self._latest_dts
                self._step = min(self._step, step) if self._step else step
            self._latest_dts = max(self._latest_dts, dts)
        return missing

    def missing_end(self) -> int:
        """Number of frames that the container announces after the last packet."""
        if self._is_avi and self._stream.frames:  # which counts empty chunks, too
            step = self._step or 1
            return max(0, self._stream.frames - self._latest_dts - step) // step
        if self._is_matroska and self._container.duration is not None:
            told = self._container.duration / 1e6  # of the end, not since the first frame
            return max(0, round((told - self._latest_s) * frame_rate(self._stream)))
        return max(0, self._stream.frames - self._packets)

    def delay(self, packet: Packet) -> int:  # type: ignore[type-arg]
        """How much later the frame of a packet is shown than :attr:`start` counts: AVI tells when it is decoded."""
        if not self._is_avi or packet.pts is None or packet.dts is None:
            return 0
        return packet.pts - packet.dts

    def begins_damaged(self, packet: Packet) -> bool:  # type: ignore[type-arg]
        """Whether this is the first packet of the video, and a part of the file before it is damaged."""
        if self._packets != 1:
            return False
        if self._is_broadcast:
            return not _begins_in_step(self._container.name)
        return self.begins_with_key and not packet.is_keyframe

    def may_be_cut_off(self, regular: bool) -> bool:
        """Whether the file ends too early; where nothing tells its length, a gap in a regular rhythm does."""
        tells = self._is_avi or self._is_matroska or self._stream.frames
        return self.missing_end() > 0 if tells else regular

    def _is_after_hole(self, packet: Packet) -> bool:  # type: ignore[type-arg]
        before, self._position = self._position, None
        if packet.pos is not None and packet.pos >= 0:
            self._position = packet.pos + packet.size
        if before is None or packet.pos is None or not self._checks_bytes or not self._packets:
            return False
        if self._index:  # large AVIs hold an index at each gigabyte, which is no loss
            announced = bisect_left(self._index, (packet.pos,)) - bisect_left(self._index, (before,))
            return announced > int(packet.stream.index == self._stream.index)
        return packet.pos - before > MISSING_PACKETS * self._bytes / self._packets

    def _mend(self, packet: Packet) -> None:  # type: ignore[type-arg]
        """AVI numbers packets as they come; its index knows which chunk lies where."""
        if not self._index or packet.pos is None or packet.dts is None:
            return
        entry = bisect_right(self._index, (packet.pos, packet.dts + (1 << 62))) - 1
        if entry >= 0 and (late := self._index[entry][1] - packet.dts) > 0:
            packet.dts += late
            if packet.pts is not None:
                packet.pts += late

    def _told_start(self) -> int | None:
        index = _index(self._stream) if self._is_matroska else self._index
        return min((timestamp for _, timestamp in index), default=None)


def _begins_in_step(name: str) -> bool:
    """Whether a file of MPEG transport packets begins with some; recordings may begin within one.

    A name that is no regular file counts as whole: a pipe gives its bytes once.
    """
    path = Path(name.removeprefix("file:"))  # or an address
    try:
        if not path.is_file():
            return True
        with path.open("rb") as file:
            head = file.read(5 * 204)
    except (OSError, ValueError):
        return True
    return any(
        all(head[at] == SYNC_BYTE for at in range(begin, len(head), size))
        for size in (188, 192, 204)
        for begin in range(min(size, len(head)))
    )


def _index(stream: VideoStream) -> list[tuple[int, int]]:
    """(position in the file, timestamp) of the packets in the container's index, by position."""
    entries = getattr(stream, "index_entries", ())  # PyAV 17
    return sorted((entry.pos, entry.timestamp) for entry in entries)
