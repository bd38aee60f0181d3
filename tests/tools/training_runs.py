"""What tests of training share: one process alone, a recipe with pairs, and the losses of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from maskring.training.distributed import DistributedContext
from maskring.training.recipe import Recipe
from maskring.training.run_log import LOG_NAME

ALONE = DistributedContext(0, 1, torch.device("cpu"))


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / LOG_NAME).read_text().splitlines()]


def with_pairs(recipe: Recipe, **settings: float) -> Recipe:
    """The recipe with few and small pairs."""
    return replace(recipe, pairs=2, pair_weight=0.1, pair_places=32, zoom=0.9, pair_frames=2, **settings)
