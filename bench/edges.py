"""What the guided filter is worth: J and F of labels along the edges of colours, by the radius of the filter.

The sequences are tracked once. The probabilities of each frame are turned into labels by bilinear interpolation
(radius 0) and by filters of several radii; memory is the same for all. Choices are reported by the other half.

    python bench/edges.py --davis ROOT --split dev20 --model pico --every 6
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from halves import held_out_table

from maskring.common.types import FloatMaps, Image, Labels
from maskring.models import open_tracker, resolve_model
from maskring.runtime.arrays.guided_filter import guided_labels
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.arrays.upsampling import argmax_planes, best_labels_of_pixels
from maskring.runtime.backends.onnxrt.colour import normalised_lab
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import DatasetSequence, load_split
from maskring.runtime.evaluation.measures import boundary_accuracy, boundary_tolerance
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.model.step_graph import read_export
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask

RADII = (0, 1, 2, 3)


def labels_of(probabilities: FloatMaps, frame: Image, metadata: ModelMetadata, radius: int) -> Labels:
    """Labels [H, W] from probabilities [O, h, w]."""
    best, out = argmax_planes(probabilities), np.empty(frame.shape[:2], np.uint8)
    if radius == 0:
        best_labels_of_pixels(probabilities, best, metadata.stride, out=out)
    else:
        lab = np.empty((3, *frame.shape[:2]), np.float32)
        normalised_lab(frame, metadata, out=lab)
        guided_labels(probabilities, best, lab, radius, metadata.stride, out=out)
    return out


class Recorder:
    """Keeps the probabilities of the latest step of a tracker."""

    def __init__(self, tracker: Tracker) -> None:
        backend: Any = tracker._backend
        self._step, backend.step = backend.step, self
        self.probabilities = np.zeros(0, np.float32)

    def __call__(self, *given: Any) -> Any:
        labels, probabilities = self._step(*given)
        self.probabilities = np.array(probabilities, np.float32)
        return labels, probabilities


def scores(sequence: DatasetSequence, model: Path, every: int) -> dict[int, tuple[float, float]]:
    """Mean J and F in percent of all objects as one, by radius."""
    annotations, metadata = Annotations.of(sequence), read_export(model)[1]
    scored = sorted(sequence.annotations)[1:-1][::every]
    found: dict[int, list[tuple[float, float]]] = {radius: [] for radius in RADII}
    with open_tracker(model, threads=1) as tracker:
        recorder = Recorder(tracker)
        for index in range(annotations.start, len(sequence.frames)):
            frame = read_image(sequence.frames[index])
            tracker.step(frame, annotations.introduced(index))
            if index not in scored:
                continue
            truth = read_mask(sequence.annotations[index], allow_empty=True) > 0
            for radius, values in found.items():
                predicted = labels_of(recorder.probabilities, frame, metadata, radius) > 0
                accuracy = boundary_accuracy(predicted, truth, boundary_tolerance(*truth.shape))
                values.append((intersection_over_union(truth, predicted), accuracy))
    return {radius: tuple(100 * np.mean(values, axis=0)) for radius, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20")
    parser.add_argument("--model", type=Path, default=Path("pico"))
    parser.add_argument("--every", type=int, default=1, help="score every so many frames")
    options = parser.parse_args()
    model = resolve_model(options.model)
    table: dict[str, dict[str, float]] = {f"radius {radius}": {} for radius in RADII}
    for sequence in load_split(options.davis, options.split):
        measured = scores(sequence, model, options.every)
        print(sequence.name, *(f"{j:.1f}/{f:.1f}" for j, f in measured.values()), flush=True)
        for row, (j, f) in zip(table.values(), measured.values(), strict=True):
            row[sequence.name] = (j + f) / 2
    print("\n" + held_out_table(table))


if __name__ == "__main__":
    main()
