"""Learning rate schedules."""

from __future__ import annotations

import math
from dataclasses import replace

from .recipe import Recipe

DECAY_SHARE = 0.3
"""Last share of the steps, over which ``decay`` falls to 0."""

HALVED_AT = (0.4, 0.6, 0.8)
"""Shares of the steps at which ``steps`` halves the rate, as MAST does."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate for the step after ``step``: linear warm-up times the schedule, then the fine-tuning rate."""
    if step >= recipe.steps:
        return recipe.finetune_learning_rate
    rise = min(1.0, (step + 1) / max(1, recipe.warmup))
    if recipe.schedule == "cosine":
        done = max(0, step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        left = 0.5 * (1.0 + math.cos(math.pi * done))
    elif recipe.schedule == "decay":
        left = min(1.0, (recipe.steps - step) / (DECAY_SHARE * recipe.steps))
    else:
        left = 0.5 ** sum(step >= share * recipe.steps for share in HALVED_AT)
    return recipe.learning_rate * rise * left


def same_until(stored: Recipe, recipe: Recipe, step: int) -> bool:
    """Whether the first ``step`` steps of both recipes are the same.

    They are when the recipes are equal, or when only their ``steps`` differ and the rate of ``decay`` has not
    begun to fall. So an interrupted run may continue with another number of steps.
    """
    if replace(stored, steps=recipe.steps) != recipe:
        return False
    constant = (1 - DECAY_SHARE) * min(stored.steps, recipe.steps)
    return stored.steps == recipe.steps or (recipe.schedule == "decay" and step <= constant)
