"""Datasets that do not fit, results that cannot be written, and interrupted runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_runs import HEIGHT, WIDTH, Baseline, Labelled, davis, run
from user_errors import raises_user_error

from maskring.common.errors import MaskError, OutputError
from maskring.runtime.evaluation.protocol import evaluate
from maskring.runtime.video.masks import write_mask


def test_an_annotation_of_another_size(mixed: Path) -> None:
    write_mask(mixed / "Annotations/480p/many/00004.png", np.ones((HEIGHT, WIDTH + 2), np.uint8))
    with raises_user_error(MaskError, mentions=("00004.png", f"{WIDTH + 2}x{HEIGHT}", f"{WIDTH}x{HEIGHT}")):
        run(mixed)


def test_annotations_without_an_object(mixed: Path) -> None:
    for path in (mixed / "Annotations/480p/many").iterdir():
        write_mask(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    with raises_user_error(MaskError, mentions=("sequence many",)):
        run(mixed)


def test_frames_of_another_shape_than_the_annotations(mixed: Path) -> None:
    for path in (mixed / "JPEGImages/480p/many").iterdir():
        cv2.imwrite(str(path), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with raises_user_error(MaskError, mentions=(f"{HEIGHT}x{WIDTH}", f"{WIDTH}x{HEIGHT}")):
        run(mixed)
    assert not (mixed.parent / "out").exists()


def test_an_object_too_small_for_the_size(tmp_path: Path) -> None:
    def write_dot(path: Path, labels: np.ndarray) -> None:
        dot = np.zeros_like(labels)
        dot[1, 1] = 1
        write_mask(path, dot)

    with raises_user_error(MaskError, mentions=("36x20", "larger size")):
        run(davis(tmp_path / "davis", {"clip": write_dot}), size=20)


def test_json_in_the_way(mixed: Path, tmp_path: Path) -> None:
    """Found out before hours of tracking, not after."""
    (tmp_path / "scores.json").mkdir()
    tracker = Baseline()
    with raises_user_error(OutputError, mentions=(tmp_path / "scores.json",)):
        evaluate(mixed, "val", lambda: tracker, tmp_path / "out", tmp_path / "scores.json")
    assert tracker.frames == []


class Failing(Baseline):
    """Is interrupted at the fourth frame."""

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Labelled:
        if len(self.frames) == 3:
            raise KeyboardInterrupt
        return super().step(frame, mask)


def test_an_interrupted_run_leaves_whole_masks_and_no_scores(mixed: Path, tmp_path: Path) -> None:
    tracker = Failing()
    with pytest.raises(KeyboardInterrupt):
        evaluate(mixed, "val", lambda: tracker, tmp_path / "out", tmp_path / "scores.json")
    assert tracker.closed
    written = sorted(path.name for path in (tmp_path / "out/many").iterdir())
    assert written == ["00000.png", "00001.png", "00002.png"]
    assert not (tmp_path / "scores.json").exists()
