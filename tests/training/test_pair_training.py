"""Training with pairs of views, beside windows of clips or alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from training_runs import ALONE, losses, with_pairs
from user_errors import raises_user_error

from maskring.common.errors import TrainingError
from maskring.training import loop
from maskring.training.batches import Batch, TrainingData, make_batch
from maskring.training.checkpoint import load_checkpoint
from maskring.training.loop import train
from maskring.training.recipe import Recipe
from maskring.training.trainer import Trainer


def test_pairs_alone_are_enough_to_learn(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    alone = with_pairs(recipe, clips=0, steps=40, pair_scale=1.0)
    outcome = train(alone, [footage], tmp_path / "run")
    values = losses(tmp_path / "run")
    assert np.mean(values[-10:]) < 0.9 * np.mean(values[:10])
    assert not (outcome.checkpoint.parent / loop.SHEETS_NAME).exists()


def test_the_loss_is_the_sum_of_both(recipe: Recipe, footage: Path) -> None:
    """Batch statistics couple the images of a pass, so the encoder is in evaluation mode."""
    recipe = with_pairs(recipe)
    trainer, data = Trainer(recipe, ALONE), TrainingData(loop.ClipLibrary([footage], recipe.short_side))
    trainer.query.eval()
    batch = make_batch(recipe, data, 0, 0)
    assert batch.pairs is not None and batch.num_images == 2 * 3 + 2 * 2
    windows = trainer.loss(Batch(batch.frames, batch.channel))
    pairs = trainer.loss(Batch(batch.frames[:0], batch.channel[:0], batch.pairs))
    assert pairs > 0
    assert torch.isclose(trainer.loss(batch), windows + pairs, rtol=1e-4)


def test_pair_channels_need_an_encoder_with_a_patch(recipe: Recipe) -> None:
    recipe = replace(recipe, pair_channels=8)
    start = Trainer(recipe, ALONE).checkpoint("")
    with raises_user_error(TrainingError, mentions=("pair_channels = 8", "nano-pyramid")) as caught:
        Trainer(recipe, ALONE, start=start)
    assert "nano-pyramid" in caught.value.remedy


def test_photographs_are_drawn_for_pairs(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    recipe = with_pairs(recipe, steps=2)
    outcome = train(recipe, [footage], tmp_path / "run", stills=[folder])
    assert outcome.finished
    assert load_checkpoint(outcome.checkpoint).provenance.data.endswith("and 3 photographs")
    train(recipe, [footage], tmp_path / "without")
    assert losses(tmp_path / "run") != losses(tmp_path / "without")
