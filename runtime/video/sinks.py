"""Sinks write results: mask files, or one line of JSON per frame. What is written stays valid."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ...common.errors import OutputError
from ...common.files import directory, output_error, require_name
from .frame import Frame
from .masks import write_mask

if TYPE_CHECKING:
    from ..tracking.result import ObjectState, Result


class Sink(Protocol):
    """Takes the result of each frame somewhere."""

    def write(self, frame: Frame, result: Result) -> None:
        """Take one result.

        Raises:
            OutputError: when it cannot be written; what was written before stays valid.
        """

    def close(self) -> None:
        """Complete the output. Closing twice does nothing."""


Self = TypeVar("Self", bound="ClosingSink")


class ClosingSink:
    """Closes a sink at the end of a ``with`` block, also when the block fails or is interrupted."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class MaskFolderSink(ClosingSink):
    """One palette PNG per frame, in DAVIS colours, named like the frame. Each appears only when complete.

    Args:
        folder: created if necessary, and removed again when nothing is written. Files of other names in it are
            left alone.

    Attributes:
        others: names of PNGs in the folder that were there before.

    Raises:
        OutputError: when the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._closing = contextlib.ExitStack()
        self.folder = self._closing.enter_context(directory(folder))
        self.others = {path.name for path in folder.glob("[!.]*.png")}

    def write(self, frame: Frame, result: Result) -> None:
        """Write the frame's labels, [H, W] object ids.

        Raises:
            OutputError: when the file cannot be written, or the frame's name contains a folder.
        """
        name = f"{frame.name}.png"
        if Path(name).name != name:
            raise OutputError(f"the name of the frame {frame.name} contains a folder", "leave the folder out")
        write_mask(self.folder / name, result.labels)
        self.others.discard(name)

    def close(self) -> None:
        """Remove the folder if it is new and empty."""
        self._closing.close()


class JsonLinesSink(ClosingSink):
    """One line of JSON per frame, readable while the run goes on. An incomplete line is never left behind.

    Keys:

    - ``index``, ``name`` and ``timestamp`` (seconds) of the frame;
    - ``dropped``: frames of the source skipped since the previous line;
    - ``objects``: each with ``id``, ``area`` (pixels), ``box`` (null or [x0, y0, x1, y1], x1 and y1 exclusive)
      and ``confidence`` (null or 0 to 1);
    - ``timings`` (seconds);
    - with refinement ``kept``: ids of objects that keep their propagated mask -> reason.

    Args:
        path: the file. Its old content stays until the first line replaces it; a run without any line leaves
            no new file.

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
            OutputError: when it cannot be written; an incomplete line is removed again.
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
