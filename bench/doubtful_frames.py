"""How good Studio's list of frames worth a look is, on sequences in DAVIS layout.

Each sequence is tracked from its first annotation. Ten frames are chosen by each of several scores, as Studio chooses
them, and compared with the ten worst: 100 % is what a list of the worst frames attains, 0 % what frames at random
do. `rho` is Spearman's rank correlation of a score with 1 - J over all frames.

    python bench/doubtful_frames.py --davis ROOT --split dev20 --model pico --size 240 --rows rows.json

`--rows` keeps what tracking measured, so that scores can be tried without tracking again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from halves import choose

from maskring.models import open_tracker
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.pipeline.resized import ResizedTracker
from maskring.runtime.video.folders import frames_in
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask
from maskring.studio.trust import FRAMES_SHOWN, Doubt, doubts_about, most_doubtful, overlap, softness

Row = list[Any]
"""Area, confidence, overlap, softness, as Studio keeps them, and J."""

Scorer = Callable[[list[Row]], list[float]]


def tracked(davis: Path, name: str, model: str, size: int, threads: int) -> list[Row]:
    """What tracking measures on each frame, and how good its mask is."""
    folders = (davis / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
    rows: list[Row] = []
    before = None
    with open_tracker(Path(model), threads=threads) as opened:
        tracker = ResizedTracker(opened, size)
        for path, annotation in zip(*map(frames_in, folders), strict=True):
            truth = read_mask(annotation, allow_empty=True) > 0
            result = tracker.step(read_image(path), None if rows else truth.astype(np.uint8))
            state = result.objects[0]
            measured = [state.area, state.confidence, overlap(before, result.labels, 1)]
            j = intersection_over_union(result.labels > 0, truth)
            rows.append([*measured, softness(result.probabilities, 0), j])
            before = result.labels
    return rows


def column(place: int, missing: float, sign: float = -1.0) -> Scorer:
    """Scores by one measure."""
    return lambda rows: [sign * (missing if row[place] is None else row[place]) for row in rows]


def studio_scores(rows: list[Row]) -> list[float]:
    """Scores as Studio's own."""
    scores = [0.0] * len(rows)
    for doubt in doubts_about({index: {1: row[:4]} for index, row in enumerate(rows)}, {0}, (1,)):
        scores[doubt.frame] = doubt.score
    return scores


SCORERS: dict[str, Scorer] = {
    "confidence": column(1, 0.0),
    "overlap": column(2, 1.0),
    "softness": column(3, 0.0, 1.0),
    "distance": lambda rows: [float(index) for index in range(len(rows))],
    "softness, distance": studio_scores,
}


def rankdata(values: list[float]) -> np.ndarray:
    """Ranks; equal values share theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def attained(scores: list[float], worst: list[float]) -> float:
    """How much worse the chosen frames are than the mean, as a share of the worst ten's.

    Args:
        scores: by frame; the first one, which a user drew, is not chosen.
        worst: 1 - J by frame.
    """
    low = min(scores) - 1
    frames = range(1, len(scores))
    chosen, oracle = (
        most_doubtful([Doubt(index, 1, "", values[index] - low) for index in frames], len(scores))
        for values in (scores, [0.0, *worst[1:]])
    )
    mean = float(np.mean(worst[1:]))
    gain, possible = (np.mean([worst[doubt.frame] for doubt in part]) - mean for part in (chosen, oracle))
    return float(gain / possible)


def correlation(scores: list[float], worst: list[float]) -> float:
    """Spearman's rank correlation, the first frame left out; 0 where all scores are equal."""
    ranks = [rankdata(values[1:]) for values in (scores, worst)]
    return 0.0 if min(map(np.std, ranks)) == 0 else float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20", help="ImageSets/2016/NAME.txt")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="file that keeps what tracking measured")
    chosen = parser.parse_args()
    kept = json.loads(chosen.rows.read_text()) if chosen.rows and chosen.rows.is_file() else {}
    for name in (chosen.davis / "ImageSets" / "2016" / f"{chosen.split}.txt").read_text().split():
        if name not in kept:
            kept[name] = tracked(chosen.davis, name, chosen.model, chosen.size, chosen.threads)
            if chosen.rows:
                chosen.rows.write_text(json.dumps(kept))
    report(kept)


def report(kept: dict[str, list[Row]]) -> None:
    """Print each score, and the choice on halves."""
    shares: dict[str, dict[str, float]] = {}
    print(f"{len(kept)} sequences, {sum(map(len, kept.values()))} frames, lists of {FRAMES_SHOWN}")
    print(f"{'score':20} {'attained':>9} {'rho':>6}")
    for title, scorer in SCORERS.items():
        worst = {name: [1 - row[4] for row in rows] for name, rows in kept.items()}
        scores = {name: scorer(rows) for name, rows in kept.items()}
        shares[title] = {name: 100 * attained(scores[name], worst[name]) for name in kept}
        rho = np.mean([correlation(scores[name], worst[name]) for name in kept])
        print(f"{title:20} {np.mean(list(shares[title].values())):8.0f}% {rho:6.2f}")
    for choice in choose(shares):
        there, here = f"{choice.score_there:.0f}%", f"{choice.held_out_score:.0f}%"
        print(f"best on one half: {choice.name}, {there}; on the other half {here}")


if __name__ == "__main__":
    main()
