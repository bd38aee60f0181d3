"""The log of a training run: one JSON line per step, and optional TensorBoard curves."""

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


class RunLog:
    """Appends to ``log.jsonl`` in the folder of a run.

    Args:
        out: the folder of the run.
        steps: steps already done. Later lines, which the run wrote after its last saved state, are dropped.
        tensorboard: also write curves for TensorBoard into the same folder.

    Raises:
        UnavailableError: when ``tensorboard`` is set and TensorBoard is not installed.
    """

    def __init__(self, out: Path, steps: int, tensorboard: bool) -> None:
        self._board = _summary_writer(out, steps) if tensorboard else None
        path = out / LOG_NAME
        lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
        with atomic_path(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines[:steps]), "utf-8")
        self._path, self._file = path, path.open("ab", buffering=0)

    def write(self, report: StepReport) -> None:
        """Append one step.

        Raises:
            OutputError: when the line cannot be written.
        """
        try:
            self._write(json.dumps(asdict(report)).encode() + b"\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        for name in CURVES:
            value = getattr(report, name)
            if self._board is not None and value is not None:
                self._board.add_scalar(name, value, report.step)

    def _write(self, line: bytes) -> None:
        """Write the whole line or, on a full disk, nothing."""
        length = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            self._file.truncate(length)
            raise

    def close(self) -> None:
        """Close the log and TensorBoard's file. A log without a line is removed."""
        is_empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if is_empty:
            self._path.unlink(missing_ok=True)
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
