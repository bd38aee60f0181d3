"""Recipes: everything that decides a training run, in one TOML file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..common.errors import TrainingError
from .checkpoint import AffinitySettings
from .network.encoder import PRESETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

START = "start"
"""As a recipe's encoder: that of the checkpoint which training starts from."""

CHOICES = {
    "target": ("channel", "clusters"),
    "references": ("others", "previous"),
    "schedule": ("cosine", "decay", "steps"),
    "precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Recipe:
    """A training run. Two runs of one recipe on the same clips and machine are equal, step for step.

    Attributes:
        name: for people, and for the checkpoint's provenance.
        encoder: preset of the encoder (:data:`.encoder.PRESETS`), or :data:`START`.
        seed: of weights, windows and augmentation.

        target: what is reconstructed. ``channel``: one of the Lab channels a and b, hidden from the network
            (MAST); ``clusters``: the class of the colour, of a grey image (Tracking emerges by colorizing).
        clusters: number of colour classes, fitted to the footage.
        references: ``others``: every frame of a window is reconstructed from all the others;
            ``previous``: the last one from those before it.
        radius: window radius of the affinity, in features.
        localise: step of the coarse search that finds the centre of each window (MAST's ROI localisation);
            0 centres windows on the pixel itself. Tracking searches dilated slots on a grid of that step.
        logit_scale: factor on inner products before the softmax; 1 / sqrt(C) is 0.125.
        momentum: of the key encoder (MoCo); 0 shares one encoder, and gradients reach the references.
        delta: error at which the Huber loss turns from squared to absolute, in normalised Lab.

        clips: windows per process and pass.
        accumulate: passes whose gradients are averaged before a step.
        frames: frames per window.
        max_gap: largest distance between neighbouring frames of a window, in frames.
        short_side: frames are stored at this height or width, whichever is shorter, in pixels.
        crop: side of the square that the network sees, in pixels.
        zoom: the crop covers between this share of the short side and all of it.
        distortion: strength of the random colour distortion, 0 for none.

        steps: optimiser steps.
        learning_rate: of Adam, at its peak.
        warmup: steps of linear rise to it.
        schedule: ``cosine`` to 0; ``decay``: constant, then linearly to 0 during the last 30 % of the steps,
            so that the length may be chosen late; ``steps``: halved at 0.4, 0.6 and 0.8 of them (MAST).
        finetune_steps: further steps, with ``finetune_frames`` frames per window at the constant rate
            ``finetune_learning_rate`` (MAST: pairs first, then several references).
        clip_norm: longest gradient, as a Euclidean norm; 0 does not clip.
        ema: decay of the running mean of weights that becomes the checkpoint; 0 takes the last weights.
        precision: of the encoder's arithmetic: ``float32``, ``bfloat16`` or ``float16`` (autocast).
        save_every: steps between saved states.
        sheet_every: steps between contact sheets of reconstructions; 0 writes none.
        validate_every: steps between scores on labelled video, where some is given.

        tracking_radius, tracking_scale, tracking_top_k: defaults written into the checkpoint.
    """

    name: str
    encoder: str = "full"
    seed: int = 0
    target: str = "channel"
    clusters: int = 16
    references: str = "others"
    radius: int = 6
    localise: int = 0
    logit_scale: float = 0.125
    momentum: float = 0.0
    delta: float = 0.05
    clips: int = 8
    accumulate: int = 1
    frames: int = 3
    max_gap: int = 4
    short_side: int = 288
    crop: int = 256
    zoom: float = 0.7
    distortion: float = 0.1
    steps: int = 100_000
    learning_rate: float = 1e-3
    warmup: int = 500
    schedule: str = "cosine"
    finetune_steps: int = 0
    finetune_frames: int = 6
    finetune_learning_rate: float = 2e-5
    clip_norm: float = 0.0
    ema: float = 0.0
    precision: str = "bfloat16"
    save_every: int = 500
    sheet_every: int = 500
    validate_every: int = 1000
    tracking_radius: int = 12
    tracking_scale: float = 0.125
    tracking_top_k: int = 0

    def __post_init__(self) -> None:
        for complaint in _complaints(self):
            raise TrainingError(f"the recipe {self.name} has {complaint}", "correct the recipe")

    @property
    def total_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.finetune_steps

    @property
    def tracking(self) -> AffinitySettings:
        """Defaults written into the checkpoint."""
        return AffinitySettings(self.tracking_radius, self.tracking_scale, self.tracking_top_k, self.localise)

    def frames_at(self, step: int) -> int:
        """Frames per window in the step after ``step``."""
        return self.frames if step < self.steps else self.finetune_frames

    def to_json(self) -> str:
        """One line that identifies the recipe; a saved state carries it."""
        return json.dumps(asdict(self), sort_keys=True)


AT_LEAST = {
    0: (
        *("radius", "localise", "distortion", "warmup", "finetune_steps", "clip_norm", "sheet_every"),
        *("tracking_radius", "tracking_top_k"),
    ),
    1: ("steps", "clips", "accumulate", "max_gap", "save_every", "validate_every"),
    2: ("frames", "finetune_frames", "clusters"),
}
MOST = 2**31 - 1
ABOVE_ZERO = ("learning_rate", "finetune_learning_rate", "delta", "zoom", "logit_scale", "tracking_scale")


def _complaints(recipe: Recipe) -> list[str]:
    """What is wrong with the values, in the recipe's own words."""
    found = []
    for name, known in (("encoder", (*PRESETS, START)), *CHOICES.items()):
        if getattr(recipe, name) not in known:
            found.append(f"the unknown {name} {_shown(getattr(recipe, name))} (there are {', '.join(known)})")
    for name, value in asdict(recipe).items():
        if isinstance(value, (int, float)) and not abs(value) <= MOST:  # nor is nan
            found.append(f"{name} = {_shown(value)}, which must be finite and at most {MOST}")
    for least, names in AT_LEAST.items():
        for name in names:
            if getattr(recipe, name) < least:
                found.append(f"{name} = {getattr(recipe, name)}, which must be at least {least}")
    for name in ABOVE_ZERO:
        if not getattr(recipe, name) > 0:
            found.append(f"{name} = {getattr(recipe, name)}, which must be above 0")
    if recipe.zoom > 1:
        found.append(f"zoom = {recipe.zoom}, which ends at 1")
    for name in ("momentum", "ema"):
        if not 0 <= getattr(recipe, name) < 1:
            found.append(f"{name} = {getattr(recipe, name)}, which must lie between 0 and 1, below 1")
    if not 8 <= recipe.crop <= recipe.short_side:
        found.append(f"crop = {recipe.crop}, which must lie between 8 and short_side = {recipe.short_side}")
    return found


def _shown(value: object) -> str:
    """A setting's value, for people."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a hexadecimal number of thousands of digits; tables in tables
        return "something too long to show"


LONGEST, MOST_DOTS = 1 << 16, 100
"""Characters of a recipe, and full stops in a line of it: what Python's parser needs grows with the square of
a dotted key's parts, to gigabytes for some kilobytes."""


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
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises on names that are too long)
        raise TrainingError(
            f"there is no recipe {name}",
            f"name one of {', '.join(recipe_names())}, or the path of a TOML file",
        )
    try:
        if path.stat().st_size > 4 * LONGEST:
            raise _too_long(path.stem)
        return parse_recipe(path.read_text("utf-8"), path.stem)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the recipe {path} cannot be read ({error})", "give a TOML text file") from error


def _too_long(name: str) -> TrainingError:
    return TrainingError(
        f"the recipe {name} has more than {LONGEST} characters or {MOST_DOTS} full stops in a line",
        "keep to settings and short comments",
    )


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe from TOML ``text``; ``name`` is its name unless the text gives one.

    Raises:
        TrainingError: as :func:`load_recipe`.
    """
    if len(text) > LONGEST or any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        raise _too_long(name)
    try:
        stored: Mapping[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long to read, lists too deep
        raise TrainingError(f"the recipe {name} is not valid TOML ({error})", "correct the recipe") from error
    kinds = {item.name: str(item.type) for item in fields(Recipe)}
    for key, value in stored.items():
        if key not in kinds:
            raise TrainingError(f"the recipe {name} has the unknown setting {key}", f"use {', '.join(kinds)}")
        accepted = {"str": (str,), "int": (int,), "float": (int, float)}[kinds[key]]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise TrainingError(
                f"the recipe {name} has {key} = {_shown(value)}", f"give it a value of type {kinds[key]}"
            )
    return Recipe(**{"name": name, **stored})
