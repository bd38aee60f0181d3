"""Recipes: every setting of a training run, in one TOML file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
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
"""As a recipe's encoder: the encoder of the checkpoint that training starts from."""

OLD_NAMES = {"localise": "roi_step", "tracking_scale": "tracking_logit_scale"}
"""What version 0.1.0 calls settings -> what this version calls them. Recipes may use either name."""

TRACKING_SMOOTHING_RADIUS = 2
"""Smoothing radius, in features, that every recipe gives to tracking."""

TRACKING_CONFIDENCE_EXPONENT = 4
"""How much less memory weighs unsure labels, as every recipe gives it to tracking."""

TRACKING_GUIDED_FILTER_RADIUS = 2
"""Radius of the guided filter, in features, that every recipe gives to tracking."""

CHOICES = {
    "target": ("channel", "clusters"),
    "references": ("others", "previous"),
    "schedule": ("cosine", "decay", "steps"),
    "precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run. One recipe on the same clips and machine always gives the same weights.

    Attributes:
        name: for people, and for the checkpoint's provenance.
        encoder: preset of the encoder (:data:`.encoder.PRESETS`), or :data:`START` for the encoder and the tracking
            settings of the start checkpoint.
        seed: of weights, windows and augmentation.

        target: what is reconstructed. ``channel``: one of the Lab channels a and b, hidden from the network
            (MAST); ``clusters``: the class of the colour, of a grey image (Tracking emerges by colorizing).
        clusters: number of colour classes, fitted to the footage.
        references: ``others``: every frame of a window is reconstructed from all the others;
            ``previous``: the last one from those before it.
        radius: window radius of the affinity, in features.
        roi_step: step of the coarse search for the centre of each window (MAST's ROI localisation); 0 centres
            windows on the pixel itself. Tracking searches dilated slots with the same step.
        logit_scale: factor on inner products before the softmax; 1 / sqrt(C) is 0.125.
        momentum: of the key encoder (MoCo); 0 shares one encoder, and gradients reach the references.
        pairs: pairs of views per process and pass, in addition to the windows (:mod:`.pairs`).
        pair_weight: factor on the contrastive loss of the pairs, which is far larger than the reconstruction's.
        pair_scale: factor on inner products of the pairs before the softmax.
        pair_channels: the last so many channels learn from the pairs; they start without raw colours. 0 for all.
        pair_frames: the second view is up to so many frames less one after the first, each up to ``max_gap``
            frames apart, and optical flow gives the correspondence; 1 for two views of one frame.
        pair_places: features of the first view, per pair, that are matched.
        pair_distortion: as ``distortion``, but each view of a pair has its own.
        delta: error at which the Huber loss turns from squared to absolute, in normalised Lab.

        clips: windows per process and pass; 0 learns from pairs only.
        accumulate: passes whose gradients are averaged before a step.
        frames: frames per window.
        max_gap: largest distance between neighbouring frames of a window, in frames.
        short_side: height or width of stored frames, whichever is shorter, in pixels.
        crop: side of the square that the network sees, in pixels.
        zoom: smallest side of the cropped square, as a fraction of the short side; the largest is all of it.
        distortion: strength of the random colour distortion, 0 for none.

        steps: optimiser steps.
        learning_rate: of Adam, at its peak.
        warmup: steps over which the rate rises linearly to its peak.
        schedule: ``cosine``: falls to 0 along a cosine; ``decay``: constant, then linear to 0 over the last
            30 % of the steps, so that the length may be chosen late; ``steps``: halved at 0.4, 0.6 and 0.8 of
            the steps (MAST).
        finetune_steps: further steps, with ``finetune_frames`` frames per window at the constant rate
            ``finetune_learning_rate`` (MAST: pairs first, then several references).
        clip_norm: largest Euclidean norm of the gradient; 0 does not clip.
        ema: decay of the running mean of weights that becomes the checkpoint; 0 takes the last weights.
        precision: of the encoder's arithmetic: ``float32``, ``bfloat16`` or ``float16`` (autocast).
        save_every: steps between saved states.
        sheet_every: steps between contact sheets of reconstructions; 0 writes none.
        validate_every: steps between validation scores, if labelled video was given.

        tracking_radius, tracking_logit_scale, tracking_top_k: settings that the checkpoint gives to tracking.
    """

    name: str
    encoder: str = "full"
    seed: int = 0
    target: str = "channel"
    clusters: int = 16
    references: str = "others"
    radius: int = 6
    roi_step: int = 0
    logit_scale: float = 0.125
    momentum: float = 0.0
    delta: float = 0.05
    pairs: int = 0
    pair_weight: float = 0.01
    pair_scale: float = 0.2
    pair_channels: int = 0
    pair_frames: int = 1
    pair_places: int = 512
    pair_distortion: float = 0.2
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
    tracking_logit_scale: float = 0.125
    tracking_top_k: int = 0

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise TrainingError(f"the recipe {self.name} has {problem}", "correct the recipe")

    @property
    def total_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.finetune_steps

    @property
    def tracking(self) -> AffinitySettings:
        """Settings that the checkpoint gives to tracking."""
        return AffinitySettings(
            radius=self.tracking_radius,
            logit_scale=self.tracking_logit_scale,
            top_k=self.tracking_top_k,
            roi_step=self.roi_step,
            smoothing_radius=TRACKING_SMOOTHING_RADIUS,
            confidence_exponent=TRACKING_CONFIDENCE_EXPONENT,
            guided_filter_radius=TRACKING_GUIDED_FILTER_RADIUS,
        )

    def frames_at(self, step: int) -> int:
        """Frames per window in the step after ``step``."""
        return self.frames if step < self.steps else self.finetune_frames

    def to_json(self) -> str:
        """One line of JSON, which a saved state carries."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of :meth:`to_json`, of version 0.1.0 too.

        Raises:
            ValueError, TypeError: when the text is damaged.
            TrainingError: when a value is out of range.
        """
        return cls(**with_current_names(json.loads(text)))


def with_current_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under this version's names.

    Raises:
        ValueError: naming a setting that is given twice, under its old and its new name.
    """
    for old, new in OLD_NAMES.items():
        if old in stored and new in stored:
            raise ValueError(f"{new} twice, once under its old name {old}")
    return {OLD_NAMES.get(name, name): value for name, value in stored.items()}


MINIMA = {
    0: (
        *("radius", "roi_step", "distortion", "warmup", "finetune_steps", "clip_norm", "sheet_every"),
        *("tracking_radius", "tracking_top_k", "clips", "pairs", "pair_channels", "pair_distortion"),
    ),
    1: ("steps", "accumulate", "max_gap", "save_every", "validate_every", "pair_frames", "pair_places"),
    2: ("frames", "finetune_frames", "clusters"),
}
MAX_NUMBER = 2**31 - 1
POSITIVE = (
    *("learning_rate", "finetune_learning_rate", "delta", "zoom", "logit_scale"),
    *("tracking_logit_scale", "pair_weight", "pair_scale"),
)
BELOW_ONE = ("momentum", "ema")


def _problems(recipe: Recipe) -> Iterator[str]:
    """What is wrong with the values, to follow "the recipe has"."""
    for name, choices in (("encoder", (*PRESETS, START)), *CHOICES.items()):
        if getattr(recipe, name) not in choices:
            yield f"the unknown {name} {_shown(getattr(recipe, name))} (there are {', '.join(choices)})"
    for name, value in asdict(recipe).items():
        if isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER:  # not is true of nan, too
            yield f"{name} = {_shown(value)}, which must be finite and at most {MAX_NUMBER}"
    for least, names in MINIMA.items():
        for name in names:
            if getattr(recipe, name) < least:
                yield f"{name} = {getattr(recipe, name)}, which must be at least {least}"
    for name in POSITIVE:
        if not getattr(recipe, name) > 0:
            yield f"{name} = {getattr(recipe, name)}, which must be above 0"
    if recipe.zoom > 1:
        yield f"zoom = {recipe.zoom}, which must be at most 1"
    if recipe.clips == recipe.pairs == 0:
        yield "clips = 0 and pairs = 0, so there is nothing to learn from"
    for name in BELOW_ONE:
        if not 0 <= getattr(recipe, name) < 1:
            yield f"{name} = {getattr(recipe, name)}, which must be at least 0 and below 1"
    if not 8 <= recipe.crop <= recipe.short_side:
        yield f"crop = {recipe.crop}, which must lie between 8 and short_side = {recipe.short_side}"


def _shown(value: object) -> str:
    """``repr`` of a setting's value, which Python refuses for numbers of thousands of digits."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "a value too long to show"


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
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the recipe {path} cannot be read ({error})", "give a TOML text file") from error
    return parse_recipe(text, path.stem)


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe from TOML ``text``; ``name`` is its name unless the text gives one.

    Raises:
        TrainingError: as :func:`load_recipe`.
    """
    try:
        stored: Mapping[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: lists nested too deep
        raise TrainingError(f"the recipe {name} is not valid TOML ({error})", "correct the recipe") from error
    try:
        stored = with_current_names(stored)
    except ValueError as error:
        raise TrainingError(f"the recipe {name} gives {error}", "remove one of the two") from error
    types = {item.name: str(item.type) for item in fields(Recipe)}
    for key, value in stored.items():
        if key not in types:
            raise TrainingError(f"the recipe {name} has the unknown setting {key}", f"use {', '.join(types)}")
        accepted = {"str": (str,), "int": (int,), "float": (int, float)}[types[key]]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise TrainingError(
                f"the recipe {name} has {key} = {_shown(value)}", f"give it a value of type {types[key]}"
            )
    return Recipe(**{"name": name, **stored})
