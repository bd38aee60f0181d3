"""Split ``evaluate`` across processes.

No process talks to another. Each tracks its share of the sequences and leaves one file of results per
sequence in a folder beside the measures. The process that finds a file for every sequence merges them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...common.files import atomic_path, make_directory
from ..model.engine_file import sha256
from ..pipeline.progress import Progress, no_progress
from ..pipeline.shard import Shard, join
from .datasets import DatasetSequence, load_split
from .measures import Measure, Score
from .protocol import SequenceTracker, check_outputs, track_sequences, write_measures
from .protocol import evaluate as evaluate_split
from .report import Evaluation, SequenceResult


@dataclass
class DatasetRun:
    """A labelled dataset to track, by this process alone or by several.

    Args:
        davis, split, out_dir, json_file, size: see :func:`maskring.runtime.evaluation.protocol.evaluate`.
    """

    davis: Path
    split: str
    out_dir: Path
    json_file: Path
    size: int | None
    _shard: Shard | None = field(default=None, init=False)

    def join(self, shard: bool, threads: int) -> int:
        """Become one of several processes if ``shard``. Call this before anything touches a GPU.

        Args:
            shard: read from the environment which process this is.
            threads: CPU threads that the user chose, 0 for this process's share of the cores.

        Returns:
            CPU threads to use.

        Raises:
            UnavailableError: when the environment does not say which process this is.
        """
        self._shard, threads = join(shard, threads)
        return threads

    @property
    def shows_progress(self) -> bool:
        """Whether this process has the terminal to itself."""
        return self._shard is None or self._shard.local_rank == 0

    @property
    def name(self) -> str:
        """Name of this process among the others."""
        assert self._shard is not None
        return f"shard {self._shard.rank + 1} of {self._shard.world_size}"

    def evaluate(
        self,
        new_tracker: Callable[[], SequenceTracker],
        files: Sequence[Path | None],
        settings: tuple[object, ...],
        progress: Progress,
    ) -> Evaluation | None:
        """Track the dataset, or this process's share of it.

        Args:
            new_tracker, progress: see :func:`maskring.runtime.evaluation.protocol.evaluate`.
            files: models that decide the masks; their content counts, not their path.
            settings: options that decide the masks.

        Returns:
            None while other processes have not finished their shares.

        Raises:
            UserError: see :func:`maskring.runtime.evaluation.protocol.evaluate`.
        """
        places = (self.davis, self.split, new_tracker, self.out_dir, self.json_file)
        if self._shard is None:
            return evaluate_split(*places, size=self.size, progress=progress)
        hashes = [sha256(file) for file in files if file and file.is_file()]
        described = json.dumps([*hashes, *map(repr, settings)])
        return evaluate_shard(
            *places, shard=self._shard, settings=described, size=self.size, progress=progress
        )


def evaluate_shard(
    root: Path,
    split: str,
    new_tracker: Callable[[], SequenceTracker],
    out_dir: Path,
    json_file: Path,
    *,
    shard: Shard,
    settings: str,
    size: int | None = None,
    progress: Progress = no_progress,
) -> Evaluation | None:
    """Do one process's share of :func:`.protocol.evaluate`. In the end only the timings differ from it.

    Sequences whose results are there are not tracked again, so the same call goes on after an interruption.

    Args:
        root, split, new_tracker, out_dir, json_file, size, progress: as there; the paths must lead all
            processes to the same files.
        shard: which process this is.
        settings: everything but the dataset and ``size`` that decides the masks. Results count only where
            this and the sequence's files are the same.

    Returns:
        The evaluation of the whole split from the process that finishes last, None from the others.

    Raises:
        SourceError, MaskError, OutputError: as there.
    """
    sequences = load_split(root, split)
    check_outputs(out_dir, json_file)
    folder = make_directory(json_file.with_name(f"{json_file.name}.parts"))
    store = _ResultFolder(folder, out_dir, settings, size)
    share = shard.deal(sequences, lambda sequence: (len(sequence.frames), sequence.name))
    missing = [sequence for sequence in share if store.read(sequence) is None]
    for sequence, result in zip(
        missing, track_sequences(missing, new_tracker, out_dir, size, progress), strict=True
    ):
        store.write(sequence, result)
    results = [store.read(sequence) for sequence in sequences]
    complete = tuple(result for result in results if result is not None)
    if len(complete) < len(sequences):
        return None
    evaluation = Evaluation(split, size, complete)
    write_measures(evaluation, json_file)
    store.remove()
    return evaluation


@dataclass(frozen=True)
class _ResultFolder:
    """One file per sequence: its result, and a digest of everything that decides it.

    Attributes:
        folder: holds the files.
        masks: folder in which the sequences' masks are.
        settings, size: see :func:`evaluate_shard`.
    """

    folder: Path
    masks: Path
    settings: str
    size: int | None

    def write(self, sequence: DatasetSequence, result: SequenceResult) -> None:
        """Store the result of a sequence whose masks are written."""
        with atomic_path(self._path(sequence)) as partial:
            partial.write_text(json.dumps({"key": self._key(sequence), "result": asdict(result)}))

    def read(self, sequence: DatasetSequence) -> SequenceResult | None:
        """The stored result; None when there is none, it is of another run, or a mask is missing."""
        try:
            document = json.loads(self._path(sequence).read_text())
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
        with contextlib.suppress(OSError):  # another process may be doing the same
            shutil.rmtree(self.folder)

    def _path(self, sequence: DatasetSequence) -> Path:
        return self.folder / f"{sequence.name}.json"

    def _key(self, sequence: DatasetSequence) -> str:
        files = [*sequence.frames, *sequence.mask_files]
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        described = [self.settings, self.size, sequence.name, sorted(sequence.annotations), states]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()
