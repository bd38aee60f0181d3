"""Encode pictures as an MP4 that browsers play: H.264, 4:2:0, its index before its data."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...common.errors import OutputError
from ...common.types import Image

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {"rc_mode": "quality"},
    "mpeg4": {},
}
"""Encoder -> options, best first: two of H.264, which browsers play, and MPEG-4 Part 2, which VLC and mpv play."""

H264_ENCODERS = ("libx264", "libopenh264")

BITS_PER_PIXEL = 0.2
"""For encoders that have no setting of quality."""

MAX_DENOMINATOR = 65535
"""Of frame times: MPEG-4 Part 2 stores them in 16 bits."""

BT_709, LIMITED_RANGE = 1, 1


class VideoFile:
    """An MP4 that grows by one picture at a time.

    Args:
        path: the file.
        fps: frames per second.
        size: (H, W) of the pictures, even numbers.

    Attributes:
        codec: ``h264`` or ``mpeg4``.

    Raises:
        OSError: when the file cannot be written.
        OutputError: when no encoder takes such pictures.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        import av

        self._container = av.open(
            "file:" + os.fspath(path), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._rate = Fraction(fps).limit_denominator(MAX_DENOMINATOR)
        self._count = 0
        try:
            self._stream = self._add_stream(size)
            self.codec = self._stream.codec_context.codec.canonical_name
        except BaseException:
            self._container.close()
            raise

    def append(self, picture: Image) -> None:
        """Add a picture [H, W, 3] uint8 RGB.

        Raises:
            OSError: when the file cannot be written.
        """
        import av

        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
            format="yuv420p", dst_colorspace=BT_709, dst_color_range=LIMITED_RANGE
        )
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file.

        Raises:
            OSError: when it cannot be written.
        """
        try:
            self._mux(self._stream.encode(None))
        finally:
            self._container.close()

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            self._container.mux(packet)

    def _add_stream(self, size: tuple[int, int]) -> VideoStream:
        import av

        height, width = size
        for name, options in ENCODERS.items():
            if name not in av.codecs_available:
                continue
            stream = cast("VideoStream", self._container.add_stream(name, self._rate, options=options))
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base = 1 / self._rate
            context.color_range, context.colorspace = LIMITED_RANGE, BT_709
            context.color_primaries, context.color_trc = BT_709, BT_709
            if name != "libx264":
                context.bit_rate = int(BITS_PER_PIXEL * width * height * self._rate)
            return stream
        raise OutputError(
            "this FFmpeg has no encoder for MP4 videos",
            "install PyAV from a wheel, or run without the overlay video (--no-overlay)",
        )
