"""One step of training: what the encoder sees, gradients, learning rates and what becomes the checkpoint."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import ALONE
from user_errors import raises_user_error

from maskring.common.errors import TrainingError
from maskring.training.batches import Batch
from maskring.training.recipe import Recipe
from maskring.training.schedule import learning_rate
from maskring.training.trainer import Trainer


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
