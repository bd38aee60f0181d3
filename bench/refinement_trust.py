"""How far to trust the U-Net of offline refinement: J&F by the weight of the U-Net.

Each sequence is tracked once, and the U-Net is adapted to it once; only the fusion is repeated. Choices are reported by
the other half of the sequences. With `--scores FOLDER`, sequences that were measured before are not measured again.

    python bench/refinement_trust.py --davis ROOT --split dev20 --model pico --scores runs/trust
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from halves import held_out_table

from maskring.models import open_tracker
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import DatasetSequence, load_split
from maskring.runtime.evaluation.measures import SequenceScorer
from maskring.runtime.refinement.offline import OfflineRefiner
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask

TRUSTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Remembered:
    """The U-Net's answers for a frame, which do not depend on the trust."""

    def __init__(self, refiner: OfflineRefiner) -> None:
        predictor: Any = refiner.predictor
        self._predict, predictor.predict = predictor.predict, self
        self._answers: dict[bool, Any] = {}

    def forget(self) -> None:
        """Begin another frame."""
        self._answers.clear()

    def __call__(self, image: Any, ids: Any, *, mirrored: bool = False) -> Any:
        if mirrored not in self._answers:
            self._answers[mirrored] = self._predict(image, ids, mirrored=mirrored)
        return self._answers[mirrored]


def measure(sequence: DatasetSequence, model: Path, iterations: int) -> dict[str, float]:
    """J&F in percent without refinement and by trust."""
    annotations, settings = Annotations.of(sequence), RefinementSettings(iterations=iterations)
    frames = range(annotations.start, len(sequence.frames))
    scorers = {name: SequenceScorer() for name in ("off", *map(str, TRUSTS))}
    with OfflineRefiner(open_tracker(model, threads=1), settings) as refiner:
        for index in frames:
            refiner.step(read_image(sequence.frames[index]), annotations.introduced(index))
        refiner.adapt()
        remembered = Remembered(refiner)
        for position, index in enumerate(frames):
            if index not in sorted(sequence.annotations)[1:-1]:
                continue
            frame, truth = (
                read_image(sequence.frames[index]),
                read_mask(sequence.annotations[index], allow_empty=True),
            )
            remembered.forget()
            scorers["off"].add(refiner._store.read(position).labels, truth)
            for trust in TRUSTS:
                refiner._guard.trust = trust
                scorers[str(trust)].add(refiner.refine(frame, position).labels, truth)
    return {
        name: 100 * float(np.mean([score.jf for score in scorer.scores().values()]))
        for name, scorer in scorers.items()
    }


def measured_once(
    sequences: Sequence[DatasetSequence], model: Path, iterations: int, folder: Path | None
) -> dict[str, dict[str, float]]:
    """J&F by row and sequence; what ``folder`` holds is read from there."""
    table: dict[str, dict[str, float]] = {}
    for sequence in sequences:
        kept = folder / f"{sequence.name}.json" if folder else None
        if kept and kept.exists():
            scores = json.loads(kept.read_text())
        else:
            scores = measure(sequence, model, iterations)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(scores))
        print(sequence.name, *(f"{name}: {score:.1f}" for name, score in scores.items()), flush=True)
        for name, score in scores.items():
            table.setdefault(name, {})[sequence.name] = score
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20")
    parser.add_argument("--model", type=Path, default=Path("pico"))
    parser.add_argument("--iterations", type=int, default=RefinementSettings().iterations)
    parser.add_argument("--scores", type=Path, help="folder that keeps the scores of each sequence")
    options = parser.parse_args()
    sequences = load_split(options.davis, options.split)
    print(held_out_table(measured_once(sequences, options.model, options.iterations, options.scores)))


if __name__ == "__main__":
    main()
