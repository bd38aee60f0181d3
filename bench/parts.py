"""What channels of features are worth, of one checkpoint or of several side by side: J on labelled video.

A row names a checkpoint, some of its channels and a gain. It may join several of these with ``+``; their
features are then compared as one, by distance. Each frame is encoded once per checkpoint for all rows. The
score is J alone, on request over the first frames of each sequence: a quick look, not the benchmark.

    python bench/parts.py --davis ROOT --split dev20 --size 240 --frames 40 \\
        pico=pico.safetensors 'half=run.safetensors[31:62]' 'both=pico.safetensors+run.safetensors[31:62]*0.5'
"""

from __future__ import annotations

import argparse
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feature_tracker import encoder_features, feature_tracker
from halves import held_out_table
from late_objects import nearest

from maskring.common.types import Image
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.arrays.resizing import majority, scaled_to
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import DatasetSequence, load_split
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask
from maskring.training.checkpoint import AffinitySettings, load_checkpoint
from maskring.training.feature_backend import Features
from maskring.training.network.encoder import NORM_CHANNELS, distance_keys

PART = re.compile(r"(?P<file>[^\[*]+)(\[(?P<first>\d+):(?P<last>\d+)\])?(\*(?P<gain>[\d.]+))?")


@dataclass(frozen=True)
class Part:
    """Some channels of a checkpoint's features.

    Attributes:
        file: the checkpoint.
        channels: which of them, without the channels of the norm
            (:data:`maskring.training.network.encoder.NORM_CHANNELS`).
        gain: factor on them.
    """

    file: Path
    channels: slice
    gain: float


def parse_row(text: str) -> tuple[str, list[Part]]:
    """A name and its parts from ``NAME=FILE[first:last]*gain+...``.

    Raises:
        ValueError: when the text has another form.
    """
    name, _, body = text.partition("=")
    parts = []
    for piece in body.split("+"):
        match = PART.fullmatch(piece)
        if match is None:
            raise ValueError(f"{piece!r} in {text!r} is not FILE, FILE[first:last] or FILE[first:last]*gain")
        first, last = match["first"], match["last"]
        channels = slice(int(first or 0), int(last) if last else None)
        parts.append(Part(Path(match["file"]), channels, float(match["gain"] or 1)))
    return name, parts


def join(encoders: dict[Path, Features], parts: list[Part]) -> Features:
    """Features of all ``parts``, compared by distance."""

    def features(frame: Image) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [
            part.gain * encoders[part.file](frame)[0][:, :-NORM_CHANNELS][:, part.channels] for part in parts
        ]
        points = torch.cat(chosen, dim=1)
        return torch.cat([points, torch.ones_like(points[:, :NORM_CHANNELS])], dim=1), distance_keys(points)

    return features


def region_similarity(
    sequence: DatasetSequence, features: Features, settings: AffinitySettings, size: int, max_frames: int
) -> float:
    """Mean J in percent of all objects of a sequence as one, over its first ``max_frames`` frames."""
    annotations, overlaps = Annotations.of(sequence), []
    masks = dict(sorted(sequence.annotations.items())[1:-1])
    start = annotations.start
    read: dict[str, Any] = {
        "radius": settings.radius,
        "logit_scale": settings.logit_scale,
        "top_k": settings.top_k,
        "smoothing_radius": settings.smoothing_radius,
    }
    with closing(feature_tracker(features, **read)) as tracker:
        for index in range(start, min(start + max_frames, len(sequence.frames))):
            frame = scaled_to(read_image(sequence.frames[index]), size)
            first_mask = annotations.introduced(index) if index == start else None
            mask = None if first_mask is None else majority(first_mask, frame.shape)
            labels = tracker.step(frame, mask).labels
            if index in masks:
                truth = read_mask(masks[index], allow_empty=True)
                overlaps.append(intersection_over_union(truth > 0, nearest(labels, truth.shape) > 0))
    return 100 * float(np.mean(overlaps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="+", help="NAME=FILE[first:last]*gain+...")
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20")
    parser.add_argument("--size", type=int, default=240, help="shorter side to track at")
    parser.add_argument("--frames", type=int, default=10**9, help="of each sequence, from the first mask on")
    options = parser.parse_args()
    rows = dict(map(parse_row, options.rows))
    checkpoints = {part.file: load_checkpoint(part.file) for parts in rows.values() for part in parts}
    settings = next(iter(checkpoints.values())).tracking
    scores: dict[str, dict[str, float]] = {name: {} for name in rows}
    for sequence in load_split(options.davis, options.split):
        encoders = {
            file: encoder_features(checkpoint.query_encoder()) for file, checkpoint in checkpoints.items()
        }
        for name, parts in rows.items():
            features = join(encoders, parts)
            score = region_similarity(sequence, features, settings, options.size, options.frames)
            scores[name][sequence.name] = score
        values = " ".join(f"{row[sequence.name]:.1f}" for row in scores.values())
        print(f"{sequence.name}: {values}", flush=True)
    print("\n" + held_out_table(scores))


if __name__ == "__main__":
    main()
