"""How offline refinement joins the U-Net and propagation: J&F by the trust in the U-Net, and by when memory follows it.

A row `0.6/0.7` gives the U-Net a weight of 0.6, and lets memory take the refined mask where both masks overlap by less
than 0.7. The U-Net is adapted once to each sequence; the second pass is repeated for each row. Choices are reported by
the other half of the sequences. With `--scores FOLDER`, sequences that were measured before are not measured again.

    python bench/refinement_fusion.py --davis ROOT --split dev20 --model pico --scores runs/fusion
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from halves import held_out_table

from maskring.common.types import Image, Labels
from maskring.models import open_tracker
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import DatasetSequence, load_split
from maskring.runtime.evaluation.measures import boundary_accuracy, boundary_tolerance
from maskring.runtime.refinement import guard
from maskring.runtime.refinement.offline import OfflineRefiner
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask

ROWS = ("0.6/0", "0.5/0.7", "0.6/0.7", "0.7/0.7")

Truth = dict[int, Labels]


def j_and_f(labels: Labels, truth: Labels) -> float:
    """J&F in percent of all objects as one."""
    predicted, true = labels > 0, truth > 0
    accuracy = boundary_accuracy(predicted, true, boundary_tolerance(*true.shape))
    return 50 * (intersection_over_union(predicted, true) + accuracy)


def measure(sequence: DatasetSequence, model: Path, iterations: int, rows: Sequence[str]) -> dict[str, float]:
    """J&F in percent without refinement and by row."""
    annotations, settings = Annotations.of(sequence), RefinementSettings(iterations=iterations)
    frames: list[Image] = [read_image(path) for path in sequence.frames[annotations.start :]]
    truth = {
        index - annotations.start: read_mask(sequence.annotations[index], allow_empty=True)
        for index in sorted(sequence.annotations)[1:-1]
    }
    scores: dict[str, list[float]] = {name: [] for name in ("off", *rows)}
    with OfflineRefiner(open_tracker(model, threads=1), settings) as refiner:
        for position, frame in enumerate(frames):
            result = refiner.step(frame, annotations.introduced(position + annotations.start))
            if position in truth:
                scores["off"].append(j_and_f(result.labels, truth[position]))
        refiner.adapt()
        for row in rows:
            trust, agreement = map(float, row.split("/"))
            refiner._guard.trust, guard.AGREEMENT = trust, agreement
            for position, frame in enumerate(frames):
                result = refiner.refine(frame)
                if position in truth:
                    scores[row].append(j_and_f(result.labels, truth[position]))
            refiner.rewind()
    return {name: float(np.mean(values)) for name, values in scores.items()}


def measured_once(
    sequences: Sequence[DatasetSequence], model: Path, iterations: int, rows: Sequence[str], kept: Path | None
) -> dict[str, dict[str, float]]:
    """J&F by row and sequence; what the folder ``kept`` holds is read from there."""
    table: dict[str, dict[str, float]] = {name: {} for name in ("off", *rows)}
    for sequence in sequences:
        file = kept / f"{sequence.name}.json" if kept else None
        scores = json.loads(file.read_text()) if file and file.exists() else {}
        if missing := [row for row in rows if row not in scores]:
            scores |= measure(sequence, model, iterations, missing)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(scores))
        for name, row in table.items():
            row[sequence.name] = scores[name]
        print(sequence.name, *(f"{name}: {scores[name]:.1f}" for name in table), flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20")
    parser.add_argument("--model", type=Path, default=Path("pico"))
    parser.add_argument("--iterations", type=int, default=RefinementSettings().iterations)
    parser.add_argument("--rows", nargs="+", default=ROWS, help="TRUST/AGREEMENT")
    parser.add_argument("--scores", type=Path, help="folder that keeps the scores of each sequence")
    chosen = parser.parse_args()
    sequences = load_split(chosen.davis, chosen.split)
    table = measured_once(sequences, chosen.model, chosen.iterations, chosen.rows, chosen.scores)
    print("\n" + held_out_table(table))


if __name__ == "__main__":
    main()
