"""The state of a training run, and one step of it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..common.errors import TrainingError
from ..common.files import atomic_path
from .averaging import follow, momentum_copy, running_mean
from .checkpoint import Checkpoint, Provenance
from .distributed import DistributedContext
from .losses import reconstruct, targets_and_references
from .network.colour import normalise_lab, rgb_to_lab
from .network.encoder import PRESETS, Encoder, EncoderConfig
from .pretext import Pretext, make_pretext
from .recipe import START, Recipe, load_recipe, recipe_names
from .schedule import learning_rate
from .torch_files import load_torch_file

AUTOCAST = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Batch:
    """What one pass works on.

    Attributes:
        frames: [B, F, 3, S, S] uint8 RGB.
        channel: [B] int64, the Lab channel to hide and reconstruct, 1 or 2.
    """

    frames: Tensor
    channel: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``."""
        return Batch(self.frames.to(device), self.channel.to(device))


@dataclass(frozen=True)
class StepReport:
    """One line of the log.

    Attributes:
        step: steps done, this one included.
        loss: of this step, the mean over passes and processes.
        learning_rate: of this step.
        frames: that went into this step, over all passes and processes.
        seconds: since the run started or was resumed.
        skipped: clips that turned out unusable so far.
        score: on labelled video after this step, where it was measured.
    """

    step: int
    loss: float
    learning_rate: float
    frames: int = 0
    seconds: float = 0.0
    skipped: int = 0
    score: float | None = None


class Trainer:
    """Everything that changes during training.

    Attributes:
        recipe: see :class:`.recipe.Recipe`.
        query: the encoder that learns.
        key: its slow copy (MoCo), or None when references share ``query``.
        average: the running mean of its weights, or None.
        palette: colour classes [K, 2], or None.
        start: digest of the weights that training began with, empty for random ones.
        step: optimiser steps done.
    """

    def __init__(
        self,
        recipe: Recipe,
        world: DistributedContext,
        palette: Tensor | None = None,
        start: Checkpoint | None = None,
    ) -> None:
        """Step 0.

        Args:
            recipe: see :class:`.recipe.Recipe`.
            world: the processes of the run.
            palette: of :func:`.pretext.fit_palette`.
            start: the weights to begin with; None for random ones from the recipe's seed.

        Raises:
            TrainingError: when ``start`` is of another encoder than the recipe's.
        """
        self.recipe, self.world, self.palette, self.step = recipe, world, palette, 0
        config = PRESETS[recipe.encoder]
        if recipe.target == "clusters":
            config = replace(config, inputs=1)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.query = Encoder(config)
        self.start = _digest(start)
        if start is not None:
            _require_encoder(start, config, recipe)
            self.query.load_state_dict(start.query)
        self.query.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key = momentum_copy(self.query) if recipe.momentum else None
        self.average = momentum_copy(self.query) if recipe.ema else None
        self.network: nn.Module = self.query
        if world.size > 1:
            self.network = DistributedDataParallel(self.query, broadcast_buffers=False)
        self.pretext: Pretext = make_pretext(recipe, palette)
        self.optimiser = torch.optim.Adam(self.query.parameters(), lr=recipe.learning_rate)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")

    def advance(self, passes: Sequence[Batch]) -> StepReport:
        """One optimiser step over the mean gradient of ``passes`` and of all processes.

        Raises:
            TrainingError: when the loss or its gradient is not finite; the weights are left as they were.
        """
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, batch in enumerate(passes):
            with self._gradients_stay_here(index + 1 < len(passes)):
                loss = self.loss(batch.to(self.world.device)) / len(passes)
                total += self._finite(self.world.mean(loss).item(), "loss")
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.query.parameters(), self.recipe.clip_norm or math.inf)
        if not self.scaler.is_enabled():  # a scaler skips such a step and lowers its factor
            self._finite(norm.item(), "gradient")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.key is not None:
            follow(self.key, self.query, self.recipe.momentum)
        if self.average is not None:
            running_mean(self.average, self.query, self.recipe.ema, self.step)
        self.step += 1
        frames = self.world.size * sum(batch.frames.shape[:2].numel() for batch in passes)
        return StepReport(self.step, total, rate, frames)

    def _finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        raise TrainingError(
            f"the {what} became {value} at step {self.step + 1}",
            "lower learning_rate or set clip_norm in the recipe; the state saved before is intact",
        )

    def _gradients_stay_here(self, here: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once per step, after the last pass."""
        if here and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The reconstruction loss of a batch on this process' device."""
        _, copied, target = self._reconstruct(batch, self.network, self.key)
        return self.pretext.loss(copied, target)

    @torch.no_grad()
    def painted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Truth and reconstruction, [B, T, 3, h, w] normalised Lab each; training goes on unchanged."""
        encoders = [encoder for encoder in (self.query, self.key) if encoder is not None]
        for encoder in encoders:
            encoder.eval()
        batch = batch.to(self.world.device)
        lab, copied, _ = self._reconstruct(batch, self.query, self.key)
        for encoder in encoders:
            encoder.train()
        lab = lab[:, self._targets(lab)]
        truth = self.pretext.painted(self.pretext.target(lab, batch.channel), lab, batch.channel)
        return truth, self.pretext.painted(copied, lab, batch.channel)

    def _reconstruct(
        self, batch: Batch, network: nn.Module, slow: nn.Module | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Lab frames [B, F, 3, S, S], copied colours and their truth, [B, T, O, h, w] each."""
        recipe, frames = self.recipe, batch.frames
        lab = normalise_lab(rgb_to_lab(frames.flatten(0, 1).float() / 255)).view(frames.shape)
        visible = self.pretext.visible(lab, batch.channel)
        query = self._features(network, visible)
        key = query
        if slow is not None:
            with torch.no_grad():
                key = self._features(slow, visible)
        key = self.query.keys(key.flatten(0, 1)).view(key.shape)
        colours = self.pretext.target(lab, batch.channel)
        copied = reconstruct(
            query,
            key,
            colours,
            radius=recipe.radius,
            scale=recipe.logit_scale,
            references=recipe.references,
            coarse_step=recipe.localise,
        )
        return lab, copied, colours[:, self._targets(lab)]

    def _targets(self, lab: Tensor) -> list[int]:
        return [target for target, _ in targets_and_references(lab.shape[1], self.recipe.references)]

    def _features(self, network: nn.Module, lab: Tensor) -> Tensor:
        images = lab.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        kind = AUTOCAST[self.recipe.precision]
        with torch.autocast(images.device.type, kind, enabled=kind != torch.float32):
            features: Tensor = network(images)
        return features.float().view(*lab.shape[:2], *features.shape[1:])

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {
            "recipe": self.recipe.to_json(),
            "start": self.start,
            "step": self.step,
            "palette": self.palette,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: encoder.state_dict() for name, encoder in self._encoders().items()},
        }
        packed = io.BytesIO()  # where torch writes to a full disk itself, it says so in a RuntimeError
        torch.save(state, packed)
        with atomic_path(path, flush=True) as partial:
            partial.write_bytes(packed.getbuffer())

    def _encoders(self) -> dict[str, Encoder]:
        named = {"query": self.query, "key": self.key, "average": self.average}
        return {name: encoder for name, encoder in named.items() if encoder is not None}

    @classmethod
    def resume(
        cls, recipe: Recipe, world: DistributedContext, path: Path, start: Checkpoint | None = None
    ) -> Trainer:
        """Go on from a saved state, exactly.

        Raises:
            TrainingError: when the file is damaged, belongs to another recipe, or began with other weights
                than ``start``.
        """
        remedy = f"choose another output folder, or remove {path} to start anew"
        damaged = TrainingError(f"the saved state {path} is damaged", remedy)
        try:
            state: dict[str, Any] = load_torch_file(path, world.device)
            same = state["recipe"] == recipe.to_json()
            begun = state.get("start", "")  # of a state older than the choice: random weights
        except Exception as error:  # the unpickler meets damaged bytes with any exception there is
            raise damaged from error
        if not same:
            raise TrainingError(f"the saved state {path} belongs to another recipe", remedy)
        if begun != _digest(start):
            raise TrainingError(
                f"the saved state {path} began with other weights",
                f"give the --start that the run began with ({'one' if begun else 'none'}), or {remedy}",
            )
        try:
            return cls._restored(recipe, world, state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged from error

    @classmethod
    def _restored(cls, recipe: Recipe, world: DistributedContext, state: Mapping[str, Any]) -> Trainer:
        trainer = cls(recipe, world, state["palette"])
        for name, encoder in trainer._encoders().items():
            encoder.load_state_dict(state[name])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.scaler.load_state_dict(state["scaler"])
        trainer.start, trainer.step = str(state.get("start", "")), int(state["step"])
        if trainer.palette is not None and not isinstance(trainer.palette, Tensor):
            raise TypeError("the palette is no tensor")
        return trainer

    def tracking_encoder(self) -> Encoder:
        """The encoder that is published: the running mean where there is one."""
        return self.query if self.average is None else self.average

    def checkpoint(self, data: str) -> Checkpoint:
        """What tracking needs of the state; ``data`` says in words what it was trained on."""
        recipe = self.recipe
        return Checkpoint(
            config=self.query.config,
            query=self.tracking_encoder().state_dict(),
            key=None if self.key is None else self.key.state_dict(),
            tracking=recipe.tracking,
            provenance=Provenance(recipe=recipe.name, steps=self.step, seed=recipe.seed, data=data),
        )


def _digest(start: Checkpoint | None) -> str:
    return "" if start is None else start.digest


def _require_encoder(start: Checkpoint, config: EncoderConfig, recipe: Recipe) -> None:
    if start.config != config:
        encoder = start.config.preset_name
        fitting = [name for name in recipe_names() if load_recipe(name).encoder in (encoder, START)]
        raise TrainingError(
            f"the checkpoint to start from holds another encoder than the recipe {recipe.name}, "
            f"which has {recipe.encoder}",
            f"choose a recipe with encoder = {encoder!r} ({' or '.join(fitting)})"
            if encoder
            else "start from another checkpoint",
        )
