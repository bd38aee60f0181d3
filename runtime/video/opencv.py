"""Cameras and GStreamer pipelines, which OpenCV reads."""

from __future__ import annotations

import math
import os
from typing import Any, Protocol

import cv2

from ...common.types import Image
from .containers import FALLBACK_FPS
from .frame import check_pixel_limit
from .images import to_rgb


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, prop: int, /) -> float: ...
    def release(self) -> None: ...


class CaptureConnection:
    """A camera or pipeline, as :class:`.StreamReader` takes it.

    Args:
        capture: it, opened; released by :meth:`close`.
        name: its name in errors.

    Raises:
        SourceError: when its frames are giant.
    """

    def __init__(self, capture: Capture, name: str) -> None:
        self._capture = capture
        try:
            check_pixel_limit(
                name, capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
            )
        except BaseException:
            capture.release()
            raise
        told = capture.get(cv2.CAP_PROP_FPS)
        self.fps = told if math.isfinite(told) and 0 < told <= 1000 else FALLBACK_FPS

    def read(self) -> Image | None:
        """The next frame as RGB, None when there is none or it is damaged."""
        try:
            if not self._capture.grab():
                return None
            decoded, image = self._capture.retrieve()
        except cv2.error:
            return None
        return to_rgb(image) if decoded and image is not None and image.size else None

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def silence_opencv() -> None:
    """Keep OpenCV from writing to stderr, unless the environment sets a log level."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 4.13 moved the function. Level 0 is silence in both.
        logging = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
        logging.setLogLevel(0)


def has_gstreamer() -> bool:
    """Whether this OpenCV can run GStreamer pipelines."""
    lines = cv2.getBuildInformation().splitlines()
    return any(line.strip().startswith("GStreamer:") and "YES" in line for line in lines)
