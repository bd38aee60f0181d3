"""A video of the frames with their objects painted over them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...common.errors import OutputError
from ...common.files import atomic_path, make_directory, output_error, require_name
from ...common.forks import never_release, tell_of_forks
from ...common.interrupts import defer_interrupts
from ...common.types import Image
from .encoding import VideoFile
from .frame import Frame
from .overlay import draw_overlay
from .sinks import ClosingSink

if TYPE_CHECKING:
    from ..tracking.result import Result

LONGEST_STILL_S = 10.0
"""Longest time that the video stands still; timestamps may be years apart."""

MIN_FPS, MAX_FPS = 1 / 3600, 1000.0
"""Rates that encoders take."""

DISK_MARGIN = 16 << 20
"""Bytes left free on the disk, so that the video can always be completed: encoders hold some frames back."""

log = logging.getLogger(__name__)


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
        palette: [256, 3] uint8 RGB colour of each object id; None for the colours of DAVIS.

    Attributes:
        codec: ``h264``, or ``mpeg4`` where FFmpeg has no encoder of H.264, which is logged as a warning; known
            after the first frame.

    Raises:
        OutputError: when the folder of ``path`` cannot be created or written to, the suffix is another, or
            ``fps`` is not from :data:`MIN_FPS` to :data:`MAX_FPS`.
    """

    def __init__(
        self, path: Path, fps: float, *, by_time: bool = False, palette: NDArray[np.uint8] | None = None
    ) -> None:
        if path.suffix.lower() != ".mp4":
            raise OutputError(f"the overlay video {path} does not end in .mp4", "rename it")
        if not MIN_FPS <= fps <= MAX_FPS:
            raise OutputError(
                f"an overlay video of {fps} frames per second cannot be written", "give a rate up to 1000"
            )
        if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises on names that are too long)
            raise OutputError(f"{path} is a folder", "choose another name for the overlay video")
        make_directory(require_name(path).parent)
        self.codec: str | None = None
        self._path = path
        self._fps, self._by_time, self._palette = fps, by_time, palette
        self._start = 0.0
        self._temporary = contextlib.ExitStack()
        self._file: VideoFile | None = None
        self._last: tuple[int, Image] | None = None
        self._written = 0
        tell_of_forks(self)

    def write(self, frame: Frame, result: Result) -> None:
        """Append the frame's overlay.

        Raises:
            OutputError: when no video can be written, or the disk is nearly full.
        """
        self._check_space()
        picture = np.ascontiguousarray(_even(self._picture(frame, result)))
        if self._file is None:
            self._file = self._open(picture)
        if self._last is None:
            self._start = frame.timestamp
        else:
            index, before = self._last
            for _ in range(self._late(frame) if self._by_time else frame.index - index - 1):
                self._append(self._file, before)
        self._append(self._file, picture)
        self._last = frame.index, picture

    def close(self) -> None:
        """Complete the video and give it its name.

        Raises:
            OutputError: when that fails, on a full disk or at a quota; no file is left then.
        """
        file, self._file = self._file, None
        if file is None:
            return
        with defer_interrupts(), self._temporary, self._failures():
            file.close()

    def after_fork(self) -> None:
        """See :class:`maskring.common.forks.Forkable`."""
        never_release(self._file)
        self._file = None

    def _picture(self, frame: Frame, result: Result) -> Image:
        """RGB pixels of one frame of the video."""
        return draw_overlay(frame.image, result.labels, palette=self._palette)

    def _open(self, picture: Image) -> VideoFile:
        height, width = picture.shape[:2]
        if not picture.size:
            raise OutputError(
                "no video can be written of frames that are one pixel wide or high",
                "run without the overlay video (--no-overlay)",
            )
        with contextlib.ExitStack() as stack, self._failures():
            partial = stack.enter_context(atomic_path(self._path))
            file = VideoFile(partial, self._fps, (height, width))
            self._temporary = stack.pop_all()
        self.codec = file.codec
        if file.codec != "h264":
            log.warning(
                "%s is no H.264, for FFmpeg has no encoder of it: browsers do not play it", self._path
            )
        return file

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn FFmpeg's errors into sentences."""
        from av import FFmpegError

        try:
            yield
        except (OSError, FFmpegError) as error:
            raise OutputError(
                f"the overlay video {self._path} cannot be written ({error.strerror or error})",
                "free some space on its disk and run again, or run without it (--no-overlay)",
            ) from error

    def _late(self, frame: Frame) -> int:
        """Number of repeated pictures before this frame's; beyond the longest still the clock is moved."""
        late = round((frame.timestamp - self._start) * self._fps) - self._written
        longest = int(LONGEST_STILL_S * self._fps)
        if late > longest:
            self._start += (late - longest) / self._fps
        return min(late, longest)

    def _append(self, file: VideoFile, picture: Image) -> None:
        try:
            with self._failures():
                file.append(picture)
        except OutputError as error:  # a video that lacks a frame is no result
            self._file = None
            with self._temporary:
                with contextlib.suppress(OSError, ValueError):
                    file.close()
                raise error
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


def _even(picture: Image) -> Image:
    """A picture without its last row or column where the number of them is odd."""
    height, width = picture.shape[:2]
    return picture[: height & ~1, : width & ~1]
