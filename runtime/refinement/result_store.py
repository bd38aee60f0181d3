"""What propagation said of each frame, on disk until refinement comes back to it; no torch in it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...common.files import output_error
from ..tracking.result import ObjectState, Result, Timings


class ResultStore:
    """Results of a stream by frame index, so that memory does not grow with its length.

    Args:
        parent: folder in which to make a temporary one; None for the system's.

    Raises:
        OutputError: when it cannot be made.
    """

    def __init__(self, parent: Path | None) -> None:
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix=".propagated-", dir=parent)
        except OSError as error:
            raise output_error(parent or Path(tempfile.gettempdir()), error) from error
        self._folder = Path(self._temporary.name)
        self._written = 0

    def __len__(self) -> int:
        return self._written

    def write(self, result: Result) -> None:
        """Keep the result of the next frame; frames are counted from 0.

        Raises:
            OutputError: when the disk does not take it.
        """
        path = self._path(self._written)
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
        self._written += 1

    def read(self, index: int) -> Result:
        """The result of a frame, probabilities in half precision, without timings."""
        if not 0 <= index < self._written:
            raise IndexError(f"frame {index} of {self._written}")
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
        """Remove everything. Closing twice does nothing."""
        self._temporary.cleanup()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:08d}.npz"


def _state(id: int, area: int, box: list[int] | None, confidence: float | None) -> ObjectState:
    return ObjectState(id, area, None if box is None else (box[0], box[1], box[2], box[3]), confidence)
