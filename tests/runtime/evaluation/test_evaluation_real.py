"""The main job on real video: checkpoint, export, tracker, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from support import kept_export

from maskring.models import open_tracker
from maskring.runtime.evaluation.protocol import SequenceTracker, evaluate
from maskring.runtime.evaluation.report import Evaluation
from maskring.training.weights import shipped_checkpoint

SEQUENCES = ("rollerblade", "dog-agility")
SIZE = 120


class FirstMask:
    """The baseline: whatever happens, the first mask."""

    def __init__(self) -> None:
        self.mask = np.zeros(0, np.uint8)

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> SimpleNamespace:
        self.mask = self.mask if mask is None else mask
        return SimpleNamespace(labels=self.mask)

    def close(self) -> None:
        """Nothing to release."""


def test_tracking_beats_repeating_the_first_mask(shared_data: Path, tmp_path: Path) -> None:
    """On each of two real sequences, by both measures."""
    root = tmp_path / "davis"
    (root / "ImageSets/2016").mkdir(parents=True)
    (root / "ImageSets/2016/two.txt").write_text("\n".join(SEQUENCES))
    for kind in ("JPEGImages", "Annotations"):
        (root / kind).symlink_to(shared_data / "davis_dev" / kind)
    model = kept_export(shipped_checkpoint(), tmp_path / "model.onnx")

    def run(name: str, new_tracker: Callable[[], SequenceTracker]) -> Evaluation:
        return evaluate(root, "two", new_tracker, tmp_path / name, tmp_path / f"{name}.json", size=SIZE)

    tracked = run("tracked", lambda: open_tracker(model))
    repeated = run("repeated", FirstMask)
    for ours, baseline in zip(tracked.sequences, repeated.sequences, strict=True):
        assert ours.score is not None and baseline.score is not None
        assert ours.score.j.mean > baseline.score.j.mean, ours.name
        assert ours.score.f.mean > baseline.score.f.mean, ours.name
