"""Videos shared out over several processes, on one machine or many; a labelled dataset tracked by them.

No process talks to another. Each takes its share of the sequences and leaves its results in a file beside the
measures; whichever finds that no share is missing writes the measures of all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..plugins.errors import UnavailableError
from ..plugins.files import atomic_path
from .datasets import Sequence, load_split
from .evaluation import (
    Evaluation,
    SequenceResult,
    SequenceTracker,
    require_outputs,
    track_sequences,
    write_measures,
)
from .measures import Measure, Score

Item = TypeVar("Item")

START = (
    "start it with torchrun (torchrun --nproc-per-node 4 -m maskring ... --shard), or set RANK and WORLD_SIZE"
)

GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver lists them, a folder each."""


@dataclass(frozen=True)
class Shard:
    """Which of several processes this one is.

    Attributes:
        rank: 0 to ``world_size - 1``.
        world_size: processes on all machines.
        local_rank, local_world_size: the same, of those on this machine.
    """

    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Shard:
        """From the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE.

        Raises:
            UnavailableError: when the first two are missing, or some do not fit together.
        """
        texts = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE")}
        if None in texts.values():
            raise UnavailableError("--shard finds no RANK and WORLD_SIZE in its environment", START)
        texts["LOCAL_RANK"] = environment.get("LOCAL_RANK", "0")
        texts["LOCAL_WORLD_SIZE"] = environment.get("LOCAL_WORLD_SIZE", "1")
        numbers = [
            int(text) if text and text.isdecimal() and len(text) < 10 else -1 for text in texts.values()
        ]
        rank, world_size, local_rank, local_world_size = numbers
        if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
            found = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise UnavailableError(f"the environment of --shard makes no sense ({found})", START)
        return cls(rank, world_size, local_rank, local_world_size)

    def share(self, sequences: list[Sequence]) -> list[Sequence]:
        """The sequences of this process; the shares are about equally many frames."""
        return self.deal(sequences, lambda sequence: (len(sequence.frames), sequence.name))

    def deal(self, items: list[Item], weight: Callable[[Item], tuple[int, str]]) -> list[Item]:
        """The items of this process; shares weigh about the same, and a name decides between equals."""

        def heaviest_first(item: Item) -> tuple[int, str]:
            heavy, name = weight(item)
            return -heavy, name

        return sorted(items, key=heaviest_first)[self.rank :: self.world_size]

    def threads(self, cores: int) -> int:
        """CPU threads for this process where its machine's ``cores`` are to serve all of them."""
        return max(1, cores // self.local_world_size)

    def gpu(self, visible: str | None, gpus: Path = GPUS) -> str | None:
        """What CUDA_VISIBLE_DEVICES has to be, so that the processes of a machine are spread over its GPUs.

        Args:
            visible: what it is now, None when it is not set.
            gpus: a folder with an entry per GPU.
        """
        known = [name.strip() for name in (visible or "").split(",") if name.strip()]
        if visible is None and gpus.is_dir():
            known = [str(index) for index, _ in enumerate(gpus.iterdir())]
        return known[self.local_rank % len(known)] if known else visible


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
    """Do a process's share of :func:`.evaluation.evaluate`; all but the timings is the same in the end.

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
    results = list(track_sequences(shard.share(sequences), new_tracker, out_dir, size, on_frame))
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


def _key(sequences: list[Sequence], split: str, size: int | None, settings: str) -> str:
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
