"""Every reader of files that maskring has, with a sound file of its kind to damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trust.damage import Attack
from trust.media import datasets, images, masks, videos
from trust.model_files import checkpoints, manifests, metadata, models, pickles, refiners
from trust.training_files import recipes, segments, states


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        prepare: given a folder to work in, returns the attack: one damaged file, read.
        most_mb: by which the peak of resident memory may grow, whatever the file says.
    """

    prepare: Callable[[Path], Attack]
    most_mb: int = 300


TARGETS = {
    "masks": Target(masks, most_mb=1200),  # 2^27 pixels, as colours, and then as indices
    "images": Target(images, most_mb=1200),
    "metadata": Target(metadata),
    "models": Target(models, most_mb=600),
    "checkpoints": Target(checkpoints),
    "refiners": Target(refiners, most_mb=600),
    "recipes": Target(recipes),
    "pickles": Target(pickles),
    "states": Target(states),
    "manifests": Target(manifests),
    "datasets": Target(datasets),
    "segments": Target(segments),
    "videos": Target(videos, most_mb=600),
}
