"""The log of a run: one line per step as JSON, and TensorBoard where it was asked for."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.errors import UnavailableError
from ..common.files import atomic_path, output_error
from .trainer import StepReport

LOG_NAME = "log.jsonl"
CURVES = ("loss", "learning_rate", "score")


class Journal:
    """Appends to ``log.jsonl`` in a folder; close it at the end.

    Args:
        out: the folder of the run.
        steps: steps already done; what was logged beyond them, after the last saved state, is dropped.
        tensorboard: also write curves for TensorBoard, into the same folder.

    Raises:
        UnavailableError: when TensorBoard was asked for and is not installed.
    """

    def __init__(self, out: Path, steps: int, tensorboard: bool) -> None:
        self._board = _summary_writer(out, steps) if tensorboard else None
        path = out / LOG_NAME
        kept = path.read_text("utf-8", errors="replace").splitlines()[:steps] if path.exists() else []
        with atomic_path(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._path, self._lines = path, path.open("ab", buffering=0)

    def write(self, done: StepReport) -> None:
        """Add a step.

        Raises:
            OutputError: when it cannot be written.
        """
        try:
            self._write(json.dumps(asdict(done)).encode() + b"\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        for name in CURVES:
            value = getattr(done, name)
            if self._board is not None and value is not None:
                self._board.add_scalar(name, value, done.step)

    def _write(self, line: bytes) -> None:
        """A whole line or, on a disk that is full, none of it."""
        length = os.fstat(self._lines.fileno()).st_size
        try:
            written = 0
            while written < len(line):
                written += self._lines.write(line[written:])
        except OSError:
            self._lines.truncate(length)
            raise

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()


def _summary_writer(out: Path, steps: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UnavailableError(
            "TensorBoard is not installed", "pip install tensorboard, or leave out --tensorboard"
        ) from error
    return SummaryWriter(str(out), purge_step=steps + 1)
