"""Open video files and addresses with FFmpeg, through PyAV, and say in one sentence what is wrong with them.

PyAV is imported when the first video is opened: folders and cameras need none of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import SourceError
from .frame import MAX_PIXELS, check_pixel_limit

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

NETWORK_TIMEOUT_S = 10.0
"""Longest time in which a network stream must open, and longest silence it may keep."""

MAX_READ_ERRORS = 100
"""After so many errors of a container in a row nothing more is read from it."""

LIMITS = {"max_pixels": str(MAX_PIXELS)}
"""Options of every decoder, also of those that FFmpeg opens to find out what a file holds."""

FALLBACK_FPS = 30.0
"""Frame rate of videos and cameras that do not tell theirs."""


def open_file(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        SourceError: when FFmpeg cannot read it.
    """
    import av

    try:
        # With a protocol, for FFmpeg takes 10:30.mp4 for an address.
        return av.open("file:" + os.fspath(path), options=dict(LIMITS))
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be opened as a video ({_reason(error)})",
            "copy it again if it is incomplete, check that it plays elsewhere, or convert it to MP4",
        ) from error


def open_address(url: str, name: str) -> InputContainer:
    """Open a network stream, RTSP over TCP.

    Args:
        url: the address.
        name: the address as errors may show it, without password.

    Raises:
        SourceError: when it does not answer.
    """
    import av

    options = {**LIMITS, "rtsp_transport": "tcp"}
    try:
        return av.open(url, options=options, timeout=(NETWORK_TIMEOUT_S, NETWORK_TIMEOUT_S))
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(
            f"{name} cannot be opened ({_reason(error)})", "check the address, the network and the password"
        ) from None  # PyAV's error quotes the address with its password


def _reason(error: Exception) -> str:
    """FFmpeg's words for what went wrong, without the name."""
    return str(getattr(error, "strerror", None) or error)


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream to read: no cover picture; the default one, else the largest, else the first.

    Raises:
        SourceError: when there is none that can be decoded, or its frames are giant.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams:
        covers = len(container.streams.video) > 0
        raise SourceError(
            f"{name} holds no video{', only a cover picture' if covers else ''}", "name a file with a video"
        )
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise SourceError(
            f"{name} is encoded in a way that FFmpeg cannot decode", "convert it to H.264 in an MP4"
        )
    best = max(decodable, key=_preference)
    check_pixel_limit(name, best.codec_context.height, best.codec_context.width)
    best.codec_context.options = dict(LIMITS)
    best.thread_type = "AUTO"
    _discard_others(container, best)
    return best


def _preference(stream: VideoStream) -> tuple[bool, int]:
    from av.stream import Disposition

    size = stream.codec_context.height * stream.codec_context.width
    return bool(stream.disposition & Disposition.default), size


def _discard_others(container: InputContainer, wanted: VideoStream) -> None:
    """Keep other renditions of a network stream from being downloaded."""
    if container.format.name.startswith("hls"):
        for stream in container.streams:
            if stream.index != wanted.index and hasattr(stream, "discard"):  # PyAV 17
                from av.stream import Discard

                stream.discard = Discard.all


def packets_of(container: InputContainer) -> Iterator[Packet | Exception]:  # type: ignore[type-arg]
    """The packets of all streams, and errors in their places; where the container is damaged, reading goes on.

    Each stream ends with an empty packet, unless the file or connection fails.
    """
    from av import FFmpegError, InvalidDataError

    failed = 0
    while failed < MAX_READ_ERRORS:
        try:
            for packet in container.demux():
                failed = 0
                yield packet
            return
        except InvalidDataError as error:
            failed += 1
            yield error
        except FFmpegError as error:
            yield error
            return


def frame_rate(stream: VideoStream) -> float:
    """Frames per second by the container's account.

    Streams without a rate tell none, or the ticks of their clock, such as 90000.
    """
    for told in (stream.average_rate, stream.guessed_rate):
        if told is not None and 0 < told <= 1000:
            return float(told)
    return FALLBACK_FPS


def frame_count(container: InputContainer, stream: VideoStream) -> int | None:
    """Number of frames by the container's account, None where it does not tell."""
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / 1e6
    by_time = None if duration is None else round(duration * frame_rate(stream))
    if stream.frames > 0:  # of an MP4, also those that its edit list leaves out
        return stream.frames if by_time is None or by_time <= 0 else min(stream.frames, by_time)
    return by_time if by_time is not None and by_time > 0 else None
