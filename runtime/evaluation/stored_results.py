"""Results of an evaluation that is not finished: a file for each sequence, so that it can be continued."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from ...common.files import atomic_path, make_directory
from .datasets import DatasetSequence
from .measures import Measure, Score
from .report import SequenceResult


@dataclass(frozen=True)
class StoredResults:
    """One file per sequence: its result, and a digest of everything that decides it.

    Attributes:
        folder: holds the files.
        masks: folder in which the sequences' masks are.
        settings: everything but dataset and ``size`` that decides the masks. A result counts only where this
            and the sequence's files are the same.
        size: shorter side of the frames that the tracker sees, None for their own.
    """

    folder: Path
    masks: Path
    settings: str
    size: int | None

    def write(self, sequence: DatasetSequence, result: SequenceResult) -> None:
        """Store the result of a sequence whose masks are written.

        Raises:
            OutputError: when it cannot be stored.
        """
        with atomic_path(make_directory(self.folder) / f"{sequence.name}.json") as partial:
            partial.write_text(json.dumps({"key": self._key(sequence), "result": asdict(result)}))

    def read(self, sequence: DatasetSequence) -> SequenceResult | None:
        """The stored result; None when there is none, it is of another run, or a mask is missing."""
        try:
            document = json.loads((self.folder / f"{sequence.name}.json").read_text())
            stored = document["result"] if document["key"] == self._key(sequence) else None
            scores = {} if stored is None else stored["objects"]
            objects = {
                int(object_id): Score(Measure(**score["j"]), Measure(**score["f"]))
                for object_id, score in scores.items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None
        masks = sequence.predictions_in(self.masks / sequence.name)
        if stored is None or not all(mask.is_file() for mask in masks):
            return None
        notes = tuple(map(str, stored.get("notes", ())))
        return SequenceResult(sequence.name, objects, stored["frames"], stored["seconds"], notes)

    def remove(self) -> None:
        """Delete all results: they are merged."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)

    def _key(self, sequence: DatasetSequence) -> str:
        files = [*sequence.frames, *sequence.mask_files]
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        described = [self.settings, self.size, sequence.name, sorted(sequence.annotations), states]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()
