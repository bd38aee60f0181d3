"""Checkpoints that come with maskring."""

from __future__ import annotations

import pytest

from maskring.plugins.errors import ModelError
from maskring.training.checkpoint import load_checkpoint
from maskring.training.encoder import EncoderConfig
from maskring.training.weights import shipped_checkpoint


def test_nano_is_valid_small_and_has_a_card() -> None:
    path = shipped_checkpoint()
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == EncoderConfig.preset("nano-patch")
    assert checkpoint.provenance.licence
    assert path.stat().st_size <= 12_000_000
    card = path.with_suffix(".md").read_text("utf-8")
    assert f"{checkpoint.provenance.steps:,} steps" in card and checkpoint.provenance.licence in card


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ModelError, match="no checkpoint 'giant' comes with maskring; name one of: nano"):
        shipped_checkpoint("giant")
