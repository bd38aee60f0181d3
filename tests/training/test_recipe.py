"""Recipes: those that come along are valid, and every mistake gets its sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

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
    ("text", "sentence"),
    [
        ("steps = ", "not valid TOML"),
        ("stepz = 3", "unknown setting stepz; use name, encoder"),
        ('steps = "many"', "steps = 'many'; give it a value of type int"),
        ("steps = true", "steps = True; give"),
        ("steps = 1.5", "steps = 1.5; give"),
        ("steps = 0", "steps = 0, which must be at least 1"),
        ("frames = 1", "frames = 1, which must be at least 2"),
        ('encoder = "giant"', "unknown encoder 'giant'"),
        ('precision = "float8"', "unknown precision 'float8'"),
        ("crop = 400", "crop = 400, which must lie between 8 and short_side = 288"),
        ("learning_rate = 0.0", "learning_rate = 0.0, which must be above 0"),
        ("learning_rate = nan", "learning_rate = nan, which must be finite"),
        ("radius = -1", "radius = -1, which must be at least 0"),
        ('target = "depth"', "unknown target 'depth' (there are channel, clusters)"),
        ('schedule = "never"', "unknown schedule 'never' (there are cosine, decay, steps)"),
        ("accumulate = 0", "accumulate = 0, which must be at least 1"),
        ("ema = 1.0", "ema = 1.0, which must be at least 0 and below 1"),
        ("momentum = 1.0", "momentum = 1.0"),
        ("zoom = 1.5", "zoom = 1.5"),
        ("pairs = -1", "pairs = -1, which must be at least 0"),
        ("pair_scale = 0.0", "pair_scale = 0.0, which must be above 0"),
        ("clips = 0", "clips = 0 and pairs = 0"),
    ],
)
def test_mistakes_are_named(text: str, sentence: str) -> None:
    with pytest.raises(TrainingError, match="the recipe mine") as caught:
        parse_recipe(text, "mine")
    assert sentence in str(caught.value)


def test_unknown_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match="there is no recipe absent; name one of colorization, full, mast, nano, paper, pico, static, tune",
    ):
        load_recipe("absent")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_recipe(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize("name", ["nano", "pico", "full"])
def test_tune_goes_on_from_shipped_checkpoints(name: str) -> None:
    """The same training at another pace: weights of one recipe start the other."""
    recipe, tune = load_recipe(name), load_recipe("tune")
    assert tune.encoder == START and tune.learning_rate == recipe.learning_rate / 10
    own = {"steps": recipe.steps, "learning_rate": recipe.learning_rate, "warmup": recipe.warmup}
    assert recipe == replace(tune, name=name, encoder=recipe.encoder, **own)  # type: ignore[arg-type]


def test_the_number_of_steps_may_change_until_the_rate_falls() -> None:
    long = replace(load_recipe("pico"), steps=1000)
    short = replace(long, steps=500)
    assert same_until(long, short, 350) and same_until(short, long, 350)
    assert not same_until(long, short, 351)
    assert same_until(long, long, 999)
    assert not same_until(long, replace(short, radius=5), 10)
    assert not same_until(replace(long, schedule="cosine"), replace(short, schedule="cosine"), 10)
