"""Results of one pass on disk, until another pass reads them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...common.files import output_error
from ..tracking.result import ObjectState, Result, Timings


class ResultStore:
    """Results by frame index in a temporary folder, so that memory does not grow with the stream.

    Args:
        parent: where to create the folder; None for the system's default.

    Raises:
        OutputError: when the folder cannot be created.
    """

    def __init__(self, parent: Path | None) -> None:
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix=".results-", dir=parent)
        except OSError as error:
            raise output_error(parent or Path(tempfile.gettempdir()), error) from error
        self._folder = Path(self._temporary.name)
        self._written = 0

    def __len__(self) -> int:
        return self._written

    def __contains__(self, index: int) -> bool:
        return self._path(index).is_file()

    def write(self, result: Result) -> None:
        """Store the result of the next frame.

        Raises:
            OutputError: when it cannot be written.
        """
        self.replace(self._written, result)
        self._written += 1

    def replace(self, index: int, result: Result) -> None:
        """Store the result of frame ``index``, whether or not there is one; such frames do not count.

        Raises:
            OutputError: when it cannot be written.
        """
        path = self._path(index)
        record = json.dumps([[asdict(state) for state in result.objects], result.frame_index])
        try:
            with path.open("wb") as file:
                np.savez_compressed(
                    file,
                    labels=result.labels,
                    probabilities=result.probabilities.astype(np.float16),
                    record=np.frombuffer(record.encode(), np.uint8),
                )
        except OSError as error:
            raise output_error(path, error) from error

    def read(self, index: int) -> Result:
        """The result of frame ``index`` (from 0): probabilities in half precision, timings zero."""
        if index not in self:
            raise IndexError(f"there is no result of frame {index}")
        with np.load(self._path(index)) as arrays:
            states, frame_index = json.loads(arrays["record"].tobytes())
            return Result(
                labels=arrays["labels"],
                probabilities=arrays["probabilities"],
                objects=tuple(_state(**state) for state in states),
                timings=Timings(0.0, 0.0, 0.0),
                frame_index=frame_index,
            )

    def close(self) -> None:
        """Delete the folder. Closing twice does nothing."""
        self._temporary.cleanup()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:08d}.npz"


def _state(id: int, area: int, box: list[int] | None, confidence: float | None) -> ObjectState:
    return ObjectState(id, area, None if box is None else (box[0], box[1], box[2], box[3]), confidence)
