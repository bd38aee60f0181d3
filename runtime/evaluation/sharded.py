"""Being one of several processes; ``maskring evaluate`` by one of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...common.files import atomic_path
from ..model.engine_file import sha256
from ..pipeline.shard import Shard, join
from .datasets import DatasetSequence, load_split
from .measures import Measure, Score
from .protocol import (
    Evaluation,
    SequenceResult,
    SequenceTracker,
    require_outputs,
    track_sequences,
    write_measures,
)
from .protocol import evaluate as evaluate_split


@dataclass
class DatasetRun:
    """A labelled dataset to be tracked.

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
        """Be one of several processes if ``shard``; returns the CPU threads to use of ``threads`` asked for.

        Must be called before anything touches a GPU.

        Raises:
            UnavailableError: when the environment does not say which of them this one is.
        """
        self._shard, threads = join(shard, threads)
        return threads

    @property
    def shows_progress(self) -> bool:
        """Whether this process has the terminal to itself."""
        return self._shard is None or self._shard.local_rank == 0

    @property
    def name(self) -> str:
        """Of this process among the others."""
        assert self._shard is not None
        return f"shard {self._shard.rank + 1} of {self._shard.world_size}"

    def evaluate(
        self,
        new_tracker: Callable[[], SequenceTracker],
        files: Sequence[Path | None],
        settings: tuple[object, ...],
        on_frame: Callable[[str, int, int], None],
    ) -> Evaluation | None:
        """Track the dataset, or this process's share of it.

        Args:
            new_tracker, on_frame: see :func:`maskring.runtime.evaluation.protocol.evaluate`.
            files: that decide the masks beside the dataset; their content counts, not their place.
            settings: that decide the masks.

        Returns:
            None when other processes have not done their share.

        Raises:
            UserError: see :func:`maskring.runtime.evaluation.protocol.evaluate`.
        """
        places = (self.davis, self.split, new_tracker, self.out_dir, self.json_file)
        if self._shard is None:
            return evaluate_split(*places, size=self.size, on_frame=on_frame)
        decided = json.dumps(
            [*(sha256(file) for file in files if file and file.is_file()), *map(repr, settings)]
        )
        return evaluate_shard(*places, shard=self._shard, settings=decided, size=self.size, on_frame=on_frame)


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
    on_frame: Callable[[str, int, int], None] = lambda sequence, done, total: None,
) -> Evaluation | None:
    """Do a process's share of :func:`.protocol.evaluate`; all but the timings is the same in the end.

    Args:
        root, split, new_tracker, out_dir, json_file, size, on_frame: as there; the paths lead all processes
            to the same files.
        shard: which process this is.
        settings: all that decides the masks beside the dataset. Results that an interrupted run left count
            only where these, the dataset's files and the number of processes are the same.

    Returns:
        The evaluation of the whole split when this process was the last one, else None.

    Raises:
        SourceError, MaskError, OutputError: as there.
    """
    sequences = load_split(root, split)
    require_outputs(out_dir, json_file)
    pieces = [_piece(json_file, Shard(rank, shard.world_size)) for rank in range(shard.world_size)]
    pieces[shard.rank].unlink(missing_ok=True)
    key = _key(sequences, split, size, settings)
    results = list(
        track_sequences(
            shard.deal(sequences, lambda sequence: (len(sequence.frames), sequence.name)),
            new_tracker,
            out_dir,
            size,
            on_frame,
        )
    )
    with atomic_path(pieces[shard.rank]) as partial:
        document = {"key": key, "results": [asdict(result) for result in results]}
        partial.write_text(json.dumps(document))
    found = _collect(pieces, key)
    if found is None or len(found) != len(sequences):
        return None
    evaluation = Evaluation(split, size, tuple(found[sequence.name] for sequence in sequences))
    write_measures(evaluation, json_file)
    for piece in pieces:
        piece.unlink(missing_ok=True)
    return evaluation


def _piece(json_file: Path, shard: Shard) -> Path:
    return json_file.with_name(f"{json_file.name}.shard-{shard.rank}-of-{shard.world_size}")


def _key(sequences: list[DatasetSequence], split: str, size: int | None, settings: str) -> str:
    """A digest of all that decides what the processes find."""
    files = [path for sequence in sequences for path in (*sequence.frames, *sequence.annotations.values())]
    described = [(str(path.name), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    names = [(sequence.name, len(sequence.frames), sorted(sequence.annotations)) for sequence in sequences]
    return hashlib.sha256(json.dumps([split, size, settings, names, described]).encode()).hexdigest()


def _collect(pieces: list[Path], key: str) -> dict[str, SequenceResult] | None:
    """Results by sequence; None when a process has not finished, or another one has collected them."""
    found = {}
    for piece in pieces:
        try:
            stored = json.loads(piece.read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(stored, dict) or stored.get("key") != key:
            return None  # left by another run: its process is still at work
        for result in stored["results"]:
            found[result["name"]] = _result(result)
    return found


def _result(stored: dict[str, Any]) -> SequenceResult:
    objects = {
        int(object_id): Score(Measure(**score["j"]), Measure(**score["f"]))
        for object_id, score in stored["objects"].items()
    }
    return SequenceResult(stored["name"], objects, stored["frames"], stored["seconds"])
