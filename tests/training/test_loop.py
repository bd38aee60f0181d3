"""A run learns, starts from a checkpoint, writes what it should, and stops with a sentence."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_runs import ALONE, losses
from user_errors import raises_user_error

from maskring.common.errors import ModelError, SourceError, TrainingError, UnavailableError
from maskring.training import loop
from maskring.training.batches import TrainingData, make_batch
from maskring.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskring.training.loop import train
from maskring.training.network.encoder import Encoder, EncoderConfig
from maskring.training.recipe import START, Recipe, load_recipe
from maskring.training.run_log import LOG_NAME
from maskring.training.trainer import Trainer
from maskring.training.weights import shipped_checkpoint


def test_loss_decreases(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, steps=40), [footage], tmp_path / "run")
    found = losses(tmp_path / "run")
    assert len(found) == 40
    assert np.mean(found[-10:]) < 0.7 * np.mean(found[:10])


def test_time_limit_saves_and_says_that_it_is_not_finished(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    outcome = train(recipe, [footage], tmp_path / "run", max_minutes=0)
    assert (outcome.step, outcome.finished) == (1, False)
    assert train(recipe, [footage], tmp_path / "run").step == 6


def test_checkpoint_says_how_to_track_and_where_it_comes_from(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe, steps=1, tracking_radius=5, tracking_logit_scale=0.3, tracking_top_k=9)
    checkpoint = load_checkpoint(train(recipe, [footage], tmp_path / "run").checkpoint)
    tracking, provenance = checkpoint.tracking, checkpoint.provenance
    assert (tracking.radius, tracking.logit_scale, tracking.top_k) == (5, 0.3, 9)
    assert (provenance.recipe, provenance.steps, provenance.seed) == ("test", 1, 3)
    assert provenance.data == "2 unlabelled clips in footage"


def test_skipped_clips_are_reported(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    (footage / "broken.mp4").write_bytes(b"nothing")
    outcome = train(recipe, [footage], tmp_path / "run")
    assert [path.name for path in outcome.skipped] == ["broken.mp4"]


def test_a_run_begins_with_the_weights_of_a_checkpoint(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    """It learns on from there: resumed exactly, named in the checkpoint, not mixed up with another start."""
    first = train(replace(recipe, steps=60), [footage], tmp_path / "first")
    start = load_checkpoint(first.checkpoint)
    trainer = Trainer(recipe, ALONE, start=start)
    for name, tensor in trainer.query.state_dict().items():
        assert torch.equal(tensor, start.query[name]), name

    train(recipe, [footage], tmp_path / "fresh")
    train(recipe, [footage], tmp_path / "whole", start=first.checkpoint)
    assert losses(tmp_path / "whole")[0] < losses(tmp_path / "fresh")[0]
    train(recipe, [footage], tmp_path / "halves", start=first.checkpoint, max_minutes=0)
    with raises_user_error(TrainingError, mentions=("halves/state.pt", "--start")):
        train(recipe, [footage], tmp_path / "halves")
    done = train(recipe, [footage], tmp_path / "halves", start=first.checkpoint)
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    data = "2 unlabelled clips in footage"
    assert load_checkpoint(done.checkpoint).provenance.data == f"{data}; before: test, 60 steps, {data}"
    with raises_user_error(TrainingError, mentions=("fresh/state.pt", "--start")):
        train(recipe, [footage], tmp_path / "fresh", start=first.checkpoint)


def test_a_recipe_may_take_the_encoder_of_its_start(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    first = train(
        replace(recipe, steps=2, tracking_logit_scale=2.88), [footage], tmp_path / "first"
    ).checkpoint
    on = replace(recipe, name="tune", encoder=START, steps=2)
    done = train(on, [footage], tmp_path / "on", start=first)
    before, after = load_checkpoint(first), load_checkpoint(done.checkpoint)
    assert after.config == before.config
    assert after.tracking == before.tracking
    with raises_user_error(TrainingError, mentions=("recipe tune", "--start")):
        train(on, [footage], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    config = EncoderConfig(stem=4, stages=(4, 4, 4, 4), channels=4)
    save_checkpoint(tmp_path / "other.safetensors", Checkpoint(config, Encoder(config).state_dict()))
    with raises_user_error(TrainingError, mentions=("tune", "full, nano")):
        train(on, [footage], tmp_path / "none", start=tmp_path / "other.safetensors")


def test_weights_of_another_encoder_are_refused(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    nano = shipped_checkpoint("nano")
    with raises_user_error(
        TrainingError, mentions=("test", "tiny", "encoder = 'nano-patch'", "nano or tune")
    ):
        train(recipe, [footage], tmp_path / "run", start=nano)
    with raises_user_error(ModelError, mentions=("none.safetensors",)):
        train(recipe, [footage], tmp_path / "run", start=tmp_path / "none.safetensors")
    assert not (tmp_path / "run" / loop.STATE_NAME).exists()


def test_grey_footage_is_refused_where_colours_are_copied(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for path in sorted((footage / "two").iterdir()):
        cv2.imwrite(str(grey / f"{path.stem}.jpg"), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    with raises_user_error(TrainingError, mentions=("footage", "recipe test", "grey", "colour")):
        train(recipe, [grey], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(replace(recipe, steps=1), [grey, footage], tmp_path / "mixed")
    train(replace(recipe, steps=1, clips=0, pairs=2), [grey], tmp_path / "pairs")


def test_nothing_is_written_when_there_is_no_footage(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "still").mkdir()
    cv2.imwrite(str(tmp_path / "still" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    with raises_user_error(SourceError, mentions=("no usable clip", "still")):
        train(recipe, [tmp_path / "still"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with raises_user_error(SourceError, mentions=(tmp_path / "empty",)):
        train(recipe, [tmp_path / "empty"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_half_precision_learns_the_same_task(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(recipe, [footage], tmp_path / "full")
    train(replace(recipe, precision="bfloat16"), [footage], tmp_path / "half")
    full, half = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert full != half
    assert np.allclose(full[:2], half[:2], rtol=0.1)


def test_fine_tuning_takes_more_frames(recipe: Recipe, footage: Path) -> None:
    recipe = replace(recipe, frames=2, finetune_steps=1, finetune_frames=4)
    data = TrainingData(loop.ClipLibrary([footage], recipe.short_side))
    shapes = [make_batch(recipe, data, step, 0).frames.shape[1] for step in (5, 6)]
    assert shapes == [2, 4]


def test_contact_sheets_change_nothing(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, sheet_every=0), [footage], tmp_path / "without")
    for target in ("channel", "clusters"):
        train(replace(recipe, sheet_every=4, target=target), [footage], tmp_path / target)
        sheets = sorted((tmp_path / target / loop.SHEETS_NAME).iterdir())
        assert [sheet.name for sheet in sheets] == ["0000004.png", "0000006.png"]
        assert cv2.imread(str(sheets[0])).shape == (3 * 8 * 2, 3 * 8 * 6, 3)  # two clips, three pairs
    assert losses(tmp_path / "without") == losses(tmp_path / "channel")
    assert not (tmp_path / "without" / loop.SHEETS_NAME).exists()


def test_score_is_measured_in_its_interval_and_at_the_end(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    def score(encoder: Encoder) -> float:
        assert not encoder.training
        return 0.5

    train(replace(recipe, validate_every=4), [footage], tmp_path / "run", validate=score)
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_NAME).read_text().splitlines()]
    assert [line["score"] for line in lines] == [None, None, None, 0.5, None, 0.5]


def test_curves_for_tensorboard(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(recipe, [footage], tmp_path / "run", max_minutes=0, tensorboard=True)
    train(recipe, [footage], tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_missing_tensorboard_is_named(
    recipe: Recipe, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with raises_user_error(UnavailableError, mentions=("TensorBoard", "pip install tensorboard")):
        train(recipe, [footage], tmp_path / "run", tensorboard=True)


@pytest.mark.parametrize("name", ["colorization", "full", "mast", "nano", "paper", "pico", "static"])
def test_every_shipped_recipe_learns(name: str, tiny_preset: str, footage: Path, tmp_path: Path) -> None:
    """Each system as it stands, shrunk to a toy: the loss falls, and the checkpoint loads."""
    small = {"encoder": tiny_preset, "clips": 2, "short_side": 40, "crop": 32, "radius": 2, "warmup": 2}
    recipe = replace(
        load_recipe(name), **small, steps=40, learning_rate=5e-3, momentum=0.5 * (name == "paper")
    )  # type: ignore[arg-type]
    recipe = replace(recipe, frames=min(recipe.frames, 3), finetune_steps=0, precision="float32", max_gap=2)
    recipe = replace(recipe, pairs=min(recipe.pairs, 2), pair_channels=min(recipe.pair_channels, 8))
    outcome = train(recipe, [footage], tmp_path / "run")
    found = losses(tmp_path / "run")
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[:10])
    assert load_checkpoint(outcome.checkpoint).provenance.recipe == name
