"""What an object that is added later costs the other objects, and what the search of memory saves.

A mask that only adds objects is followed backwards through memory: the tracker looks for the new objects in the
frames that it holds, which then vote for all objects. Version 0.1.0 restarted memory instead.

    python bench/late_objects.py --davis ROOT horsejump-low scooter-gray lucia --size 240 --late 25 30

At each frame of ``--late``, a mask adds an object that plays no part in the scene: a disc of background, as far
from the first object as possible. The score is J of the first object over the later frames, in percent.

    python bench/late_objects.py --davis ROOT --split dev schoolgirls --size 240 --late 20 --hold 1 4 7

Of a sequence with several objects, one is added at the frame of ``--late`` only. Scores are J of the others,
and of this one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from feature_tracker import PATCH, encoder_features
from numpy.typing import NDArray

from maskring.common.types import Labels
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.arrays.resizing import majority, scaled_to
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import DatasetSequence, load_split
from maskring.runtime.tracking.objects import ObjectTable, ids_in
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask
from maskring.training.checkpoint import AffinitySettings, load_checkpoint
from maskring.training.feature_backend import FeatureBackend, Features
from maskring.training.weights import shipped_checkpoint


class RestartingTracker(Tracker):
    """A tracker that forgets all frames before a mask, as version 0.1.0 does."""

    def _remember_mask(self, slot: int, ids: list[int], objects: ObjectTable) -> None:
        self._ring.restart()


def disc(object_mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A disc of background, as far from the object and from the border as possible."""
    distance = cv2.distanceTransform(np.pad(~object_mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    radius = int(min(distance.max() / 2, object_mask.shape[0] / 8))
    drawn = np.zeros(object_mask.shape, np.uint8)
    cv2.circle(drawn, (int(column), int(row)), radius, 1, -1)
    return drawn > 0


def nearest(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Resize labels to ``shape`` (H, W) by nearest-neighbour sampling."""
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def scored_masks(sequence: DatasetSequence) -> dict[int, Path]:
    """Annotated frames that count: all but the first and the last."""
    return dict(sorted(sequence.annotations.items())[1:-1])


def score_with_disc(
    sequence: DatasetSequence, tracker: Tracker, size: int, late: int | None, after: int
) -> tuple[float, float]:
    """Track the first object; at frame ``late``, if any, a mask adds a disc of background as an object.

    Returns:
        Mean J in percent of the first object over the frames after ``after``; and the area of the disc in the
        last frame, relative to its mask, nan without a disc.
    """
    annotations, masks, overlaps, area = Annotations.of(sequence), scored_masks(sequence), [], 0
    start = annotations.start
    with closing(tracker):
        for index in range(start, len(sequence.frames)):
            frame = scaled_to(read_image(sequence.frames[index]), size)
            mask = None
            if index == start:
                first = annotations.introduced(index)
                assert first is not None
                mask = (majority(first, frame.shape) > 0).astype(np.uint8)
            elif late is not None and index == start + late:
                truth = majority(read_mask(sequence.annotations[index], allow_empty=True), frame.shape) > 0
                mask = 2 * disc(truth).astype(np.uint8)
                area = int((mask > 0).sum())
            labels = tracker.step(frame, mask).labels
            if index in masks and index > start + after:
                truth = read_mask(masks[index], allow_empty=True) > 0
                overlaps.append(intersection_over_union(truth, nearest(labels, truth.shape) == 1))
    return 100 * float(np.mean(overlaps)), (labels == 2).sum() / area if area else float("nan")


def score_with_late_object(
    sequence: DatasetSequence, tracker: Tracker, size: int, late: int, late_id: int
) -> tuple[float, float]:
    """Track all objects of a sequence, of which ``late_id`` is added at frame ``late`` only.

    Returns:
        Mean J in percent over the frames after ``late``: of the other objects, and of the late one.
    """
    annotations, masks = Annotations.of(sequence), scored_masks(sequence)
    start = annotations.start
    ids = ids_in(read_mask(sequence.annotations[start], allow_empty=True))
    overlaps: dict[int, list[float]] = {object_id: [] for object_id in ids}
    with closing(tracker):
        for index in range(start, len(sequence.frames)):
            frame, mask = scaled_to(read_image(sequence.frames[index]), size), None
            if index in (start, start + late):
                truth = majority(read_mask(sequence.annotations[index], allow_empty=True), frame.shape)
                marked = truth == late_id if index > start else truth != late_id
                mask = np.where(marked, truth, 0).astype(np.uint8)
            labels = tracker.step(frame, mask).labels
            if index in masks and index > start + late:
                truth = read_mask(masks[index], allow_empty=True)
                resized = nearest(labels, truth.shape)
                for object_id, values in overlaps.items():
                    values.append(intersection_over_union(truth == object_id, resized == object_id))
    means = {object_id: 100 * float(np.mean(values)) for object_id, values in overlaps.items()}
    return float(np.mean([mean for object_id, mean in means.items() if object_id != late_id])), means[late_id]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sequences", nargs="+")
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--split", default="dev20")
    parser.add_argument("--model", type=Path, default=shipped_checkpoint("pico"), help="checkpoint")
    parser.add_argument("--size", type=int, default=240, help="shorter side to track at")
    parser.add_argument("--late", type=int, nargs="+", default=[25, 30], help="frames of the second mask")
    parser.add_argument("--hold", type=int, nargs="+", help="objects to add late, one at a time")
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.model)
    settings = AffinitySettings(**{**asdict(checkpoint.tracking), "top_k": 0, "roi_step": 0})

    def trackers(features: Features) -> list[Tracker]:
        channels = features(np.zeros((PATCH, PATCH, 3), np.uint8))[0].shape[1]
        return [kind(FeatureBackend(features, channels, settings)) for kind in (RestartingTracker, Tracker)]

    sequences = [one for one in load_split(options.davis, options.split) if one.name in options.sequences]
    rows = late_object_rows if options.hold else disc_rows
    header = (
        (
            "sequence",
            "second mask at",
            "late object",
            "others: restarts, searched",
            "it: restarts, searched",
        )
        if options.hold
        else (
            "sequence",
            "second mask at",
            "none",
            "memory restarts",
            "memory is searched",
            "discs at the end",
        )
    )
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for sequence in sequences:
        features = encoder_features(checkpoint.query_encoder())
        rows(sequence, partial(trackers, features), options)


def disc_rows(sequence: DatasetSequence, trackers: Callable[[], list[Tracker]], options: Any) -> None:
    """Print a row per frame of the second mask, which adds a disc."""
    for late in options.late:
        without, _ = score_with_disc(sequence, trackers()[0], options.size, None, late)
        results = [score_with_disc(sequence, one, options.size, late, late) for one in trackers()]
        scores = " | ".join(f"{score:.1f}" for score in (without, *(score for score, _ in results)))
        areas = ", ".join(f"{area:.2f}" for _, area in results)
        print(f"| {sequence.name} | {late} | {scores} | {areas} |", flush=True)


def late_object_rows(sequence: DatasetSequence, trackers: Callable[[], list[Tracker]], options: Any) -> None:
    """Print a row per frame of the second mask and late object."""
    for late in options.late:
        for late_id in options.hold:
            results = [
                score_with_late_object(sequence, one, options.size, late, late_id) for one in trackers()
            ]
            cells = [", ".join(f"{score:.1f}" for score in both) for both in zip(*results, strict=True)]
            print(f"| {sequence.name} | {late} | {late_id} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
