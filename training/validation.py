"""A validation score for training: how well features carry labels through labelled video.

The score is the region similarity J of ``maskring evaluate --size 240``, with two differences that make it
cheap and keep it comparable over a run: the radius shrinks with the size, and no window is dilated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..common.errors import SourceError
from ..runtime.evaluation.datasets import DatasetSequence, find_sequences
from ..runtime.evaluation.measures import Score
from ..runtime.evaluation.protocol import track_sequence
from ..runtime.tracking.memory import MemoryPolicy
from ..runtime.tracking.tracker import Tracker
from .checkpoint import AffinitySettings
from .feature_backend import FeatureBackend, encoder_features
from .network.encoder import Encoder

BENCHMARK_SIZE = 480
"""Shorter side, in pixels, for which a checkpoint's radius is meant."""

MIN_MASKS = 3
"""The first mask is given and the last does not count, so fewer leave nothing to score."""

VALIDATED = 10
"""Sequences that a validation score during training uses."""

POLICY = MemoryPolicy(dilate_after=0)


def scorable_sequences(root: Path, limit: int | None = None) -> list[DatasetSequence]:
    """Sequences below ``root`` with at least three masks.

    Args:
        root: a folder in DAVIS or YouTube-VOS layout; split lists are not needed.
        limit: at most this many, evenly spread over the names; None for all.

    Raises:
        SourceError: when there are none.
    """
    scorable = [sequence for sequence in find_sequences(root) if len(sequence.annotations) >= MIN_MASKS]
    if not scorable:
        raise SourceError(
            f"{root} holds no sequence with at least {MIN_MASKS} masks",
            "give a folder with JPEGImages and Annotations, in the layout of DAVIS",
        )
    count = min(limit or len(scorable), len(scorable))
    return [scorable[index * len(scorable) // count] for index in range(count)]


def propagation_score(
    encoder: Encoder,
    root: Path,
    *,
    size: int = 240,
    tracking: AffinitySettings | None = None,
    sequences: int | None = None,
) -> dict[str, float]:
    """Track the objects of labelled sequences and score the masks.

    Args:
        encoder: on any device, in evaluation mode; it is not changed.
        root: see :func:`scorable_sequences`.
        size: shorter side of the frames, in pixels. The radius shrinks with it.
        tracking: settings of the memory read; None for the defaults.
        sequences: how many sequences to use, None for all.

    Returns:
        Mean J in percent by sequence, and over all objects under ``mean``.

    Raises:
        SourceError: when ``root`` holds no labelled sequence, or an image cannot be decoded.
        MaskError: when a mask cannot be used.
    """
    tracking = tracking or AffinitySettings()
    radius = max(1, round(tracking.radius * size / BENCHMARK_SIZE))
    settings = replace(tracking, radius=radius, roi_step=0)
    features, channels = encoder_features(encoder), encoder.config.channels

    def new_tracker() -> Tracker:
        return Tracker(FeatureBackend(features, channels, settings), policy=POLICY)

    chosen = scorable_sequences(root, sequences)
    with tempfile.TemporaryDirectory(prefix="maskring-validation-") as masks:
        results = [track_sequence(sequence, new_tracker, Path(masks), size) for sequence in chosen]
    scores = {result.name: result.score.j.mean for result in results if result.score is not None}
    objects = [score for result in results for score in result.objects.values()]
    if not objects:
        raise SourceError(f"no mask in {root} can be scored", "annotate at least three frames of a sequence")
    return {**scores, "mean": Score.of_objects(objects).j.mean}


def validator(root: Path, tracking: AffinitySettings) -> Callable[[Encoder], float]:
    """The ``validate`` argument of :func:`.loop.train` for at most :data:`VALIDATED` sequences of ``root``.

    Raises:
        SourceError: as :func:`scorable_sequences`; now, not at the first score.
    """
    scorable_sequences(root)
    return lambda encoder: propagation_score(encoder, root, tracking=tracking, sequences=VALIDATED)["mean"]
