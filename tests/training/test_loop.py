"""The loop learns, resumes exactly, and stops with a sentence."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskring.plugins.errors import SourceError, TrainingError
from maskring.training import loop
from maskring.training.checkpoint import load_checkpoint
from maskring.training.loop import StepReport, Trainer, learning_rate, train
from maskring.training.recipe import Recipe


@pytest.fixture
def recipe(tiny_preset: str) -> Recipe:
    return Recipe(
        name="test",
        encoder=tiny_preset,
        seed=3,
        steps=6,
        clips=2,
        frames=3,
        short_side=40,
        crop=32,
        radius=2,
        warmup=2,
        learning_rate=5e-3,
        precision="float32",
        save_every=2,
    )


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / loop.LOG_NAME).read_text().splitlines()]


def test_loss_decreases(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, steps=40), footage, tmp_path / "run")
    found = losses(tmp_path / "run")
    assert len(found) == 40
    assert np.mean(found[-10:]) < 0.7 * np.mean(found[:10])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_interrupted_run_goes_on_exactly(
    recipe: Recipe, footage: Path, tmp_path: Path, momentum: float
) -> None:
    recipe = replace(recipe, momentum=momentum)
    outcome = train(recipe, footage, tmp_path / "whole")
    assert outcome.finished and outcome.step == 6 and outcome.skipped == {}

    def interrupt(report: StepReport) -> None:
        if report.step == 3:  # the last saved state is that of step 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, footage, tmp_path / "halves", report=interrupt)
    reports: list[StepReport] = []
    assert train(recipe, footage, tmp_path / "halves", report=reports.append).finished
    assert [report.step for report in reports] == [3, 4, 5, 6]
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    whole, halves = (
        load_checkpoint(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "halves")
    )
    assert (whole.key is not None) == (momentum > 0)
    for name, tensor in whole.query.items():
        assert torch.equal(tensor, halves.query[name]), name


def test_time_limit_saves_and_says_that_it_is_not_finished(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    outcome = train(recipe, footage, tmp_path / "run", max_minutes=0)
    assert (outcome.step, outcome.finished) == (1, False)
    assert train(recipe, footage, tmp_path / "run").step == 6


def test_checkpoint_says_how_to_track_and_where_it_comes_from(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe, steps=1, tracking_radius=5, tracking_scale=0.3, tracking_top_k=9)
    checkpoint = load_checkpoint(train(recipe, footage, tmp_path / "run").checkpoint)
    tracking, provenance = checkpoint.tracking, checkpoint.provenance
    assert (tracking.radius, tracking.scale, tracking.top_k) == (5, 0.3, 9)
    assert (provenance.recipe, provenance.steps, provenance.seed) == ("test", 1, 3)
    assert provenance.data == "2 unlabelled clips in footage"


def test_skipped_clips_are_reported(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    (footage / "broken.mp4").write_bytes(b"nothing")
    outcome = train(recipe, footage, tmp_path / "run")
    assert [path.name for path in outcome.skipped] == ["broken.mp4"]


def test_loss_that_is_not_finite_stops_and_keeps_the_state(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    train(recipe, footage, tmp_path / "run", max_minutes=0)
    before = (tmp_path / "run" / loop.STATE_NAME).read_bytes()

    def poison(self: Trainer, frames: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "loss", poison)
        with pytest.raises(TrainingError, match="the loss became nan at step 2; lower learning_rate"):
            train(recipe, footage, tmp_path / "run")
    assert (tmp_path / "run" / loop.STATE_NAME).read_bytes() == before


def test_state_of_another_recipe_or_damaged_is_refused(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, steps=1), footage, tmp_path / "run")
    with pytest.raises(TrainingError, match="belongs to another recipe; choose another output folder"):
        train(recipe, footage, tmp_path / "run")
    (tmp_path / "run" / loop.STATE_NAME).write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
        train(recipe, footage, tmp_path / "run")


def test_nothing_is_written_when_there_is_no_footage(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="neither videos nor folders"):
        train(recipe, tmp_path / "empty", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_half_precision_learns_the_same_task(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(recipe, footage, tmp_path / "full")
    train(replace(recipe, precision="bfloat16"), footage, tmp_path / "half")
    full, half = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert full != half
    assert np.allclose(full[:2], half[:2], rtol=0.1)


def test_learning_rate_rises_and_falls(recipe: Recipe) -> None:
    recipe = replace(recipe, steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.01 and all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_drops_the_channel_it_reconstructs(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = Trainer._features

    def spy(self: Trainer, encoder: torch.nn.Module, lab: torch.Tensor) -> torch.Tensor:
        seen.append(lab)
        return original(self, encoder, lab)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_features", spy)
    frames = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    Trainer.start(recipe).loss(frames, torch.tensor([1, 2]))
    assert seen[0][0, :, 1].abs().max() == 0 and seen[0][1, :, 2].abs().max() == 0
    assert seen[0][0, :, 2].abs().max() > 0
