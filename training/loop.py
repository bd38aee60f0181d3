"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..common.errors import TrainingError
from ..common.files import directory, make_directory
from .batches import Batch, TrainingData, prefetch_passes
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .clips import CACHE_BYTES, ClipLibrary
from .contact_sheet import write_contact_sheet
from .distributed import DistributedContext, distributed_context
from .network.colour import lab_image
from .network.encoder import PRESETS, Encoder
from .pretext import fit_palette
from .recipe import START, Recipe
from .run_log import RunLog
from .stills import StillLibrary
from .trainer import StepReport, Trainer

STATE_NAME = "state.pt"
CHECKPOINT_NAME = "checkpoint.safetensors"
SHEETS_NAME = "reconstructions"

COLOUR_FRAMES = 16
"""Frames in which colours are looked for."""

COLOUR_LEVELS = 2.0
"""A frame is grey if its largest and smallest channels differ by less on average, of 255. Compression of grey frames
may add one level."""

VARIANCE_FRAMES = 60
"""Frames on which the variance of the features of a start checkpoint is measured."""


@dataclass(frozen=True)
class TrainingResult:
    """What :func:`train` returns.

    Attributes:
        checkpoint: the file to export or track with.
        step: steps done, over all calls.
        finished: whether all steps of the recipe are done; if not, the same call continues.
        skipped: clips that could not be used -> reason.
        skipped_stills: the same for photographs.
    """

    checkpoint: Path
    step: int
    finished: bool
    skipped: dict[Path, str]
    skipped_stills: dict[Path, str]


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    stills: Sequence[Path] = (),
    start: Path | None = None,
    max_minutes: float | None = None,
    validate: Callable[[Encoder], float] | None = None,
    tensorboard: bool = False,
    cache_bytes: int = CACHE_BYTES,
    workers: int = 0,
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
        stills: folders of photographs, at any depth. If given, half of the pairs of views show photographs.
        start: a checkpoint whose weights the run begins with; None for random ones.
        max_minutes: stop after this time; the same call later continues.
        validate: scores an encoder on labelled video, every ``validate_every`` steps and at the end.
        tensorboard: also write curves of loss, rate and score for TensorBoard into ``out``.
        cache_bytes: limit of the disk cache of decoded frames, see :class:`.clips.ClipLibrary`.
        workers: processes that prepare batches; 0 for a thread. The batches are the same.
        report: called after every step.
        stop: called after every step; true saves the state and returns, and the same call later continues.

    Raises:
        SourceError: when ``data`` holds no usable clip or ``stills`` no usable photograph.
        ModelError: when ``start`` is not a checkpoint.
        TrainingError: when the loss is not finite, ``out`` holds another run, the recipe needs another ``start``, or
            it copies colours and the footage has none.
        OutputError: when ``out`` is not writable.
        UnavailableError: when ``tensorboard`` is set and TensorBoard is not installed.
    """
    start_checkpoint = None if start is None else load_checkpoint(start)
    recipe = _with_encoder(recipe, start_checkpoint)
    clips = ClipLibrary(data, recipe.short_side, cache_bytes=cache_bytes)
    photographs = StillLibrary(stills, recipe.short_side) if stills else None
    libraries = TrainingData(clips, photographs)
    with ExitStack() as stack:
        stack.enter_context(directory(out))
        world = stack.enter_context(distributed_context())
        trainer = _start_or_resume(recipe, world, clips, out / STATE_NAME, start_checkpoint)
        writes = world.is_main_process
        log = stack.enter_context(closing(RunLog(out, trainer.step, tensorboard))) if writes else None
        footage = _data_description(libraries, data, start_checkpoint)
        run = _Run(trainer, libraries, footage, out, log, validate, report, stop, workers)
        run.steps(math.inf if max_minutes is None else 60 * max_minutes)
        run.save()
    finished = trainer.step >= recipe.total_steps
    skipped_stills = dict(photographs.skipped) if photographs else {}
    return TrainingResult(out / CHECKPOINT_NAME, trainer.step, finished, dict(clips.skipped), skipped_stills)


def _with_encoder(recipe: Recipe, start: Checkpoint | None) -> Recipe:
    """``recipe``; an encoder :data:`.recipe.START` is replaced by that of ``start``, tracking settings with it."""
    if recipe.encoder != START:
        return recipe
    if start is None:
        raise TrainingError(
            f"the recipe {recipe.name} continues from a checkpoint and none is given",
            "name one with --start, for example --start pico",
        )
    encoder = start.config.preset_name
    if encoder is None:
        raise TrainingError(
            f"the recipe {recipe.name} cannot train the encoder of the --start checkpoint",
            f"start from a checkpoint with one of the encoders {', '.join(PRESETS)}",
        )
    tracking = start.tracking
    return replace(
        recipe,
        encoder=encoder,
        tracking_radius=tracking.radius,
        tracking_logit_scale=tracking.logit_scale,
        tracking_top_k=tracking.top_k,
    )


@dataclass
class _Run:
    """A run in progress: its steps, and what follows each."""

    trainer: Trainer
    data: TrainingData
    description: str
    out: Path
    log: RunLog | None
    validate: Callable[[Encoder], float] | None
    report: Callable[[StepReport], None]
    stop: Callable[[], bool]
    workers: int

    def steps(self, seconds: float) -> None:
        """Take the remaining steps, or as many as fit into ``seconds``."""
        trainer, recipe, world = self.trainer, self.trainer.recipe, self.trainer.world
        start_time = time.monotonic()
        for passes in prefetch_passes(recipe, self.data, trainer.step, world, self.workers):
            report = trainer.advance(passes)
            is_last = trainer.step == recipe.total_steps
            if is_last or trainer.step % recipe.validate_every == 0:
                report = replace(report, score=self._score())
            skipped = len(self.data.clips.skipped)
            self._publish(replace(report, seconds=time.monotonic() - start_time, skipped=skipped))
            if recipe.sheet_every and recipe.clips and (is_last or trainer.step % recipe.sheet_every == 0):
                self._write_sheet(passes[0])
            if world.any(self.stop() or time.monotonic() - start_time >= seconds):
                return
            if trainer.step % recipe.save_every == 0:
                self.save()

    def save(self) -> None:
        """Write the state to resume from and the checkpoint to track with."""
        if self.trainer.world.is_main_process:
            self.trainer.save(self.out / STATE_NAME)
            save_checkpoint(self.out / CHECKPOINT_NAME, self.trainer.checkpoint(self.description))

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
    recipe: Recipe, world: DistributedContext, clips: ClipLibrary, state: Path, start: Checkpoint | None
) -> Trainer:
    if state.exists():
        return Trainer.resume(recipe, world, state, start)
    _require_colours(recipe, clips)
    frames = _variance_frames(recipe, clips) if start is not None and recipe.pair_channels else ()
    return Trainer(recipe, world, fit_palette(recipe, clips), start, frames)


def _require_colours(recipe: Recipe, clips: ClipLibrary) -> None:
    """Refuse grey footage if the recipe copies colours: the loss would be near 0 from the first step on."""
    rng = np.random.default_rng((recipe.seed, COLOUR_FRAMES))
    frames = (clips.window(rng, recipe.frames, 1).frames[0] for _ in range(COLOUR_FRAMES))
    if recipe.clips and all(np.ptp(frame, axis=2).mean() < COLOUR_LEVELS for frame in frames):
        raise TrainingError(
            f"the footage has no colours, and the recipe {recipe.name} learns by copying them",
            "track grey footage with a shipped checkpoint as it is, or train on footage in colour",
        )


def _variance_frames(recipe: Recipe, clips: ClipLibrary) -> list[torch.Tensor]:
    """Frames of the footage at half their size, [1, 3, H, W] normalised Lab each."""
    rng = np.random.default_rng((recipe.seed, VARIANCE_FRAMES))
    return [lab_image(clips.window(rng, 1, 1).frames[0][::2, ::2]) for _ in range(VARIANCE_FRAMES)]


def _data_description(libraries: TrainingData, data: Sequence[Path], start: Checkpoint | None) -> str:
    """The footage of a run in words, for the checkpoint's provenance."""
    footage = f"{len(libraries.clips.clips)} unlabelled clips in {', '.join(path.name for path in data)}"
    if libraries.stills is not None:
        footage += f" and {len(libraries.stills.paths)} photographs"
    if start is None:
        return footage
    before = start.provenance
    return f"{footage}; before: {before.recipe}, {before.steps} steps, {before.data}"
