"""The metadata of exported models: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from user_errors import raises_user_error

from maskring.common.errors import ModelError, SourceError
from maskring.runtime.model.metadata import FORMAT_VERSION, ModelMetadata

FULL = ModelMetadata(
    stride=4,
    channels=64,
    radius=12,
    logit_scale=0.125,
    top_k=36,
    num_slots=8,
    height=480,
    width=854,
    num_labels=11,
    dtype="float16",
    long_term=(0, 5, 9),
    short_term=(1, 2),
    lab_mean=(50, 0, 0),
    lab_std=(50, 127, 127),
    checkpoint="nano",
    checkpoint_sha256="ab" * 32,
)


def test_round_trip() -> None:
    for metadata in (FULL, ModelMetadata(stride=4, channels=64, radius=6, logit_scale=1)):
        text = metadata.to_json()
        assert "\n" not in text
        assert ModelMetadata.from_json(text, "m.onnx") == metadata


def test_feature_size_rounds_up() -> None:
    assert FULL.feature_size(480, 854) == (120, 214)
    assert FULL.feature_size(1, 5) == (1, 2)


def test_frame_size() -> None:
    FULL.check_frame_size(480, 854)
    with raises_user_error(SourceError, mentions=("480x854", "854x480", "--height 854")):
        FULL.check_frame_size(854, 480)
    ModelMetadata(stride=4, channels=64, radius=6, logit_scale=1).check_frame_size(33, 77)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", 0),
        ("stride", "4"),
        ("stride", True),
        ("channels", None),
        ("radius", -1),
        ("radius", 2.5),
        ("scale", float("nan")),
        ("scale", float("inf")),
        ("scale", None),
        ("scale", 10**400),
        ("scale", True),
        ("lab_mean", [50, 0]),
        ("lab_mean", []),
        ("lab_mean", [0, 0, None]),
        ("lab_std", [50, 127, 0]),
        ("lab_std", [50, 127, float("nan")]),
        ("top_k", -3),
        ("smooth", -1),
        ("smooth", 1.5),
        ("slots", 0),
        ("height", "480"),
        ("labels", 1),
        ("labels", 257),
        ("dtype", "float64"),
        ("dtype", ["float32"]),
        ("long_term", 5),
        ("long_term", [-1]),
        ("short_term", [0]),
        ("short_term", ["1"]),
        ("short_term", {"1": 1}),
        ("checkpoint", 3),
        ("checkpoint_sha256", None),
    ],
)
def test_implausible_values(name: str, value: Any) -> None:
    stored = json.loads(FULL.to_json()) | {name: value}
    with raises_user_error(ModelError, mentions=("m.onnx", "maskring export")):
        ModelMetadata.from_json(json.dumps(stored), "m.onnx")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '"x"', "{}", "[" * 100_000, '{"format_version": 1}']
)
def test_not_metadata_at_all(text: str) -> None:
    with raises_user_error(ModelError, mentions=("m.onnx", "maskring export")):
        ModelMetadata.from_json(text, "m.onnx")


def test_other_version() -> None:
    stored = json.loads(FULL.to_json()) | {"format_version": FORMAT_VERSION + 1}
    with raises_user_error(
        ModelError, mentions=("m.onnx", FORMAT_VERSION, FORMAT_VERSION + 1, "maskring export")
    ):
        ModelMetadata.from_json(json.dumps(stored), "m.onnx")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(json.loads(FULL.to_json()))), JSON, max_size=4))
def test_any_values_are_refused_or_usable(changes: dict[str, Any]) -> None:
    """Whatever stands in the file: a sentence, or metadata that mean something."""
    text = json.dumps(json.loads(FULL.to_json()) | changes)
    try:
        metadata = ModelMetadata.from_json(text, "m.onnx")
    except ModelError:
        return
    assert metadata.feature_size(10, 10)[0] >= 1
    assert ModelMetadata.from_json(metadata.to_json(), "m.onnx") == metadata


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.integers(0, 300), st.integers(0, 40))
def test_any_text_is_refused_or_unharmed(garbage: str, start: int, length: int) -> None:
    text = FULL.to_json()
    damaged = text[:start] + garbage + text[start + length :]
    try:
        ModelMetadata.from_json(damaged, "m.onnx")
    except ModelError as error:
        assert "m.onnx" in str(error)
