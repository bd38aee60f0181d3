"""Checkpoints that come with maskring."""

from __future__ import annotations

import pytest
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.training.checkpoint import load_checkpoint
from maskring.training.network.encoder import EncoderConfig
from maskring.training.recipe import load_recipe
from maskring.training.weights import shipped_checkpoint, shipped_names


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_checkpoints_are_valid_small_and_have_a_card(name: str) -> None:
    path = shipped_checkpoint(name)
    checkpoint = load_checkpoint(path)
    recipe = load_recipe(checkpoint.provenance.recipe)
    assert checkpoint.config == EncoderConfig.preset(load_recipe(name).encoder)
    assert checkpoint.config == EncoderConfig.preset(recipe.encoder)
    assert 0 < checkpoint.provenance.steps <= recipe.steps
    assert checkpoint.provenance.licence
    assert path.stat().st_size <= 12_000_000
    card = path.with_suffix(".md").read_text("utf-8")
    assert f"{checkpoint.provenance.steps:,} steps" in card and checkpoint.provenance.licence in card


def test_three_sizes_are_shipped() -> None:
    assert shipped_names() == ["full", "nano", "pico"]


def test_unknown_name_says_what_there_is() -> None:
    with raises_user_error(ModelError, mentions=("giant", "full, nano, pico")):
        shipped_checkpoint("giant")
