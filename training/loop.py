"""Training: one loop, readable in one sitting."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..plugins.errors import TrainingError
from ..plugins.files import atomic_path, make_directory
from .augment import augment
from .checkpoint import Checkpoint, Provenance, Tracking, save_checkpoint
from .clips import ClipLibrary
from .colour import normalise_lab, rgb_to_lab
from .encoder import Encoder, EncoderConfig
from .losses import drop_colour, grid_colours, huber, reconstruct
from .momentum import follow, momentum_copy
from .recipe import Recipe

STATE_NAME = "state.pt"
LOG_NAME = "log.jsonl"
CHECKPOINT_NAME = "checkpoint.safetensors"
PREPARED_AHEAD = 3  # batches made ready while the network computes


@dataclass(frozen=True)
class StepReport:
    """One line of the log.

    Attributes:
        step: steps done, this one included.
        loss: of this step.
        learning_rate: of this step.
        seconds: since the run started or was resumed.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float


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


@dataclass
class Trainer:
    """Everything that changes during training.

    Attributes:
        query: the encoder that learns.
        key: its slow copy, or None when references share ``query``.
        optimiser: Adam over ``query``.
        step: optimiser steps done.
    """

    recipe: Recipe
    query: Encoder
    key: Encoder | None
    optimiser: torch.optim.Adam
    step: int = 0

    @classmethod
    def start(cls, recipe: Recipe) -> Trainer:
        """Step 0: random weights from the recipe's seed."""
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            query = Encoder(EncoderConfig.preset(recipe.encoder))
        query.to(device=_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        key = momentum_copy(query) if recipe.momentum else None
        return cls(recipe, query, key, torch.optim.Adam(query.parameters(), lr=recipe.learning_rate))

    def advance(self, frames: Tensor, channel: Tensor) -> StepReport:
        """One optimiser step.

        Args:
            frames: [B, F, 3, S, S] uint8 RGB.
            channel: [B] int64, the Lab channel to hide and reconstruct, 1 or 2.

        Raises:
            TrainingError: when the loss is not finite; the weights are left as they were.
        """
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(frames.to(_device()), channel.to(_device()))
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.step + 1}",
                "lower learning_rate in the recipe; the state saved before is intact",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if self.key is not None:
            follow(self.key, self.query, self.recipe.momentum)
        self.step += 1
        return StepReport(self.step, loss.item(), rate, 0.0)

    def loss(self, frames: Tensor, channel: Tensor) -> Tensor:
        """The reconstruction loss of a batch (arguments as :meth:`advance`), on the device of the weights."""
        lab = normalise_lab(rgb_to_lab(frames.flatten(0, 1).float() / 255)).view(frames.shape)
        visible = drop_colour(lab, channel)
        query = self._features(self.query, visible)
        key = query
        if self.key is not None:
            with torch.no_grad():
                key = self._features(self.key, visible)
        colours = grid_colours(lab, channel)
        copied = reconstruct(query, key, colours, self.recipe.radius)
        return huber(copied, colours, self.recipe.delta)

    def _features(self, encoder: Encoder, lab: Tensor) -> Tensor:
        encoder.train()
        images = lab.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            features: Tensor = encoder(images)
        return features.float().view(*lab.shape[:2], *features.shape[1:])

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {
            "recipe": self.recipe.to_json(),
            "step": self.step,
            "query": self.query.state_dict(),
            "key": None if self.key is None else self.key.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with atomic_path(path) as partial:
            torch.save(state, partial)

    @classmethod
    def resume(cls, recipe: Recipe, path: Path) -> Trainer:
        """Go on from a saved state, exactly.

        Raises:
            TrainingError: when the file is damaged or belongs to another recipe.
        """
        remedy = f"choose another output folder, or remove {path} to start anew"
        try:
            state: dict[str, Any] = torch.load(path, map_location=_device(), weights_only=True)
            same = state["recipe"] == recipe.to_json()
        except Exception as error:  # the unpickler meets damaged bytes with any exception there is
            raise TrainingError(f"the saved state {path} is damaged", remedy) from error
        if not same:
            raise TrainingError(f"the saved state {path} belongs to another recipe", remedy)
        trainer = cls.start(recipe)
        trainer.query.load_state_dict(state["query"])
        if trainer.key is not None:
            trainer.key.load_state_dict(state["key"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.step = state["step"]
        return trainer

    def checkpoint(self, data: str) -> Checkpoint:
        """What tracking needs of the state; ``data`` says in words what it was trained on."""
        recipe = self.recipe
        return Checkpoint(
            config=self.query.config,
            query=self.query.state_dict(),
            key=None if self.key is None else self.key.state_dict(),
            tracking=Tracking(recipe.tracking_radius, recipe.tracking_scale, recipe.tracking_top_k),
            provenance=Provenance(recipe=recipe.name, steps=self.step, seed=recipe.seed, data=data),
        )


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate for the step after ``step``: a linear rise, then a cosine that would reach 0 at the end."""
    rise = min(1.0, (step + 1) / max(1, recipe.warmup))
    done = max(0, step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def batch(recipe: Recipe, library: ClipLibrary, step: int) -> tuple[Tensor, Tensor]:
    """Frames and hidden channels for the step after ``step``: a function of seed, step and files alone."""
    windows, channels = [], []
    for item in range(recipe.clips):
        rng = np.random.default_rng((recipe.seed, step, item))
        window = library.window(rng, recipe.frames, recipe.max_gap)
        windows.append(
            augment(window.frames, rng, crop=recipe.crop, zoom=recipe.zoom, distortion=recipe.distortion)
        )
        channels.append(int(rng.integers(1, 3)))
    return torch.from_numpy(np.stack(windows)), torch.tensor(channels)


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    max_minutes: float | None = None,
    report: Callable[[StepReport], None] = lambda _: None,
) -> Outcome:
    """Train an encoder on unlabelled footage; a run in ``out`` that was interrupted goes on.

    Writes into ``out``: ``checkpoint.safetensors`` (to export or track with), ``state.pt`` (to go on with),
    ``log.jsonl`` (one :class:`StepReport` per line).

    Args:
        recipe: see :class:`.recipe.Recipe`.
        data: a video, or a folder with videos and folders of frames at any depth.
        out: the folder of the run.
        max_minutes: stop after this time; the same call later goes on.
        report: called after every step.

    Raises:
        SourceError: when ``data`` holds no usable clip.
        TrainingError: when the loss is not finite, or ``out`` holds another run.
        OutputError: when ``out`` is not writable.
    """
    library = ClipLibrary(data, recipe.short_side)
    make_directory(out)
    state = out / STATE_NAME
    trainer = Trainer.resume(recipe, state) if state.exists() else Trainer.start(recipe)
    started = time.monotonic()
    deadline = math.inf if max_minutes is None else started + 60 * max_minutes
    description = f"{len(library.clips)} unlabelled clips in {data.name}"

    def save() -> None:
        trainer.save(state)
        save_checkpoint(out / CHECKPOINT_NAME, trainer.checkpoint(description))

    with _log(out / LOG_NAME, trainer.step) as log:
        for frames, channel in _batches(recipe, library, trainer.step):
            done = trainer.advance(frames, channel)
            done = StepReport(done.step, done.loss, done.learning_rate, time.monotonic() - started)
            log.write(json.dumps(asdict(done)) + "\n")
            report(done)
            if time.monotonic() >= deadline:
                break
            if trainer.step % recipe.save_every == 0:
                log.flush()
                save()
    save()
    return Outcome(out / CHECKPOINT_NAME, trainer.step, trainer.step >= recipe.steps, dict(library.skipped))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batches(recipe: Recipe, library: ClipLibrary, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all steps from ``first`` on, made ready in the background."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: list[Future[tuple[Tensor, Tensor]]] = []
        try:
            for step in range(first, recipe.steps + PREPARED_AHEAD):
                if step < recipe.steps:
                    pending.append(worker.submit(batch, recipe, library, step))
                if pending and step >= first + PREPARED_AHEAD:
                    yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def _log(path: Path, steps: int) -> Any:
    """The log, opened to go on after ``steps`` steps: what was logged beyond the saved state is dropped."""
    kept = path.read_text("utf-8").splitlines()[:steps] if path.exists() else []
    with atomic_path(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    return path.open("a", encoding="utf-8")
