"""Recipes: everything that decides a training run, in one TOML file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..plugins.errors import TrainingError
from .encoder import PRESETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """A training run. Two runs of one recipe on the same clips and machine are equal, step for step.

    Attributes:
        name: for people, and for the checkpoint's provenance.
        encoder: preset of the encoder (:data:`.encoder.PRESETS`).
        seed: of weights, windows and augmentation.
        steps: optimiser steps.
        clips: windows per step.
        frames: frames per window; each is reconstructed once from all the others.
        max_gap: largest distance between neighbouring frames of a window, in frames.
        short_side: frames are stored at this height or width, whichever is shorter, in pixels.
        crop: side of the square that the network sees, in pixels.
        zoom: the crop covers between this share of the short side and all of it.
        distortion: strength of the random colour distortion, 0 for none.
        radius: window radius of the affinity, in features.
        delta: error at which the Huber loss turns from squared to absolute, in normalised Lab.
        learning_rate: of Adam, at its peak.
        warmup: steps of linear rise to it; a cosine leads from there to 0.
        momentum: of the key encoder (MoCo); 0 shares one encoder, and gradients reach the references.
        precision: of the encoder's arithmetic, ``float32`` or ``bfloat16`` (autocast).
        save_every: steps between saved states.
        tracking_radius, tracking_scale, tracking_top_k: defaults written into the checkpoint.
    """

    name: str
    encoder: str = "full"
    seed: int = 0
    steps: int = 100_000
    clips: int = 8
    frames: int = 3
    max_gap: int = 4
    short_side: int = 288
    crop: int = 256
    zoom: float = 0.7
    distortion: float = 0.1
    radius: int = 6
    delta: float = 0.05
    learning_rate: float = 1e-3
    warmup: int = 500
    momentum: float = 0.0
    precision: str = "bfloat16"
    save_every: int = 500
    tracking_radius: int = 12
    tracking_scale: float = 0.125
    tracking_top_k: int = 0

    def __post_init__(self) -> None:
        for complaint in _complaints(self):
            raise TrainingError(f"the recipe {self.name} has {complaint}", "correct the recipe")

    def to_json(self) -> str:
        """One line that identifies the recipe; a saved state carries it."""
        return json.dumps(asdict(self), sort_keys=True)


def _complaints(recipe: Recipe) -> list[str]:
    """What is wrong with the values, in the recipe's own words."""
    found = []
    if recipe.encoder not in PRESETS:
        found.append(f"the unknown encoder {recipe.encoder!r} (there are {', '.join(PRESETS)})")
    if recipe.precision not in PRECISIONS:
        found.append(f"the unknown precision {recipe.precision!r} (there are {', '.join(PRECISIONS)})")
    for name, least in (("steps", 1), ("clips", 1), ("frames", 2), ("max_gap", 1), ("save_every", 1)):
        if getattr(recipe, name) < least:
            found.append(f"{name} = {getattr(recipe, name)}, which must be at least {least}")
    for name in ("learning_rate", "delta", "zoom", "tracking_scale"):
        if not getattr(recipe, name) > 0:
            found.append(f"{name} = {getattr(recipe, name)}, which must be above 0")
    for name in ("radius", "warmup", "distortion", "tracking_radius", "tracking_top_k"):
        if getattr(recipe, name) < 0:
            found.append(f"{name} = {getattr(recipe, name)}, which must not be negative")
    if recipe.zoom > 1 or not 0 <= recipe.momentum < 1:
        found.append(f"zoom = {recipe.zoom}, momentum = {recipe.momentum}: zoom ends at 1, momentum below it")
    if not 8 <= recipe.crop <= recipe.short_side:
        found.append(f"crop = {recipe.crop}, which must lie between 8 and short_side = {recipe.short_side}")
    return found


def recipe_names() -> list[str]:
    """Names of the recipes that come with maskring."""
    folder = files(__package__).joinpath("recipes")
    return sorted(item.name[: -len(".toml")] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: one that comes with maskring (:func:`recipe_names`), or the path of a TOML file.

    Raises:
        TrainingError: when there is no such recipe, or a setting is unknown, of a wrong type or out of range.
    """
    if name in recipe_names():
        text = files(__package__).joinpath("recipes").joinpath(f"{name}.toml").read_text("utf-8")
        return parse_recipe(text, name)
    path = Path(name)
    if not path.is_file():
        raise TrainingError(
            f"there is no recipe {name}",
            f"name one of {', '.join(recipe_names())}, or the path of a TOML file",
        )
    try:
        return parse_recipe(path.read_text("utf-8"), path.stem)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the recipe {path} cannot be read ({error})", "give a TOML text file") from error


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe from TOML ``text``; ``name`` is its name unless the text gives one.

    Raises:
        TrainingError: as :func:`load_recipe`.
    """
    try:
        stored: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"the recipe {name} is not valid TOML ({error})", "correct the recipe") from error
    kinds = {item.name: str(item.type) for item in fields(Recipe)}
    for key, value in stored.items():
        if key not in kinds:
            raise TrainingError(f"the recipe {name} has the unknown setting {key}", f"use {', '.join(kinds)}")
        accepted = {"str": (str,), "int": (int,), "float": (int, float)}[kinds[key]]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise TrainingError(
                f"the recipe {name} has {key} = {value!r}", f"give it a value of type {kinds[key]}"
            )
    return Recipe(**{"name": name, **stored})
