"""Training: one loop, readable in one sitting."""

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
from .contact_sheet import write_sheet
from .distributed import DistributedContext, distributed_context
from .network.encoder import PRESETS, Encoder
from .pretext import fit_palette
from .recipe import START, Recipe
from .run_log import Journal
from .trainer import Batch, StepReport, Trainer

STATE_NAME = "state.pt"
CHECKPOINT_NAME = "checkpoint.safetensors"
SHEETS_NAME = "reconstructions"
PREPARED_AHEAD = 3  # steps made ready while the network computes


@dataclass(frozen=True)
class Outcome:
    """What a call of :func:`train` came to.

    Attributes:
        checkpoint: the file to export or track with.
        step: steps done, over all calls.
        finished: whether the recipe's steps are done; if not, the same call goes on.
        skipped: clips that could not be used, with the reason.
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
) -> Outcome:
    """Train an encoder on unlabelled footage; a run in ``out`` that was interrupted goes on.

    Writes into ``out``: ``checkpoint.safetensors`` (to export or track with), ``state.pt`` (to go on with),
    ``log.jsonl`` (one :class:`StepReport` per line) and ``reconstructions/`` (contact sheets). Started by
    ``torchrun``, all processes work on one run; the first of them writes and reports.

    Args:
        recipe: see :class:`.recipe.Recipe`.
        data: videos, folders of frames, and folders with either at any depth.
        out: the folder of the run.
        start: a checkpoint whose weights the run begins with; None for random ones.
        max_minutes: stop after this time; the same call later goes on.
        validate: scores an encoder on labelled video, in the recipe's interval and at the end.
        tensorboard: also write loss, rate and score for TensorBoard, into ``out``.
        cache_bytes: of decoded frames on disk, see :class:`.clips.ClipLibrary`.
        report: called after every step.
        stop: asked after every step; when true, the state is saved and the same call later goes on.

    Raises:
        SourceError: when ``data`` holds no usable clip.
        ModelError: when ``start`` is no checkpoint.
        TrainingError: when the loss is not finite, ``out`` holds another run, or ``start`` is of another
            encoder than the recipe's, or missing where the recipe goes on from it.
        OutputError: when ``out`` is not writable.
        UnavailableError: when TensorBoard was asked for and is not installed.
    """
    begun = None if start is None else load_checkpoint(start)
    recipe = _with_encoder(recipe, begun)
    library = ClipLibrary(data, recipe.short_side, cache_bytes=cache_bytes)
    make_directory(out)
    with ExitStack() as stack:
        world = stack.enter_context(distributed_context())
        trainer = _start_or_resume(recipe, world, library, out / STATE_NAME, begun)
        journal = None
        if world.is_main_process:
            journal = stack.enter_context(closing(Journal(out, trainer.step, tensorboard)))
        described = _described(library, data, begun)
        run = _Run(trainer, library, described, out, journal, validate, report, stop)
        run.steps(math.inf if max_minutes is None else 60 * max_minutes)
        run.save()
    done = trainer.step >= recipe.total_steps
    return Outcome(out / CHECKPOINT_NAME, trainer.step, done, dict(library.skipped))


def _with_encoder(recipe: Recipe, start: Checkpoint | None) -> Recipe:
    """``recipe``, its encoder that of ``start`` where it says so."""
    if recipe.encoder != START:
        return recipe
    if start is None:
        raise TrainingError(
            f"the recipe {recipe.name} goes on from a checkpoint and none is named",
            "name one with --start, a shipped one for instance: --start nano",
        )
    encoder = start.config.preset_name
    if encoder is None:
        raise TrainingError(
            f"the checkpoint to start from holds an encoder that the recipe {recipe.name} cannot train",
            f"start from one of {', '.join(PRESETS)}",
        )
    return replace(recipe, encoder=encoder)


@dataclass
class _Run:
    """A run in progress: what happens after each step."""

    trainer: Trainer
    library: ClipLibrary
    described: str
    out: Path
    journal: Journal | None
    validate: Callable[[Encoder], float] | None
    report: Callable[[StepReport], None]
    stop: Callable[[], bool]

    def steps(self, seconds: float) -> None:
        """All steps that are left, or those that fit into the time."""
        trainer, recipe, world = self.trainer, self.trainer.recipe, self.trainer.world
        started = time.monotonic()
        for passes in _batches(recipe, self.library, trainer.step, world):
            done = trainer.advance(passes)
            is_last = trainer.step == recipe.total_steps
            if is_last or trainer.step % recipe.validate_every == 0:
                done = replace(done, score=self._score())
            skipped = len(self.library.skipped)
            self._tell(replace(done, seconds=time.monotonic() - started, skipped=skipped))
            if recipe.sheet_every and (is_last or trainer.step % recipe.sheet_every == 0):
                self._draw(passes[0])
            if world.anyone(self.stop() or time.monotonic() - started >= seconds):
                return
            if trainer.step % recipe.save_every == 0:
                self.save()

    def save(self) -> None:
        """The state to go on with, and the checkpoint to track with."""
        if self.trainer.world.is_main_process:
            self.trainer.save(self.out / STATE_NAME)
            save_checkpoint(self.out / CHECKPOINT_NAME, self.trainer.checkpoint(self.described))

    def _score(self) -> float | None:
        if self.validate is None or not self.trainer.world.is_main_process:
            return None
        encoder = self.trainer.tracking_encoder()
        encoder.eval()
        score = self.validate(encoder)
        encoder.train()
        return score

    def _tell(self, done: StepReport) -> None:
        if self.journal is not None:
            self.journal.write(done)
            self.report(done)

    def _draw(self, batch: Batch) -> None:
        if self.trainer.world.is_main_process:
            make_directory(self.out / SHEETS_NAME)
            path = self.out / SHEETS_NAME / f"{self.trainer.step:07d}.png"
            write_sheet(path, *self.trainer.painted(batch))


def _start_or_resume(
    recipe: Recipe, world: DistributedContext, library: ClipLibrary, state: Path, begun: Checkpoint | None
) -> Trainer:
    if state.exists():
        return Trainer.resume(recipe, world, state, begun)
    return Trainer(recipe, world, fit_palette(recipe, library), begun)


def _described(library: ClipLibrary, data: Sequence[Path], begun: Checkpoint | None) -> str:
    """In words, what a checkpoint of this run was trained on."""
    footage = f"{len(library.clips)} unlabelled clips in {', '.join(path.name for path in data)}"
    if begun is None:
        return footage
    before = begun.provenance
    return f"{footage}; before: {before.recipe}, {before.steps} steps, {before.data}"


def make_batch(recipe: Recipe, library: ClipLibrary, step: int, number: int) -> Batch:
    """Batch ``number`` of the step after ``step``: a function of seed, step, number and files alone.

    A step's batches are numbered through all its passes and processes, so that two processes do in one pass
    what one process does in two.
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
    """The passes of all steps from ``first`` on, made ready in the background."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: list[Future[list[Batch]]] = []
        try:
            for step in range(first, recipe.total_steps + PREPARED_AHEAD):
                if step < recipe.total_steps:
                    pending.append(worker.submit(_passes, recipe, library, step, world))
                if pending and step >= first + PREPARED_AHEAD:
                    yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
