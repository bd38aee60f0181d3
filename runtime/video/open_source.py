"""Open a video by what a user types: a file, a folder of images, a camera, an address or a pipeline."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2

from ...common.errors import SourceError, UnavailableError
from ...common.interrupts import defer_interrupts
from .containers import open_address, open_file
from .folders import IMAGE_SUFFIXES, is_pattern
from .images import check_single_picture
from .opencv import CaptureConnection, has_gstreamer, silence_opencv
from .readers import FolderReader, Reader, StreamReader
from .source import Source
from .video_reader import NetworkStream, VideoReader

MAX_CAMERA = 2**31 - 1
"""OpenCV takes the number of a camera as a C int."""

_SECRETS = re.compile(r"((?:pass\w*|pwd?|token|key|secret|auth\w*|sig\w*)=)[^&;/\s]+", re.IGNORECASE)
"""Settings within an address or a pipeline that cameras and GStreamer take passwords from."""


def open_source(
    text_or_path: str | Path | int,
    *,
    live: bool = False,
    first: int = 0,
    last: int | None = None,
    ignored: Collection[Path] = (),
) -> Source:
    """Open a video.

    Args:
        text_or_path: one of

            - a video file;
            - a folder of images, read in natural order (frame2 before frame10), or those of its images that
              a pattern names (``frames/left_%05d.png``);
            - the number of a webcam (``0`` or ``"0"``; write ``./0`` for a file of that name) or its device file;
            - an RTSP or HTTP address;
            - a GStreamer pipeline (``"... ! appsink"``).
        live: hand out the newest frame only and count those dropped; files play at their own speed.
        first: index of the first frame to hand out; earlier ones are decoded and left out.
        last: index of the last frame to hand out, None for all.
        ignored: images in a folder that are no frames, such as masks.

    Raises:
        SourceError: when the source does not exist, cannot be decoded, or has no frame between ``first`` and
            ``last``.
        UnavailableError: when a pipeline is given and OpenCV was built without GStreamer.
    """
    silence_opencv()
    with defer_interrupts():
        reader = _open_reader(text_or_path, ignored)
    try:
        return Source(reader, live=live, first=first, last=last)
    except BaseException:
        reader.close()
        raise


def _open_reader(text_or_path: str | Path | int, ignored: Collection[Path]) -> Reader:
    if isinstance(text_or_path, Path):
        return _open_path(text_or_path, ignored)
    if isinstance(text_or_path, int) and text_or_path >= 0:
        return _open_camera(text_or_path)
    if not isinstance(text_or_path, str):
        raise SourceError(
            f"{text_or_path!r:.80} is no source", "give a path, an address, or the number of a camera"
        )
    text = text_or_path.strip()
    if text.isascii() and text.isdecimal():
        return _open_camera(int(text[:10]))  # no camera has a longer number
    if " ! " in text and not os.path.exists(text):  # noqa: PTH110
        return _open_pipeline(text)
    if "://" in text:
        return _open_address(text)
    if not text:
        raise SourceError("the source is empty", "name a video, a folder of images or a camera")
    return _open_path(Path(text), ignored)


def _open_path(path: Path, ignored: Collection[Path]) -> Reader:
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises on names that are too long)
        if is_pattern(path):
            return FolderReader(path, ignored)
        raise SourceError(f"{path} does not exist", "check the path")
    if path.is_dir():
        return FolderReader(path, ignored)
    if path.is_char_device():
        return _open_camera(str(path))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        check_single_picture(path)
        raise SourceError(f"{path} is a single image", "name the folder that holds the frames")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read", "check its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is an empty file", "check how it was made or copied")
    return VideoReader(open_file(path), str(path))


def _open_camera(number_or_device: int | str) -> Reader:
    remedy = "plug it in, close other programs that use it, and check its number (ls /dev/video*)"
    if isinstance(number_or_device, int) and number_or_device > MAX_CAMERA:
        raise SourceError(f"camera {number_or_device} cannot be opened", remedy)
    return _open_capture((number_or_device,), f"camera {number_or_device}", remedy)


def _open_address(url: str) -> Reader:
    """Tell videos with an end from endless streams: only the latter are opened again when they stop."""
    name = without_credentials(url)
    container = open_address(url, name)
    if container.duration is not None and container.duration > 0:
        return VideoReader(container, name)

    def reopen() -> NetworkStream | None:
        try:
            return NetworkStream(open_address(url, name), name)
        except SourceError:
            return None

    return StreamReader(NetworkStream(container, name), reopen, name)


def _open_pipeline(pipeline: str) -> Reader:
    if not has_gstreamer():
        raise UnavailableError(
            "this OpenCV was built without GStreamer, which the pipeline needs",
            "use one that has it: JetPack's own, or one built from source with -D WITH_GSTREAMER=ON",
        )
    if "appsink" not in pipeline:
        raise SourceError(
            "the GStreamer pipeline does not end in appsink",
            "append: ! videoconvert ! video/x-raw,format=BGR ! appsink",
        )

    return _open_capture(
        (pipeline, cv2.CAP_GSTREAMER), "the GStreamer pipeline", "try it with gst-launch-1.0 first"
    )


def _open_capture(arguments: tuple[Any, ...], name: str, remedy: str) -> Reader:
    """Open what OpenCV reads; ``arguments`` are those of ``cv2.VideoCapture``."""

    def connect() -> CaptureConnection | None:
        capture = cv2.VideoCapture(*arguments)
        return CaptureConnection(capture, name) if capture.isOpened() else None

    connection = connect()
    if connection is None:
        raise SourceError(f"{name} cannot be opened", remedy)
    return StreamReader(connection, connect, name)


def without_credentials(url: str) -> str:
    """An address or a pipeline for messages: without user, password, and values that may be secret."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    path, question, query = path.partition("?")
    address = (
        scheme + separator + host.rpartition("@")[2] + slash + path + question + ("..." if query else "")
    )
    return _SECRETS.sub(r"\1...", address)
