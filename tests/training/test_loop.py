"""The loop learns, resumes exactly, and stops with a sentence."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from user_errors import raises_user_error

from maskring.common.errors import ModelError, SourceError, TrainingError, UnavailableError
from maskring.training import loop
from maskring.training.batches import Batch, TrainingData, make_batch
from maskring.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskring.training.distributed import DistributedContext
from maskring.training.loop import train
from maskring.training.network.encoder import Encoder, EncoderConfig
from maskring.training.recipe import OLD_NAMES, START, Recipe, load_recipe
from maskring.training.run_log import LOG_NAME
from maskring.training.schedule import learning_rate
from maskring.training.trainer import StepReport, Trainer
from maskring.training.weights import shipped_checkpoint

ALONE = DistributedContext(0, 1, torch.device("cpu"))


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
    return [json.loads(line)["loss"] for line in (out / LOG_NAME).read_text().splitlines()]


def test_loss_decreases(recipe: Recipe, footage: Path, tmp_path: Path) -> None:
    train(replace(recipe, steps=40), [footage], tmp_path / "run")
    found = losses(tmp_path / "run")
    assert len(found) == 40
    assert np.mean(found[-10:]) < 0.7 * np.mean(found[:10])


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


def test_learning_rate_rises_and_falls(recipe: Recipe) -> None:
    recipe = replace(recipe, steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.01 and all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_rate_is_constant_then_falls_and_is_halved_in_steps(recipe: Recipe) -> None:
    recipe = replace(recipe, steps=100, warmup=0, learning_rate=1.0, finetune_steps=5)
    decay = [learning_rate(replace(recipe, schedule="decay"), step) for step in range(105)]
    assert decay[:70] == [1.0] * 70 and decay[85] == pytest.approx(0.5)
    assert decay[100:] == [recipe.finetune_learning_rate] * 5
    halved = [learning_rate(replace(recipe, schedule="steps"), step) for step in range(100)]
    assert [halved[step] for step in (39, 40, 60, 80)] == [1, 0.5, 0.25, 0.125]


def random_batch(seed: int, frames: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, frames, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.tensor([1, 2]))


def what_the_encoder_sees(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        trainer.query.stem, "forward", lambda x, old=trainer.query.stem.forward: seen.append(x) or old(x)
    )
    trainer.loss(random_batch(0))
    return seen[0].unflatten(0, (2, 3))


def test_drops_the_channel_it_reconstructs(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = what_the_encoder_sees(Trainer(recipe, ALONE), monkeypatch)
    assert seen[0, :, 1].abs().max() == 0 and seen[1, :, 2].abs().max() == 0
    assert seen[0, :, 2].abs().max() > 0


def test_colour_classes_are_guessed_from_lightness_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(replace(recipe, target="clusters"), ALONE, torch.randn(16, 2))
    assert what_the_encoder_sees(trainer, monkeypatch).shape[2] == 1


def test_references_of_the_key_encoder_get_no_gradient(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(replace(recipe, momentum=0.5), ALONE)
    assert trainer.key is not None
    before = [parameter.clone() for parameter in trainer.key.parameters()]
    trainer.advance([random_batch(0)])
    pairs = zip(before, trainer.key.parameters(), trainer.query.parameters(), strict=True)
    for old, slow, fast in pairs:
        assert slow.grad is None and fast.grad is not None
        assert torch.allclose(slow, (old + fast) / 2, atol=1e-6)


def test_accumulated_passes_are_one_larger_batch(recipe: Recipe) -> None:
    """Up to the statistics of batch normalisation, which each pass gathers for itself."""
    halves, whole = Trainer(recipe, ALONE), Trainer(recipe, ALONE)
    for trainer in (halves, whole):
        for module in trainer.query.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    first, second = random_batch(1), random_batch(2)
    both = Batch(torch.cat([first.frames, second.frames]), torch.cat([first.channel, second.channel]))
    reports = halves.advance([first, second]), whole.advance([both])
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-5)
    for one, other in zip(halves.query.parameters(), whole.query.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max()))


def test_gradients_are_clipped(recipe: Recipe) -> None:
    trainer = Trainer(replace(recipe, clip_norm=1e-3), ALONE)
    trainer.advance([random_batch(0)])
    norm = torch.stack([p.grad.norm() for p in trainer.query.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_gradients_must_be_finite(recipe: Recipe, clip_norm: float) -> None:
    trainer = Trainer(replace(recipe, clip_norm=clip_norm), ALONE)
    before = {name: tensor.clone() for name, tensor in trainer.query.named_parameters()}
    with torch.no_grad():
        trainer.query.head.register_full_backward_hook(lambda *_: (torch.full((6, 8, 8, 8), math.inf),))
    with raises_user_error(TrainingError, mentions=("gradient", "learning_rate", "clip_norm")):
        trainer.advance([random_batch(0)])
    for name, tensor in trainer.query.named_parameters():
        assert torch.equal(tensor, before[name])


def test_checkpoint_is_the_running_mean_where_there_is_one(recipe: Recipe) -> None:
    trainer = Trainer(replace(recipe, ema=0.9), ALONE)
    trainer.advance([random_batch(0)])
    trainer.advance([random_batch(1)])
    published, last = trainer.checkpoint("").query, trainer.query.state_dict()
    assert not torch.equal(published["head.weight"], last["head.weight"])
    assert torch.equal(published["stem.1.running_mean"], last["stem.1.running_mean"])


def test_the_scale_of_losses_is_restored(recipe: Recipe, tmp_path: Path) -> None:
    """A gradient that overflows halves it; a run that resumes must not start from the default again."""
    recipe = replace(recipe, precision="float16")
    trainer = Trainer(recipe, ALONE)
    default = trainer.scaler.get_scale()
    with torch.no_grad():
        hook = trainer.query.head.register_full_backward_hook(
            lambda _, gradients, __: tuple(torch.full_like(each, math.inf) for each in gradients)
        )
    before = {name: tensor.clone() for name, tensor in trainer.query.named_parameters()}
    trainer.advance([random_batch(0)])
    hook.remove()
    assert trainer.scaler.get_scale() == default / 2
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.query.named_parameters())
    trainer.save(tmp_path / "state.pt")
    resumed = Trainer.resume(recipe, ALONE, tmp_path / "state.pt")
    assert resumed.scaler.get_scale() == default / 2


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


def with_pairs(recipe: Recipe, **settings: float) -> Recipe:
    """The recipe with few and small pairs."""
    return replace(recipe, pairs=2, pair_weight=0.1, pair_places=32, zoom=0.9, pair_frames=2, **settings)


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
