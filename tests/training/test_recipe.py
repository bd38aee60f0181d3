"""Recipes: those that come along are valid, and every mistake gets its sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from user_errors import raises_user_error

from maskring.common.errors import TrainingError
from maskring.training.recipe import START, Recipe, load_recipe, parse_recipe, recipe_names
from maskring.training.schedule import same_until


def test_every_shipped_recipe_loads_under_its_name() -> None:
    assert recipe_names() == ["colorization", "full", "mast", "nano", "paper", "pico", "static", "tune"]
    for name in recipe_names():
        assert load_recipe(name).name == name
    assert load_recipe("nano").encoder == "nano-patch"


def test_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('encoder = "nano"\nsteps = 7\nlearning_rate = 1\n')
    assert load_recipe(str(path)) == Recipe(name="mine", encoder="nano", steps=7, learning_rate=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = ", ("TOML",)),
        ("stepz = 3", ("stepz", "name, encoder")),
        ('steps = "many"', ("steps = 'many'", "int")),
        ("steps = true", ("steps = True", "int")),
        ("steps = 1.5", ("steps = 1.5", "int")),
        ("steps = 0", ("steps = 0", 1)),
        ("frames = 1", ("frames = 1", 2)),
        ('encoder = "giant"', ("encoder", "giant", "nano")),
        ('precision = "float8"', ("precision", "float8", "float32")),
        ("crop = 400", ("crop = 400", 8, "short_side = 288")),
        ("learning_rate = 0.0", ("learning_rate = 0.0", "above 0")),
        ("learning_rate = nan", ("learning_rate = nan", "finite")),
        ("radius = -1", ("radius = -1", "at least 0")),
        ('target = "depth"', ("target", "depth", "channel, clusters")),
        ('schedule = "never"', ("schedule", "never", "cosine, decay, steps")),
        ("accumulate = 0", ("accumulate = 0", 1)),
        ("ema = 1.0", ("ema = 1.0", "below 1")),
        ("momentum = 1.0", ("momentum = 1.0",)),
        ("zoom = 1.5", ("zoom = 1.5",)),
        ("pairs = -1", ("pairs = -1", "at least 0")),
        ("pair_scale = 0.0", ("pair_scale = 0.0", "above 0")),
        ("clips = 0", ("clips = 0", "pairs = 0")),
    ],
)
def test_mistakes_are_named(text: str, words: tuple[object, ...]) -> None:
    with raises_user_error(TrainingError, mentions=("recipe mine", *words)):
        parse_recipe(text, "mine")


def test_unknown_recipe_names_those_there_are(tmp_path: Path) -> None:
    with raises_user_error(TrainingError, mentions=("absent", "colorization, full", "static, tune")):
        load_recipe("absent")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with raises_user_error(TrainingError, mentions=(tmp_path / "binary.toml",)):
        load_recipe(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize("name", ["nano", "pico", "full"])
def test_tune_goes_on_from_shipped_checkpoints(name: str) -> None:
    """The same training at another pace: weights of one recipe start the other."""
    recipe, tune = load_recipe(name), load_recipe("tune")
    assert tune.encoder == START and tune.learning_rate == recipe.learning_rate / 10
    names = ("steps", "learning_rate", "warmup", "tracking_radius", "tracking_logit_scale")
    own = {name: getattr(recipe, name) for name in names}
    assert recipe == replace(tune, name=name, encoder=recipe.encoder, **own)  # type: ignore[arg-type]


def test_the_number_of_steps_may_change_until_the_rate_falls() -> None:
    long = replace(load_recipe("pico"), steps=1000)
    short = replace(long, steps=500)
    assert same_until(long, short, 350) and same_until(short, long, 350)
    assert not same_until(long, short, 351)
    assert same_until(long, long, 999)
    assert not same_until(long, replace(short, radius=5), 10)
    assert not same_until(replace(long, schedule="cosine"), replace(short, schedule="cosine"), 10)
