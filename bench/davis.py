"""Table of J&F on labelled video: trivial baselines, untrained features, and checkpoints.

The protocol is that of `maskring evaluate`: radius 12, references 0, 5, t-1, t-3, t-5, and dilated windows
for older frames by default; rows that differ say so.

    python bench/davis.py --davis ROOT --split dev                     # the shipped checkpoint
    python bench/davis.py --davis ROOT --split dev mine=runs/mine/checkpoint.safetensors

A second table scores both halves of the sequences (:mod:`halves`): the row that is best on one half is
reported by its score on the other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from feature_tracker import FirstMask, encoder_features, feature_tracker, lab_features
from halves import held_out_table

from maskring.models import open_tracker, resolve_model
from maskring.runtime.evaluation.protocol import SequenceTracker, evaluate
from maskring.runtime.evaluation.report import Evaluation
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.training.checkpoint import load_checkpoint
from maskring.training.network.encoder import Encoder
from maskring.training.weights import shipped_checkpoint

RADIUS = 12
LAB_SCALES = (150.0, 600.0, 2400.0)
"""Raw colours have no natural scale, so all of these are tried."""

SMOOTHING_RADII = (0, 1, 2, 3)


def untrained() -> SequenceTracker:
    """The shipped checkpoint's encoder before its first step."""
    shipped = load_checkpoint(shipped_checkpoint())
    torch.manual_seed(0)
    encoder = Encoder(shipped.config)
    return feature_tracker(encoder_features(encoder), radius=RADIUS, logit_scale=shipped.tracking.logit_scale)


def lab_tracker(scale: float) -> SequenceTracker:
    """A tracker over raw Lab patches."""
    return feature_tracker(lab_features, radius=RADIUS, logit_scale=scale)


def contestants(checkpoints: dict[str, Path]) -> dict[str, Callable[[], SequenceTracker]]:
    """All rows of the table by name."""
    rows: dict[str, Callable[[], SequenceTracker]] = {"first mask repeated": FirstMask}
    for scale in LAB_SCALES:
        rows[f"raw Lab patches, scale {scale:g}"] = partial(lab_tracker, scale)
    rows["untrained nano"] = untrained
    for name, path in checkpoints.items():
        model = resolve_model(path)
        rows[name] = partial(open_tracker, model)
        rows[f"{name}, no window dilated"] = partial(open_tracker, model, policy=MemoryPolicy(dilate_after=0))
        rows |= smoothings(name, path)
    return rows


def smoothings(name: str, path: Path) -> dict[str, Callable[[], SequenceTracker]]:
    """A checkpoint without smoothing and with windows of several radii; a frame is encoded once for all."""
    checkpoint = load_checkpoint(path)
    features = encoder_features(checkpoint.query_encoder())
    read: dict[str, Any] = {"radius": RADIUS, "logit_scale": checkpoint.tracking.logit_scale}
    return {
        f"{name}, smoothing {radius}": partial(feature_tracker, features, smoothing_radius=radius, **read)
        for radius in SMOOTHING_RADII
    }


def scores(evaluation: Evaluation) -> dict[str, float]:
    """J&F in percent by sequence."""
    return {result.name: result.score.jf for result in evaluation.sequences if result.score is not None}


def table(evaluations: dict[str, Evaluation]) -> str:
    """Markdown: J&F in percent, a column per sequence."""
    first = next(iter(evaluations.values()))
    names = [result.name for result in first.sequences]
    lines = ["| | " + " | ".join(names) + " | mean |", "|---|" + "---|" * (len(names) + 1)]
    for name, evaluation in evaluations.items():
        values = scores(evaluation).values()
        cells = [f"{score:.1f}" for score in (*values, sum(values) / len(values))]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="NAME=FILE; default: the shipped checkpoint")
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--size", type=int, help="shorter side to track at; default: the frames' own")
    parser.add_argument("--only", nargs="+", help="rows whose names hold one of these")
    options = parser.parse_args()
    named = dict(text.split("=", 1) for text in options.checkpoints) or {"nano": str(shipped_checkpoint())}
    rows = contestants({name: Path(file) for name, file in named.items()})
    evaluations: dict[str, Evaluation] = {}
    for name, new_tracker in rows.items():
        if options.only and not any(part in name for part in options.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            evaluations[name] = evaluate(
                options.davis, options.split, new_tracker, out, out / "scores.json", size=options.size
            )
        print(table({name: evaluations[name]}).splitlines()[-1], flush=True)
    if evaluations:
        print("\n" + table(evaluations))
        print(held_out_table({name: scores(evaluation) for name, evaluation in evaluations.items()}))


if __name__ == "__main__":
    main()
