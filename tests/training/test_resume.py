"""A run that was interrupted or killed, or is spread over processes, learns what one whole run does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import losses, with_pairs
from user_errors import raises_user_error

from maskring.common.errors import TrainingError
from maskring.training import loop
from maskring.training.batches import Batch
from maskring.training.checkpoint import load_checkpoint
from maskring.training.loop import train
from maskring.training.recipe import OLD_NAMES, Recipe
from maskring.training.trainer import StepReport, Trainer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_interrupted_run_goes_on_exactly(
    recipe: Recipe, footage: Path, tmp_path: Path, momentum: float
) -> None:
    recipe = replace(recipe, momentum=momentum)
    outcome = train(recipe, [footage], tmp_path / "whole")
    assert outcome.finished and outcome.step == 6 and outcome.skipped == {}

    def interrupt(report: StepReport) -> None:
        if report.step == 3:  # the last saved state is that of step 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, [footage], tmp_path / "halves", report=interrupt)
    reports: list[StepReport] = []
    assert train(recipe, [footage], tmp_path / "halves", report=reports.append).finished
    assert [report.step for report in reports] == [3, 4, 5, 6]
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    whole, halves = (
        load_checkpoint(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "halves")
    )
    assert (whole.key is not None) == (momentum > 0)
    for name, tensor in whole.query.items():
        assert torch.equal(tensor, halves.query[name]), name


def test_loss_that_is_not_finite_stops_and_keeps_the_state(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    train(recipe, [footage], tmp_path / "run", max_minutes=0)
    before = (tmp_path / "run" / loop.STATE_NAME).read_bytes()

    def poison(self: Trainer, batch: Batch) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "loss", poison)
        with raises_user_error(TrainingError, mentions=("nan", "step 2", "learning_rate")):
            train(recipe, [footage], tmp_path / "run")
    assert (tmp_path / "run" / loop.STATE_NAME).read_bytes() == before


def test_state_of_another_recipe_or_damaged_is_refused(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, steps=1), [footage], tmp_path / "run")
    with raises_user_error(TrainingError, mentions=("run", "another recipe", "output folder")):
        train(recipe, [footage], tmp_path / "run")
    (tmp_path / "run" / loop.STATE_NAME).write_bytes(b"torn")
    with raises_user_error(TrainingError, mentions=("state.pt",)):
        train(recipe, [footage], tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "clusters", "references": "previous", "clusters": 4},
        {"roi_step": 2, "finetune_steps": 3, "finetune_frames": 4, "schedule": "steps", "steps": 3},
        {"ema": 0.9, "accumulate": 2, "clip_norm": 1.0, "momentum": 0.9},
        {"precision": "float16"},
    ],
)
def test_every_setting_resumes_exactly(
    recipe: Recipe, footage: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = replace(recipe, **changes)  # type: ignore[arg-type]
    whole = train(recipe, [footage], tmp_path / "whole")
    for _ in range(6):
        half = train(recipe, [footage], tmp_path / "halves", max_minutes=0)
    assert (half.step, half.finished) == (6, True)
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    one, other = (load_checkpoint(outcome.checkpoint) for outcome in (whole, half))
    assert all(torch.equal(tensor, other.query[name]) for name, tensor in one.query.items())


def test_a_run_with_pairs_resumes_exactly_with_fewer_steps(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    recipe = with_pairs(recipe, schedule="decay", ema=0.9, steps=20)
    train(recipe, [footage], tmp_path / "run", max_minutes=0)
    outcome = train(replace(recipe, steps=5), [footage], tmp_path / "run")
    assert (outcome.step, outcome.finished) == (5, True)
    train(replace(recipe, steps=5), [footage], tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    with raises_user_error(TrainingError, mentions=("run", "another recipe")):
        train(recipe, [footage], tmp_path / "run")


def with_old_names(text: str) -> str:
    """A stored recipe under the names of version 0.1.0."""
    names = {new: old for old, new in OLD_NAMES.items()}
    return json.dumps({names.get(name, name): value for name, value in json.loads(text).items()})


def test_a_state_with_old_setting_names_resumes_exactly(
    recipe: Recipe, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_pairs(recipe, schedule="decay", ema=0.9, roi_step=1)
    train(recipe, [footage], tmp_path / "whole")
    with monkeypatch.context() as old:
        current = Recipe.to_json
        old.setattr(Recipe, "to_json", lambda self: with_old_names(current(self)))
        train(recipe, [footage], tmp_path / "run", max_minutes=0)
    state = torch.load(tmp_path / "run" / loop.STATE_NAME, weights_only=True)
    assert "localise" in state["recipe"] and "roi_step" not in state["recipe"]
    outcome = train(recipe, [footage], tmp_path / "run")
    assert (outcome.step, outcome.finished) == (6, True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from maskring.training.network.encoder import PRESETS, EncoderConfig
from maskring.training.loop import train
from maskring.training.recipe import Recipe
torch.set_num_threads(1)
PRESETS["tiny"] = EncoderConfig(stem=8, stages=(8, 8, 8, 8), blocks=(1, 1, 1, 1), channels=16)
train(Recipe(**eval(sys.argv[3])), [Path(sys.argv[1])], Path(sys.argv[2]))
"""


def worker(footage: Path, out: Path, recipe: Recipe) -> list[str]:
    return ["-c", WORKER, str(footage), str(out), repr(asdict(recipe))]


def test_two_processes_do_what_one_does_with_twice_the_batch(
    recipe: Recipe, footage: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe, steps=4)
    train(replace(recipe, accumulate=2), [footage], tmp_path / "one")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    arguments = worker(footage, tmp_path / "two", recipe)[2:]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), *arguments]
    subprocess.run([sys.executable, *launch], check=True, capture_output=True, timeout=1800)
    assert np.allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    one, two = (load_checkpoint(tmp_path / run / loop.CHECKPOINT_NAME).query for run in ("one", "two"))
    assert torch.allclose(one["head.weight"], two["head.weight"], atol=1e-4)


def test_killed_run_goes_on_exactly(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, steps=400, save_every=2, sheet_every=0)
    run = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, *worker(footage, run, recipe)])
    while not (run / loop.STATE_NAME).exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    reached = torch.load(run / loop.STATE_NAME, weights_only=True)["step"]
    assert 0 < reached < 400
    for out in (run, tmp_path / "whole"):
        shorter: list[StepReport] = []

        def stop(report: StepReport, seen: list[StepReport] = shorter) -> None:
            seen.append(report)
            if report.step == reached + 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(recipe, [footage], out, report=stop)
    assert losses(run) == losses(tmp_path / "whole")
