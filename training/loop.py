"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..common.errors import TrainingError
from ..common.files import make_directory
from .augmentation import augment
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .clips import CACHE_BYTES, ClipLibrary
from .contact_sheet import write_contact_sheet
from .distributed import DistributedContext, distributed_context
from .network.encoder import PRESETS, Encoder
from .pretext import fit_palette
from .recipe import START, Recipe
from .run_log import RunLog
from .trainer import Batch, StepReport, Trainer

STATE_NAME = "state.pt"
CHECKPOINT_NAME = "checkpoint.safetensors"
SHEETS_NAME = "reconstructions"
PREFETCHED_STEPS = 3
"""Steps whose batches are prepared while the network computes."""


@dataclass(frozen=True)
class TrainingResult:
    """What :func:`train` returns.

    Attributes:
        checkpoint: the file to export or track with.
        step: steps done, over all calls.
        finished: whether all steps of the recipe are done; if not, the same call continues.
        skipped: clips that could not be used -> reason.
    """

    checkpoint: Path
    step: int
    finished: bool
    skipped: dict[Path, str]


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    start: Path | None = None,
    max_minutes: float | None = None,
    validate: Callable[[Encoder], float] | None = None,
    tensorboard: bool = False,
    cache_bytes: int = CACHE_BYTES,
    report: Callable[[StepReport], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train an encoder on unlabelled footage, or continue the interrupted run in ``out``.

    Writes into ``out``: ``checkpoint.safetensors`` (to export or track with), ``state.pt`` (to resume from),
    ``log.jsonl`` (one :class:`StepReport` per line) and ``reconstructions/`` (contact sheets). Started by
    ``torchrun``, all processes work on one run; the main process writes and reports.

    Args:
        recipe: see :class:`.recipe.Recipe`.
        data: videos, folders of frames, and folders with either at any depth.
        out: the folder of the run.
        start: a checkpoint whose weights the run begins with; None for random ones.
        max_minutes: stop after this time; the same call later continues.
        validate: scores an encoder on labelled video, every ``validate_every`` steps and at the end.
        tensorboard: also write curves of loss, rate and score for TensorBoard into ``out``.
        cache_bytes: limit of the disk cache of decoded frames, see :class:`.clips.ClipLibrary`.
        report: called after every step.
        stop: called after every step; true saves the state and returns, and the same call later continues.

    Raises:
        SourceError: when ``data`` holds no usable clip.
        ModelError: when ``start`` is not a checkpoint.
        TrainingError: when the loss is not finite, when ``out`` holds another run, or when the recipe needs
            another ``start``.
        OutputError: when ``out`` is not writable.
        UnavailableError: when ``tensorboard`` is set and TensorBoard is not installed.
    """
    start_checkpoint = None if start is None else load_checkpoint(start)
    recipe = _with_encoder(recipe, start_checkpoint)
    library = ClipLibrary(data, recipe.short_side, cache_bytes=cache_bytes)
    make_directory(out)
    with ExitStack() as stack:
        world = stack.enter_context(distributed_context())
        trainer = _start_or_resume(recipe, world, library, out / STATE_NAME, start_checkpoint)
        log = None
        if world.is_main_process:
            log = stack.enter_context(closing(RunLog(out, trainer.step, tensorboard)))
        description = _data_description(library, data, start_checkpoint)
        run = _Run(trainer, library, description, out, log, validate, report, stop)
        run.steps(math.inf if max_minutes is None else 60 * max_minutes)
        run.save()
    finished = trainer.step >= recipe.total_steps
    return TrainingResult(out / CHECKPOINT_NAME, trainer.step, finished, dict(library.skipped))


def _with_encoder(recipe: Recipe, start: Checkpoint | None) -> Recipe:
    """``recipe``; an encoder :data:`.recipe.START` is replaced by that of ``start``."""
    if recipe.encoder != START:
        return recipe
    if start is None:
        raise TrainingError(
            f"the recipe {recipe.name} continues from a checkpoint and none is given",
            "name one with --start, for example --start nano",
        )
    encoder = start.config.preset_name
    if encoder is None:
        raise TrainingError(
            f"the recipe {recipe.name} cannot train the encoder of the --start checkpoint",
            f"start from a checkpoint with one of the encoders {', '.join(PRESETS)}",
        )
    return replace(recipe, encoder=encoder)


@dataclass
class _Run:
    """A run in progress: its steps, and what follows each."""

    trainer: Trainer
    library: ClipLibrary
    data: str
    out: Path
    log: RunLog | None
    validate: Callable[[Encoder], float] | None
    report: Callable[[StepReport], None]
    stop: Callable[[], bool]

    def steps(self, seconds: float) -> None:
        """Take the remaining steps, or as many as fit into ``seconds``."""
        trainer, recipe, world = self.trainer, self.trainer.recipe, self.trainer.world
        start_time = time.monotonic()
        for passes in _batches(recipe, self.library, trainer.step, world):
            report = trainer.advance(passes)
            is_last = trainer.step == recipe.total_steps
            if is_last or trainer.step % recipe.validate_every == 0:
                report = replace(report, score=self._score())
            skipped = len(self.library.skipped)
            self._publish(replace(report, seconds=time.monotonic() - start_time, skipped=skipped))
            if recipe.sheet_every and (is_last or trainer.step % recipe.sheet_every == 0):
                self._write_sheet(passes[0])
            if world.any(self.stop() or time.monotonic() - start_time >= seconds):
                return
            if trainer.step % recipe.save_every == 0:
                self.save()

    def save(self) -> None:
        """Write the state to resume from and the checkpoint to track with."""
        if self.trainer.world.is_main_process:
            self.trainer.save(self.out / STATE_NAME)
            save_checkpoint(self.out / CHECKPOINT_NAME, self.trainer.checkpoint(self.data))

    def _score(self) -> float | None:
        if self.validate is None or not self.trainer.world.is_main_process:
            return None
        encoder = self.trainer.tracking_encoder()
        encoder.eval()
        score = self.validate(encoder)
        encoder.train()
        return score

    def _publish(self, report: StepReport) -> None:
        if self.log is not None:
            self.log.write(report)
            self.report(report)

    def _write_sheet(self, batch: Batch) -> None:
        if self.trainer.world.is_main_process:
            make_directory(self.out / SHEETS_NAME)
            path = self.out / SHEETS_NAME / f"{self.trainer.step:07d}.png"
            write_contact_sheet(path, *self.trainer.painted(batch))


def _start_or_resume(
    recipe: Recipe, world: DistributedContext, library: ClipLibrary, state: Path, start: Checkpoint | None
) -> Trainer:
    if state.exists():
        return Trainer.resume(recipe, world, state, start)
    return Trainer(recipe, world, fit_palette(recipe, library), start)


def _data_description(library: ClipLibrary, data: Sequence[Path], start: Checkpoint | None) -> str:
    """The footage of a run in words, for the checkpoint's provenance."""
    footage = f"{len(library.clips)} unlabelled clips in {', '.join(path.name for path in data)}"
    if start is None:
        return footage
    before = start.provenance
    return f"{footage}; before: {before.recipe}, {before.steps} steps, {before.data}"


def make_batch(recipe: Recipe, library: ClipLibrary, step: int, number: int) -> Batch:
    """Batch ``number`` of the step after ``step``, which depends on seed, step, number and files only.

    Numbers run through all passes and processes of a step, so two processes with one pass each train on the
    same windows as one process with two passes.
    """
    windows, channels = [], []
    for item in range(number * recipe.clips, (number + 1) * recipe.clips):
        rng = np.random.default_rng((recipe.seed, step, item))
        window = library.window(rng, recipe.frames_at(step), recipe.max_gap)
        windows.append(
            augment(window.frames, rng, crop=recipe.crop, zoom=recipe.zoom, distortion=recipe.distortion)
        )
        channels.append(int(rng.integers(1, 3)))
    return Batch(torch.from_numpy(np.stack(windows)), torch.tensor(channels))


def _passes(recipe: Recipe, library: ClipLibrary, step: int, world: DistributedContext) -> list[Batch]:
    numbers = range(world.rank, recipe.accumulate * world.size, world.size)
    return [make_batch(recipe, library, step, number) for number in numbers]


def _batches(
    recipe: Recipe, library: ClipLibrary, first: int, world: DistributedContext
) -> Iterator[list[Batch]]:
    """The passes of all steps from ``first`` on, prepared in the background."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: list[Future[list[Batch]]] = []
        try:
            for step in range(first, recipe.total_steps + PREFETCHED_STEPS):
                if step < recipe.total_steps:
                    pending.append(worker.submit(_passes, recipe, library, step, world))
                if pending and step >= first + PREFETCHED_STEPS:
                    yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
