"""A video of the frames with their objects painted over them."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ...common.errors import OutputError
from ...common.files import atomic_path, make_directory, output_error
from ...common.forks import never_release, tell_of_forks
from ...common.interrupts import defer_interrupts
from ...common.types import Image
from .frame import Frame
from .opencv import opencv_name, preferred_backend, silence_opencv
from .overlay import draw_overlay
from .sinks import ClosingSink

if TYPE_CHECKING:
    from ..tracking.result import Result

CODECS = ("avc1", "mp4v")
"""Best first: H.264, which browsers play too, where this OpenCV encodes it; MPEG-4 Part 2 everywhere."""

LONGEST_STILL_S = 10.0
"""Longest time that the video stands still; timestamps may be years apart."""

DISK_MARGIN = 4 << 20
"""Bytes left free on the disk, so that the video can always be completed."""


class OverlayVideoSink(ClosingSink):
    """An MP4 of the frames with their objects painted over them.

    The video has a temporary name until :meth:`close` completes it, also after an interruption or on a full
    disk. A gap in the frames (live mode dropped some) is filled by repeating the picture before it, so that
    the video keeps the source's speed. Frames of odd size lose their last row or column, as codecs require.

    Args:
        path: the file; its suffix must be ``.mp4``.
        fps: frames per second.
        by_time: place pictures by the frames' timestamps, which suits videos of variable rate: no frame is
            left out, and none stands longer than :data:`LONGEST_STILL_S`. Otherwise pictures are placed by the
            frames' indices, which suits cameras, whose timestamps are times of arrival.

    Attributes:
        codec: the one of :data:`CODECS` in use, known after the first frame.

    Raises:
        OutputError: when the folder of ``path`` cannot be created or written to, the suffix is another, or
            ``fps`` is not positive and finite.
    """

    def __init__(self, path: Path, fps: float, *, by_time: bool = False) -> None:
        if path.suffix.lower() != ".mp4":
            raise OutputError(f"the overlay video {path} does not end in .mp4", "rename it")
        if not 0 < fps < math.inf:  # the encoder would never return
            raise OutputError(f"an overlay video of {fps} frames per second is impossible", "give its rate")
        if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises on names that are too long)
            raise OutputError(f"{path} is a folder", "choose another name for the overlay video")
        make_directory(path.parent)
        opencv_name(path, OutputError)
        self.codec: str | None = None
        self._path = path
        self._fps, self._by_time = fps, by_time
        self._start = 0.0
        self._file = contextlib.ExitStack()
        self._partial = path
        self._writer: cv2.VideoWriter | None = None
        self._last: tuple[int, Image] | None = None
        self._written = 0
        tell_of_forks(self)

    def write(self, frame: Frame, result: Result) -> None:
        """Append the frame's overlay.

        Raises:
            OutputError: when no video can be written, or the disk is nearly full.
        """
        self._check_space()
        picture = np.ascontiguousarray(self._picture(frame, result)[..., ::-1])
        if self._writer is None:
            self._writer = self._open(picture.shape[1], picture.shape[0])
        if self._last is None:
            self._start = frame.timestamp
        else:
            index, before = self._last
            for _ in range(self._late(frame) if self._by_time else frame.index - index - 1):
                self._append(self._writer, before)
        self._append(self._writer, picture)
        self._last = frame.index, picture

    def close(self) -> None:
        """Complete the video and give it its name.

        Raises:
            OutputError: when the file holds fewer frames than were written, on a full disk or at a quota.
        """
        if self._writer is None:
            return
        with defer_interrupts(), self._file:
            self._writer.release()
            self._writer = None
            if _frames_in(self._partial) < self._written:
                raise OutputError(
                    f"the overlay video {self._path} could not be completed",
                    "free some space on its disk and run again",
                )

    def after_fork(self) -> None:
        """See :class:`maskring.common.forks.Forkable`."""
        never_release(self._writer)
        self._writer = None

    def _picture(self, frame: Frame, result: Result) -> Image:
        """RGB pixels of one frame of the video."""
        return draw_overlay(frame.image, result.labels)

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        silence_opencv()
        with contextlib.ExitStack() as stack:
            self._partial = stack.enter_context(atomic_path(self._path))
            for codec in CODECS:
                fourcc = cv2.VideoWriter.fourcc(*codec)
                file, backend = opencv_name(self._partial, OutputError), preferred_backend()
                writer = cv2.VideoWriter(file, backend, fourcc, self._fps, (width, height))
                if writer.isOpened():
                    self.codec = codec
                    self._file = stack.pop_all()
                    return writer
            raise OutputError(
                f"this OpenCV cannot write a video of {width}x{height} pixels at {self._fps:g} fps",
                "run without the overlay video (--no-overlay)",
            )

    def _late(self, frame: Frame) -> int:
        """Number of repeated pictures before this frame's; beyond the longest still the clock is moved."""
        late = round((frame.timestamp - self._start) * self._fps) - self._written
        longest = int(LONGEST_STILL_S * self._fps)
        if late > longest:
            self._start += (late - longest) / self._fps
        return min(late, longest)

    def _append(self, writer: cv2.VideoWriter, picture: Image) -> None:
        writer.write(picture)
        self._written += 1

    def _check_space(self) -> None:
        # The encoder does not report a full disk, and cannot complete the file on one.
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            raise output_error(self._path, error) from error
        if free < DISK_MARGIN:
            raise OutputError(
                f"no space is left on the disk that holds {self._path}", "free some space and run again"
            )


def _frames_in(path: Path) -> int:
    """Number of frames that a player finds in a video, 0 when it does not play."""
    capture = cv2.VideoCapture(opencv_name(path, OutputError), preferred_backend())
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
