"""The trainer: encoders, optimiser and pretext task of a run, and one optimiser step."""

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
from .averaging import ema_update, frozen_copy, update_running_mean
from .batches import Batch
from .channel_split import free_channels, reset_channels
from .checkpoint import Checkpoint, Provenance
from .contrastive_loss import PairBatch, correspondence_loss, last_channels
from .distributed import DistributedContext
from .losses import reconstruct, targets_and_references
from .network.colour import normalise_lab, rgb_to_lab
from .network.encoder import PRESETS, Encoder, EncoderConfig
from .pretext import Pretext, make_pretext
from .recipe import START, Recipe, load_recipe, recipe_names
from .schedule import learning_rate, same_until
from .torch_files import load_torch_file

AUTOCAST = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """One line of the log.

    Attributes:
        step: steps done, this one included.
        loss: of this step, the mean over passes and processes.
        learning_rate: of this step.
        frames: number of frames in this step, over all passes and processes.
        seconds: since the run started or was resumed.
        skipped: number of clips found unusable so far.
        score: validation score after this step, None when it was not measured.
    """

    step: int
    loss: float
    learning_rate: float
    frames: int = 0
    seconds: float = 0.0
    skipped: int = 0
    score: float | None = None


class Trainer:
    """The state of a training run.

    Attributes:
        recipe: see :class:`.recipe.Recipe`.
        query: the encoder that is trained.
        key: its momentum copy (MoCo), or None when references use ``query``.
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
        frames: Sequence[Tensor] = (),
    ) -> None:
        """Set up step 0.

        Args:
            recipe: see :class:`.recipe.Recipe`.
            world: the processes of the run.
            palette: from :func:`.pretext.fit_palette`.
            start: the weights to begin with; None for random ones from the recipe's seed.
            frames: [1, 3, H, W] normalised Lab each; their variance decides what is left of the features of
                ``start`` when the recipe has ``pair_channels``.

        Raises:
            TrainingError: when ``start`` holds another encoder than the recipe's, or one that cannot free
                ``pair_channels``.
        """
        self.recipe, self.world, self.palette, self.step = recipe, world, palette, 0
        self.query = _first_encoder(recipe, start, frames)
        self.start = _digest(start)
        self.query.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key = frozen_copy(self.query) if recipe.momentum else None
        self.average = frozen_copy(self.query) if recipe.ema else None
        self.network: nn.Module = self.query
        if world.size > 1:
            self.network = DistributedDataParallel(self.query, broadcast_buffers=False)
        self.pretext: Pretext = make_pretext(recipe, palette)
        self.optimiser = torch.optim.Adam(self.query.parameters(), lr=recipe.learning_rate)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")

    def advance(self, passes: Sequence[Batch]) -> StepReport:
        """Take one optimiser step along the gradient averaged over ``passes`` and all processes.

        Raises:
            TrainingError: when the loss or the gradient is not finite; the weights then stay unchanged.
        """
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, batch in enumerate(passes):
            with self._gradients_stay_local(index + 1 < len(passes)):
                loss = self.loss(batch.to(self.world.device)) / len(passes)
                total += self._require_finite(self.world.mean(loss).item(), "loss")
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.query.parameters(), self.recipe.clip_norm or math.inf)
        if not self.scaler.is_enabled():  # the scaler skips such a step and lowers its factor
            self._require_finite(norm.item(), "gradient")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.key is not None:
            ema_update(self.key, self.query, self.recipe.momentum)
        if self.average is not None:
            update_running_mean(self.average, self.query, self.recipe.ema, self.step)
        self.step += 1
        frames = self.world.size * sum(batch.num_images for batch in passes)
        return StepReport(self.step, total, rate, frames)

    def _require_finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        raise TrainingError(
            f"the {what} became {value} at step {self.step + 1}",
            "lower learning_rate or set clip_norm in the recipe; the state saved before is intact",
        )

    def _gradients_stay_local(self, local: bool) -> AbstractContextManager[Any]:
        """Keep gradients in this process: processes exchange them once per step, after the last pass."""
        if local and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch on this process' device. The encoder runs once over windows and pairs."""
        lab = self._lab(batch.frames)
        images = [self.pretext.visible(lab, batch.channel).flatten(0, 1)]
        if batch.pairs is not None:
            images.append(self._lab(batch.pairs.views).flatten(0, 1))
        features = self._features(self.network, torch.cat(images))
        of_windows, of_pairs = features[: len(images[0])], features[len(images[0]) :]
        loss = features.new_zeros(())
        if len(lab):
            query = of_windows.view(*lab.shape[:2], *features.shape[1:])
            copied, target = self._reconstruct(query, lab, batch.channel)
            loss = loss + self.pretext.loss(copied, target)
        if batch.pairs is not None:
            loss = loss + self.recipe.pair_weight * self._pair_loss(of_pairs, batch.pairs)
        return loss

    def _pair_loss(self, features: Tensor, pairs: PairBatch) -> Tensor:
        """The contrastive loss; features [2 * P, C, h, w], the two views of each pair next to each other."""
        compared = last_channels(self.query, features, self.recipe.pair_channels)
        first, second = compared[::2], compared[1::2]
        return correspondence_loss(first, self.query.keys(second), pairs, self.recipe.pair_scale)

    @torch.no_grad()
    def painted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """True and reconstructed frames, [B, T, 3, h, w] normalised Lab each; the state is not changed."""
        encoders = [encoder for encoder in (self.query, self.key) if encoder is not None]
        for encoder in encoders:
            encoder.eval()
        batch = batch.to(self.world.device)
        lab = self._lab(batch.frames)
        visible = self.pretext.visible(lab, batch.channel)
        features = self._features(self.query, visible.flatten(0, 1))
        query = features.view(*lab.shape[:2], *features.shape[1:])
        copied, _ = self._reconstruct(query, lab, batch.channel)
        for encoder in encoders:
            encoder.train()
        lab = lab[:, self._targets(lab)]
        truth = self.pretext.painted(self.pretext.target(lab, batch.channel), lab, batch.channel)
        return truth, self.pretext.painted(copied, lab, batch.channel)

    def _lab(self, images: Tensor) -> Tensor:
        """[B, F, 3, S, S] uint8 RGB -> normalised Lab."""
        return normalise_lab(rgb_to_lab(images.flatten(0, 1).float() / 255)).view(images.shape)

    def _reconstruct(self, query: Tensor, lab: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Copied and true colours, [B, T, O, h, w] each, from features [B, F, C, h, w] of windows."""
        recipe, key = self.recipe, query
        if self.key is not None:
            with torch.no_grad():
                visible = self.pretext.visible(lab, channel).flatten(0, 1)
                key = self._features(self.key, visible).view(query.shape)
        key = self.query.keys(key.flatten(0, 1)).view(key.shape)
        colours = self.pretext.target(lab, channel)
        copied = reconstruct(
            query,
            key,
            colours,
            radius=recipe.radius,
            scale=recipe.logit_scale,
            references=recipe.references,
            coarse_step=recipe.roi_step,
        )
        return copied, colours[:, self._targets(lab)]

    def _targets(self, lab: Tensor) -> list[int]:
        return [target for target, _ in targets_and_references(lab.shape[1], self.recipe.references)]

    def _features(self, network: nn.Module, lab: Tensor) -> Tensor:
        """Images [B, 3, S, S] in Lab -> features [B, C, h, w]."""
        images = lab.contiguous(memory_format=torch.channels_last)
        kind = AUTOCAST[self.recipe.precision]
        with torch.autocast(images.device.type, kind, enabled=kind != torch.float32):
            features: Tensor = network(images)
        return features.float()

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on.

        Raises:
            OutputError: when the file cannot be written; an existing file is then untouched.
        """
        state = {
            "recipe": self.recipe.to_json(),
            "start": self.start,
            "step": self.step,
            "palette": self.palette,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: encoder.state_dict() for name, encoder in self._encoders().items()},
        }
        packed = io.BytesIO()  # torch would report a full disk as a RuntimeError
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
        """Restore a saved state; the next step is the one that an uninterrupted run would have taken.

        Raises:
            TrainingError: when the file is damaged, or when its run had another recipe or another ``start``.
        """
        remedy = f"choose another output folder, or delete {path} to start over"
        damaged = TrainingError(f"the saved state {path} is damaged", remedy)
        try:
            state: dict[str, Any] = load_torch_file(path, world.device)
            same_recipe = same_until(Recipe.from_json(state["recipe"]), recipe, int(state["step"]))
            start_digest = state["start"]
        except Exception as error:  # on damaged bytes the unpickler raises any exception there is
            raise damaged from error
        if not same_recipe:
            raise TrainingError(f"the saved state {path} belongs to another recipe", remedy)
        if start_digest != _digest(start):
            given = "a --start checkpoint" if start_digest else "random weights"
            raise TrainingError(
                f"the run in {path} began with {given}, which this call does not repeat",
                f"give the same --start, or {remedy}" if start_digest else f"leave --start out, or {remedy}",
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
        trainer.start, trainer.step = str(state["start"]), int(state["step"])
        if trainer.palette is not None and not isinstance(trainer.palette, Tensor):
            raise TypeError("the palette is not a tensor")
        return trainer

    def tracking_encoder(self) -> Encoder:
        """The encoder for the checkpoint: the running mean if the recipe has one."""
        return self.query if self.average is None else self.average

    def checkpoint(self, data: str) -> Checkpoint:
        """A checkpoint of the present weights; ``data`` describes the footage in words."""
        recipe = self.recipe
        return Checkpoint(
            config=self.query.config,
            query=self.tracking_encoder().state_dict(),
            key=None if self.key is None else self.key.state_dict(),
            tracking=recipe.tracking,
            provenance=Provenance(recipe=recipe.name, steps=self.step, seed=recipe.seed, data=data),
        )


def _first_encoder(recipe: Recipe, start: Checkpoint | None, frames: Sequence[Tensor]) -> Encoder:
    """The encoder before step 0; see :meth:`Trainer.__init__`."""
    config = PRESETS[recipe.encoder]
    if recipe.target == "clusters":
        config = replace(config, inputs=1)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        encoder = Encoder(config)
        if start is not None:
            _require_encoder(start, config, recipe)
            encoder.load_state_dict(start.query)
        if recipe.pair_channels and start is not None:
            _require_patch(encoder, recipe)
            free_channels(encoder, frames, recipe.pair_channels)
        elif recipe.pair_channels:
            reset_channels(encoder, recipe.pair_channels)
    return encoder


def _digest(start: Checkpoint | None) -> str:
    return "" if start is None else start.digest


def _require_encoder(start: Checkpoint, config: EncoderConfig, recipe: Recipe) -> None:
    if start.config == config:
        return
    encoder = start.config.preset_name
    remedy = "start from another checkpoint"
    if encoder is not None:
        matching = [name for name in recipe_names() if load_recipe(name).encoder in (encoder, START)]
        remedy = f"choose a recipe with encoder = {encoder!r} ({' or '.join(matching)})"
    raise TrainingError(
        f"the --start checkpoint holds another encoder than the recipe {recipe.name} ({recipe.encoder})",
        remedy,
    )


def _require_patch(encoder: Encoder, recipe: Recipe) -> None:
    if encoder.patch is None:
        raise TrainingError(
            f"the recipe {recipe.name} has pair_channels = {recipe.pair_channels}, and the encoder of the --start "
            "checkpoint has no patch of raw colours",
            f"set pair_channels = 0, or start from {', '.join(name for name in PRESETS if PRESETS[name].patch)}",
        )
