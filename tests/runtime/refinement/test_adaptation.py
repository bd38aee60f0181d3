"""The U-Net, its losses, augmentation and adaptation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from disc_clip import OBJECT, OTHER, QUICK, SIZE, clip, new_tracker, overlap
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.runtime.refinement.guard import NOT_LEARNED_REASON
from maskring.runtime.refinement.network.adaptation import Adaptation
from maskring.runtime.refinement.network.augmentation import STRONG, augment
from maskring.runtime.refinement.network.checkpoint import load_predictor, save_predictor
from maskring.runtime.refinement.network.losses import weighted_cross_entropy, weighted_dice
from maskring.runtime.refinement.network.predictor import Predictor
from maskring.runtime.refinement.network.unet import UNet
from maskring.runtime.refinement.samples import SampleBuffer, SampleMaker


def filled(length: int = 6, objects: int = 1) -> SampleBuffer:
    """A buffer with a tracked clip."""
    buffer, tracker, maker = SampleBuffer(16), new_tracker(), SampleMaker(QUICK, 4)
    for index, (image, labels) in enumerate(clip(length, objects=objects)):
        mask = labels if index == 0 else None
        buffer.add(maker.make(image, tracker.step(image, mask), mask))
    return buffer


@pytest.mark.parametrize("size", [32, 50, 97])
def test_the_unet_answers_at_the_size_of_its_input(size: int) -> None:
    assert UNet(3, 8)(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)


def test_growing_keeps_what_is_known() -> None:
    torch.manual_seed(0)
    unet, image = UNet(2, 8), torch.rand(1, 3, 32, 32)
    before = unet(image)
    unet.grow(4)
    after = unet(image)
    assert after.shape[1] == unet.labels == 4
    torch.testing.assert_close(after[:, :2], before)


def test_losses_vanish_for_a_perfect_answer_and_not_for_a_wrong_one() -> None:
    target = torch.zeros(1, 2, 8, 8)
    target[0, 1, :4], target[0, 0, 4:] = 1, 1
    weight = torch.ones(1, 8, 8)
    right, wrong = 50 * target, 50 * (1 - target)
    for loss in (weighted_cross_entropy, weighted_dice):
        assert loss(right, target, weight).item() == pytest.approx(0, abs=1e-3)
        assert loss(wrong, target, weight).item() > 0.9


def test_pixels_without_weight_do_not_count() -> None:
    target, logits = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    target[0, 1, :4], target[0, 0, 4:] = 1, 1
    logits[0, 1, :4], logits[0, 1, 4:] = 50, 50  # the object everywhere: wrong in the lower half
    logits[0, 0] = 0
    weight = torch.zeros(1, 8, 8)
    weight[0, :4] = 1
    for loss in (weighted_cross_entropy, weighted_dice):
        assert loss(logits, target, weight).item() == pytest.approx(0, abs=1e-3)
        assert loss(logits, target, torch.ones(1, 8, 8)).item() > 0.2


def test_the_losses_by_hand() -> None:
    """Two of eight pixels show the object, the network says one half everywhere, and weights are one half."""
    target = torch.zeros(1, 2, 2, 4)
    target[0, 1, 0, :2] = 1
    target[0, 0] = 1 - target[0, 1]
    logits, weight = torch.zeros(1, 2, 2, 4), torch.full((1, 2, 4), 0.5)
    entropy = weighted_cross_entropy(logits, target, weight)
    assert entropy.tolist() == pytest.approx([0.5 * np.log(2)])
    # Of the object alone: common = 0.5 * (2 * 0.5), total = 0.5 * (8 * 0.5 + 2); each with 1 added.
    assert weighted_dice(logits, target, weight).tolist() == pytest.approx([1 - (2 * 0.5 + 1) / (3 + 1)])
    background = weight.clone()
    background[0, 0, :2] = 0
    assert weighted_cross_entropy(logits, target, background).item() == pytest.approx(6 / 8 * 0.5 * np.log(2))


def test_an_object_that_is_in_neither_costs_no_dice() -> None:
    target, logits = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    target[0, 0], logits[0, 0] = 1, 50
    assert weighted_dice(logits, target, torch.ones(1, 8, 8)).item() == pytest.approx(0, abs=1e-3)


def test_augmentation_moves_image_and_labels_alike() -> None:
    (image, labels), rng = clip(1)[0], np.random.default_rng(5)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    inside = torch.from_numpy((labels == OBJECT).astype(np.float32))
    target = torch.stack([1 - inside, inside])
    strength = replace(STRONG, gain=0.0, blur=0.0)
    for _ in range(8):
        moved, shares, weight = augment(rng, pixels, target, torch.ones(SIZE, SIZE), strength)
        red = (moved[0] > 0.75) & (moved[1] < 0.3)
        overlapping = (red & (shares[1] > 0.5)).sum() / (red | (shares[1] > 0.5)).sum()
        assert overlapping > 0.75 and moved.shape == (3, SIZE, SIZE)
        torch.testing.assert_close(shares.sum(0), torch.ones(SIZE, SIZE))
        assert (weight > 0.99).all()


@pytest.mark.parametrize("seed", range(4))
def test_augmentation_zooms_as_far_as_it_says(seed: int) -> None:
    """The slope of a ramp shows the zoom."""
    ramp = torch.linspace(0, 1, SIZE).expand(3, SIZE, SIZE).contiguous()
    still = replace(STRONG, turn=0, zoom=0.5, shift=0, bend=0, gain=0, second=0, blur=0)
    target = torch.ones(1, SIZE, SIZE)
    moved, _, _ = augment(np.random.default_rng(seed), ramp, target, torch.ones(SIZE, SIZE), still)
    rng = np.random.default_rng(seed)
    rng.normal(0, 0)  # the turn is drawn first
    zoom = np.exp(rng.normal(0, 0.5))
    row = moved[0, SIZE // 2].numpy()
    middle = slice(SIZE // 2 - 4, SIZE // 2 + 4)
    assert abs(np.diff(row)[middle].mean()) == pytest.approx(zoom / (SIZE - 1), rel=1e-3)


def test_the_learning_rate_falls_along_a_cosine() -> None:
    buffer, settings = filled(2), replace(QUICK, iterations=4)
    adaptation, rates = Adaptation(settings), []
    for _ in range(5):
        adaptation.step(buffer, anneal=True)
        rates.append(adaptation._optimiser.param_groups[0]["lr"] / settings.learning_rate)
    assert rates == pytest.approx([1, 0.05 + 0.95 * 0.8536, 0.525, 0.05 + 0.95 * 0.1464, 0.05], abs=1e-3)
    adaptation.step(buffer, anneal=False)
    assert adaptation._optimiser.param_groups[0]["lr"] == settings.learning_rate


def test_adaptation_learns_the_objects_of_a_clip() -> None:
    buffer, adaptation = filled(objects=2), Adaptation(QUICK)
    losses = [adaptation.step(buffer, anneal=True) for _ in range(QUICK.iterations)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    image, labels = clip(12, objects=2)[10]
    found = adaptation.predictor.predict(image, [OBJECT, OTHER]).argmax(0)
    assert adaptation.predictor.ids == [OBJECT, OTHER]
    assert overlap(np.choose(found, [0, OBJECT, OTHER]), labels, OBJECT) > 0.7
    assert overlap(np.choose(found, [0, OBJECT, OTHER]), labels, OTHER) > 0.7
    assert adaptation.not_learned(buffer) == {} and adaptation.unsure(buffer.pseudo[0]) == {}


def test_a_network_that_has_learned_nothing_is_noticed() -> None:
    buffer, adaptation = filled(), Adaptation(QUICK)
    adaptation.predictor.follow([OBJECT], 0)
    torch.nn.init.zeros_(adaptation.predictor.unet.head.weight)
    assert adaptation.not_learned(buffer) == {OBJECT: NOT_LEARNED_REASON}


def test_a_mask_that_lost_the_object_is_left_out() -> None:
    buffer, adaptation = filled(), Adaptation(QUICK)
    for _ in range(QUICK.iterations):
        adaptation.step(buffer, anneal=True)
    drifted, sound = buffer.pseudo[-1], buffer.pseudo[0]
    drifted.labels = np.roll(drifted.labels, 8, axis=0)
    before = sound.quality
    adaptation.reassess(buffer)
    assert drifted.quality == 0 and sound.quality > 0.6 * before


def test_the_seed_decides_everything() -> None:
    def losses(seed: int) -> list[float]:
        adaptation, buffer = Adaptation(replace(QUICK, seed=seed)), filled()
        return [adaptation.step(buffer, anneal=True) for _ in range(3)]

    assert losses(1) == losses(1) != losses(2)


def test_the_caller_keeps_its_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Adaptation(QUICK).step(filled(2), anneal=True)
    assert torch.rand(1) == expected


def test_an_object_is_followed_once() -> None:
    predictor = Predictor.untrained(8, 0)
    assert predictor.follow([5, 5, 2], 0) and not predictor.follow([2, 5], 0)
    assert predictor.ids == [5, 2] and predictor.unet.labels == 3


def test_objects_that_are_not_followed_or_not_known_get_nothing() -> None:
    predictor = Predictor.untrained(8, 0)
    predictor.follow([5, 2], 0)
    image = clip(1)[0][0]
    alone = predictor.predict(image, [2, 9])
    assert alone.shape == (3, SIZE, SIZE)
    assert (alone[2] == 0).all() and (alone[1] > 0).all()
    np.testing.assert_allclose(alone.sum(0), 1, atol=1e-5)


def test_weights_travel_between_predictors() -> None:
    one, two = Predictor.untrained(8, 0), Predictor.untrained(8, 1)
    one.follow([5, 2], 0)
    two.adopt(one.ids, one.weights())
    image = clip(1)[0][0]
    np.testing.assert_array_equal(one.predict(image, [5, 2]), two.predict(image, [5, 2]))


def test_a_refiner_is_what_it_was_after_a_round_trip(tmp_path: Path) -> None:
    predictor = Predictor.untrained(8, 0)
    predictor.follow([5, 2], 0)
    save_predictor(tmp_path / "u.safetensors", predictor)
    again = load_predictor(tmp_path / "u.safetensors")
    assert again.ids == [5, 2]
    image = clip(1)[0][0]
    np.testing.assert_array_equal(again.predict(image, [5, 2]), predictor.predict(image, [5, 2]))


def test_a_damaged_refiner_is_refused(tmp_path: Path) -> None:
    path, predictor = tmp_path / "u.safetensors", Predictor.untrained(8, 0)
    with raises_user_error(ModelError, mentions=(path,)):
        load_predictor(path)
    save_predictor(path, predictor)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with raises_user_error(ModelError, mentions=(path, "--save-refiner")):
        load_predictor(path)
    path.write_bytes(whole.replace(b"maskring-refiner", b"maskring-refined"))
    with raises_user_error(ModelError, mentions=(path, "--save-refiner")):
        load_predictor(path)
    path.write_bytes(whole.replace(b'\\"width\\": 8', b'\\"width\\": 9'))
    with raises_user_error(ModelError, mentions=(path, "--save-refiner")):
        load_predictor(path)
    with torch.no_grad():
        next(predictor.unet.parameters()).fill_(float("nan"))
    save_predictor(path, predictor)
    with raises_user_error(ModelError, mentions=(path, "finite", "--save-refiner")):
        load_predictor(path)
