"""What OpenCV needs to be told: file names, backends, silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import cv2

from ...common.errors import UserError
from ...common.files import check_utf8


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that readers use."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, prop: int, /) -> float: ...
    def release(self) -> None: ...


def opencv_name(path: Path, kind: type[UserError]) -> str:
    """The name by which OpenCV, and FFmpeg inside it, open exactly this file.

    FFmpeg takes ``10:30.mp4`` for an address unless a folder precedes it. OpenCV 4.14 aborts the process when
    a name is not UTF-8.

    Raises:
        UserError: of class ``kind``, when the name is not UTF-8.
    """
    check_utf8(path, kind, "OpenCV")
    return os.path.join(os.curdir, path)  # noqa: PTH118 (Path drops the folder again)


def silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr, unless the user's environment sets a log level.

    FFmpeg reads its level when the process opens its first video.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 4.13 moved the function. Level 0 is silence in both.
        logging = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
        logging.setLogLevel(0)


def preferred_backend() -> int:
    """FFmpeg where this OpenCV has it; with CAP_ANY, OpenCV would also try to read lists of images."""
    ffmpeg: int = cv2.CAP_FFMPEG
    return ffmpeg if ffmpeg in cv2.videoio_registry.getBackends() else cv2.CAP_ANY


def has_gstreamer() -> bool:
    """Whether this OpenCV can run GStreamer pipelines."""
    lines = cv2.getBuildInformation().splitlines()
    return any(line.strip().startswith("GStreamer:") and "YES" in line for line in lines)
