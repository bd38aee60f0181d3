"""Results out: mask files, an overlay video, one line of JSON per frame. What was written stays valid."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np

from ...common.errors import OutputError
from ...common.filenames import opencv_name
from ...common.files import atomic_path, directory, make_directory, output_error, require_name
from ...common.interrupts import defer_interrupts
from .masks import write_mask
from .open_source import preferred_backend, silence_opencv
from .overlay import Image, draw_overlay
from .readers import Frame

if TYPE_CHECKING:
    from ..tracking.result import ObjectState, Result

CODECS = ("avc1", "mp4v")
"""Best first: H.264, which browsers play too, where this OpenCV encodes it; MPEG-4 Part 2 everywhere."""

LONGEST_STILL_S = 10.0
"""How long a video stands still at most: what timestamps say may be years."""

DISK_MARGIN = 4 << 20
"""Bytes that are left free on the disk of a video, so that it can always be completed."""


class Sink(Protocol):
    """Takes the result of each frame somewhere."""

    def write(self, frame: Frame, result: Result) -> None:
        """Take one result.

        Raises:
            OutputError: when it cannot be written; what was written before stays valid.
        """

    def close(self) -> None:
        """Complete what was written. Closing twice does nothing."""


_Self = TypeVar("_Self", bound="_Closing")


class _Closing:
    """Closes a sink at the end of a ``with`` block, also of one that fails or is interrupted."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class MaskFolderSink(_Closing):
    """One palette PNG per frame, in DAVIS colours, named like the frame; each appears only when it is whole.

    Args:
        folder: made when it is not there, and removed again when nothing was written; files of other names in
            it are left alone.

    Attributes:
        others: names of PNGs in the folder that were not written by this sink, but before.

    Raises:
        OutputError: when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._closing = contextlib.ExitStack()
        self.folder = self._closing.enter_context(directory(folder))
        self.others = {path.name for path in folder.glob("[!.]*.png")}

    def write(self, frame: Frame, result: Result) -> None:
        """Write the frame's labels, [H, W] object ids.

        Raises:
            OutputError: when the file cannot be written, or the frame's name is none of a file.
        """
        name = f"{frame.name}.png"
        if Path(name).name != name:
            raise OutputError(f"the frame {frame.name} would be written elsewhere", "leave folders out of it")
        write_mask(self.folder / name, result.labels)
        self.others.discard(name)

    def close(self) -> None:
        """Nothing is held open."""
        self._closing.close()


class OverlayVideoSink(_Closing):
    """An MP4 of the frames with their objects painted over them.

    It is written under a temporary name; :meth:`close` completes it and gives it its name, also when the run
    was interrupted or the disk ran full. A gap in the frames' indices (live mode dropped some) or times is
    filled by repeating the picture before it, so that the video keeps the source's speed. Frames of odd size
    lose their last row or column, which the codecs do not take.

    Args:
        path: where to; the suffix must be ``.mp4``.
        fps: frames per second.
        by_time: place pictures by the frames' timestamps, as videos of variable rate need it; no frame is
            left out, and none stands longer than :data:`LONGEST_STILL_S`. Otherwise by their indices, as
            cameras need it, whose timestamps are those of arrival.

    Attributes:
        codec: the one of :data:`CODECS` in use, known once a frame was written.

    Raises:
        OutputError: when the folder of ``path`` cannot be made or written to, the suffix is another, or no
            video has such a rate.
    """

    def __init__(self, path: Path, fps: float, *, by_time: bool = False) -> None:
        if path.suffix.lower() != ".mp4":
            raise OutputError(f"the overlay video {path} is no MP4", "let its name end in .mp4")
        if not 0 < fps < math.inf:  # the encoder would never come back
            raise OutputError(f"no video has {fps} frames per second", "give its frame rate")
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

    def write(self, frame: Frame, result: Result) -> None:
        """Append the frame's overlay.

        Raises:
            OutputError: when no video can be written, or the disk is nearly full.
        """
        self._require_space()
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
            OutputError: when the file did not take all frames: the disk is full or a quota is reached.
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
        """Pictures that are due before the frame's; of a longer still, the rest is left out of the video."""
        late = round((frame.timestamp - self._start) * self._fps) - self._written
        longest = int(LONGEST_STILL_S * self._fps)
        if late > longest:
            self._start += (late - longest) / self._fps
        return min(late, longest)

    def _append(self, writer: cv2.VideoWriter, picture: Image) -> None:
        writer.write(picture)
        self._written += 1

    def _require_space(self) -> None:
        # The encoder would not report a full disk, and could not complete the file on one.
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            raise output_error(self._path, error) from error
        if free < DISK_MARGIN:
            raise OutputError(
                f"no space is left on the disk that holds {self._path}", "free some space and run again"
            )


class JsonLinesSink(_Closing):
    """One JSON object per frame and line, readable while the run goes on; only whole lines are ever left.

    Keys: ``index``, ``name`` and ``timestamp`` (seconds) of the frame; ``dropped``, frames of the source
    skipped since the line before; ``objects``, each with ``id``, ``area`` (pixels), ``box`` (null or
    [x0, y0, x1, y1], x1 and y1 just outside) and ``confidence`` (null or 0 to 1); ``timings`` (seconds);
    with refinement ``kept``, for the objects whose mask is propagation's all the same, id to reason.

    Args:
        path: where to; what stood there stays until the first line replaces it. Without any, nothing new is
            left there.

    Raises:
        OutputError: when the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = 0
        self._last_index: int | None = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(directory(require_name(path).parent))
            self._is_new = not os.path.lexists(path)
            try:
                # Under its own name, to be followed (tail -f). Unbuffered: after write() the line is in it.
                self._file = stack.enter_context(path.open("ab", buffering=0))
            except OSError as error:
                raise output_error(path, error) from error
            self._closing = stack.pop_all()

    def write(self, frame: Frame, result: Result) -> None:
        """Append the frame's line.

        Raises:
            OutputError: when it cannot be written; a part of a line that was is taken back.
        """
        skipped = 0 if self._last_index is None else max(0, frame.index - self._last_index - 1)
        line = json.dumps(_record(frame, result, skipped)).encode() + b"\n"
        try:
            if self._length == 0 and os.fstat(self._file.fileno()).st_size:  # a pipe cannot be cut
                self._file.truncate(0)
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._length)
            if isinstance(error, OSError):
                raise output_error(self._path, error) from error
            raise
        self._length += len(line)
        self._last_index = frame.index

    def close(self) -> None:
        """Close the file."""
        if self._is_new and not self._length:
            self._is_new = False
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._closing.close()


def _record(frame: Frame, result: Result, skipped: int) -> dict[str, Any]:
    timings = result.timings
    return {
        "index": frame.index,
        "name": frame.name,
        "timestamp": round(frame.timestamp, 6),
        "dropped": skipped,
        "objects": [_object(state) for state in result.objects],
        "timings": {
            "step": round(timings.step, 6),
            "post": round(timings.post, 6),
            "total": round(timings.total, 6),
        },
        **({} if result.fallback_reasons is None else {"kept": dict(result.fallback_reasons)}),
    }


def _object(state: ObjectState) -> dict[str, Any]:
    confidence = state.confidence
    return {
        "id": state.id,
        "area": state.area,
        "box": None if state.box is None else list(state.box),
        "confidence": None if confidence is None or not np.isfinite(confidence) else round(confidence, 4),
    }


def _frames_in(path: Path) -> int:
    """Frames that a player finds in a video, 0 when it does not play."""
    capture = cv2.VideoCapture(opencv_name(path, OutputError), preferred_backend())
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
