"""Evaluation: what the tracker is told, what is written, and how a folder of masks scores."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_runs import (
    FRAMES,
    HEIGHT,
    WIDTH,
    Baseline,
    davis,
    run,
    vos_benchmark,
    write_palette,
    write_white,
    write_white_with_alpha,
    youtube_vos,
)
from PIL import Image
from pixel_backend import PixelBackend
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.evaluation.protocol import evaluate
from maskring.runtime.evaluation.report import COLUMNS
from maskring.runtime.evaluation.scoring import score_annotations
from maskring.runtime.pipeline.edits import Edits
from maskring.runtime.pipeline.loop import track
from maskring.runtime.pipeline.resized import ResizedTracker
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.sinks import MaskFolderSink
from maskring.runtime.video.synthetic import render_clip


def test_only_the_first_mask_is_given(mixed: Path) -> None:
    _, _, (many, one) = run(mixed)
    assert list(many.prompts) == [0] and set(np.unique(many.prompts[0])) == {0, 1, 2, 3}
    assert list(one.prompts) == [0] and set(np.unique(one.prompts[0])) == {0, 255}
    assert len(many.frames) == FRAMES
    assert many.closed and one.closed


def test_frames_come_in_rgb_and_in_order(tmp_path: Path) -> None:
    root = davis(tmp_path / "davis", {"clip": write_palette})
    _, _, (tracker,) = run(root)
    for seen, (image, _) in zip(tracker.frames, render_clip(HEIGHT, WIDTH, FRAMES, 0), strict=True):
        assert np.abs(seen.astype(int) - image).mean() < 12  # what JPEG changes


def test_predictions_have_the_form_of_the_annotations(mixed: Path) -> None:
    _, out, _ = run(mixed)
    for name, mode, ids in (("many", "P", {0, 1, 2, 3}), ("one", "L", {0, 255})):
        files = sorted((out / name).iterdir())
        assert [path.name for path in files] == [f"{index:05d}.png" for index in range(FRAMES)]
        for path in files:
            picture = Image.open(path)
            assert picture.mode == mode and picture.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.array(picture))) == ids


def test_white_masks_with_alpha(tmp_path: Path) -> None:
    """One file of DAVIS-2016 has an alpha channel; it scores as if it had none."""
    scores = []
    for name, write in (("plain", write_white), ("alpha", write_white_with_alpha)):
        evaluation, _, _ = run(davis(tmp_path / name / "davis", {"clip": write}))
        scores.append(evaluation.sequences[0].objects)
    assert scores[0] == scores[1] and set(scores[0]) == {255}


def test_one_object_in_a_palette_keeps_its_index(tmp_path: Path) -> None:
    def write_first(path: Path, labels: np.ndarray) -> None:
        write_mask(path, (labels == 1).astype(np.uint8))

    evaluation, out, _ = run(davis(tmp_path / "davis", {"clip": write_first}))
    assert set(evaluation.sequences[0].objects) == {1}
    assert Image.open(out / "clip/00000.png").mode == "P"


def test_a_white_entry_of_a_palette_is_no_white_mask(tmp_path: Path) -> None:
    """Object 1 may have any colour."""

    def write_white_palette(path: Path, labels: np.ndarray) -> None:
        picture = Image.fromarray((labels == 1).astype(np.uint8)).convert("P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(path)

    evaluation, _, _ = run(davis(tmp_path / "davis", {"clip": write_white_palette}))
    assert set(evaluation.sequences[0].objects) == {1}


def test_the_first_mask_decides_the_form_of_all(tmp_path: Path) -> None:
    def write_first_as_palette(path: Path, labels: np.ndarray) -> None:
        one = (labels == 1).astype(np.uint8)
        (write_palette if path.name == "00000.png" else write_white)(path, one)

    evaluation, _, _ = run(davis(tmp_path / "davis", {"clip": write_first_as_palette}))
    assert set(evaluation.sequences[0].objects) == {1}


@pytest.mark.parametrize("size", [45, 120])
def test_tracking_at_another_size(tmp_path: Path, size: int) -> None:
    """The tracker works at that size; masks come back at the annotations', their centres in place."""
    root = davis(tmp_path / "davis", {"clip": write_palette})
    _, out, (tracker,) = run(root, size=size)
    assert {frame.shape for frame in tracker.frames} == {(size, round(size * WIDTH / HEIGHT), 3)}
    first = np.array(Image.open(root / "Annotations/480p/clip/00000.png"))
    back = np.array(Image.open(out / "clip/00000.png"))
    assert back.shape == first.shape
    for key in (1, 2, 3):
        moved = np.argwhere(back == key).mean(0) - np.argwhere(first == key).mean(0)
        assert np.abs(moved).max() < 0.25


@pytest.mark.parametrize("size", [45, 120, None])
def test_evaluate_and_track_write_the_same_masks(tmp_path: Path, size: int | None) -> None:
    root = davis(tmp_path / "davis", {"clip": write_palette})
    frames, first = root / "JPEGImages/480p/clip", root / "Annotations/480p/clip/00000.png"
    tracked = tmp_path / "tracked"
    with open_source(frames) as source, Tracker(PixelBackend()) as tracker, MaskFolderSink(tracked) as sink:
        seen = tracker if size is None else ResizedTracker(tracker, size)
        track(source, seen, [sink], Edits({0: read_mask(first)}))
    out = tmp_path / "out"
    evaluate(root, "val", lambda: Tracker(PixelBackend()), out, tmp_path / "scores.json", size=size)
    names = [path.name for path in sorted(tracked.iterdir())]
    assert len(names) == FRAMES
    for name in names:
        labels = read_mask(tracked / name)
        assert set(np.unique(labels)) > {0, 1}
        np.testing.assert_array_equal(read_mask(out / "clip" / name), labels)


def test_frames_at_another_resolution_than_the_annotations(tmp_path: Path) -> None:
    root = davis(tmp_path / "davis", {"clip": write_palette})
    large = root / "JPEGImages/Full-Resolution/clip"
    large.mkdir(parents=True)
    for path in (root / "JPEGImages/480p/clip").iterdir():
        frame = cv2.imread(str(path))
        cv2.imwrite(str(large / path.name), cv2.resize(frame, (2 * WIDTH, 2 * HEIGHT)))
        path.unlink()
    (root / "JPEGImages/480p/clip").rmdir()
    evaluation, out, (tracker,) = run(root)
    assert tracker.frames[0].shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert tracker.prompts[0].shape == (2 * HEIGHT, 2 * WIDTH)
    assert Image.open(out / "clip/00003.png").size == (WIDTH, HEIGHT)
    assert len(evaluation.sequences[0].objects) == 3


def test_objects_that_appear_later_are_given_when_they_do(tmp_path: Path) -> None:
    everything = {1, 2, 3}
    root = youtube_vos(tmp_path / "data", {2: {1}, 4: {1, 3}, 8: everything, 9: everything, 11: everything})
    evaluation, out, (tracker,) = run(root, "valid")
    told = {index: set(np.unique(mask)) - {0} for index, mask in tracker.prompts.items()}
    assert told == {0: {1}, 2: {3}, 6: {2}}  # counted from frame 2, the first one tracked
    assert len(tracker.frames) == 10 and evaluation.sequences[0].frames == 10
    assert len(list((out / "0a1b").iterdir())) == 12
    assert not np.array(Image.open(out / "0a1b/00001.png")).any()
    assert set(evaluation.sequences[0].objects) == {1, 2, 3}
    j, f = vos_benchmark(root / "valid/Annotations", out, "0a1b")
    assert {key: score.jf for key, score in evaluation.sequences[0].objects.items()} == pytest.approx(
        {key: (j[key] + f[key]) / 2 for key in j}, abs=1e-9
    )


def test_masks_that_only_introduce_objects_are_no_truth(tmp_path: Path) -> None:
    """As in YouTube-VOS valid: predictions are written, scores are null rather than meaningless."""
    evaluation, out, _ = run(youtube_vos(tmp_path / "data", {0: {1}, 3: {3}, 9: {2}}), "valid")
    assert evaluation.sequences[0].objects == {} and evaluation.score is None
    assert len(list((out / "0a1b").iterdir())) == 12
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["global"] == {"J&F": None, "J": None, "F": None}
    assert evaluation.rows()[-1][2] == "-"


def test_json_holds_the_evaluation(mixed: Path) -> None:
    evaluation, _, _ = run(mixed)
    document = json.loads((mixed.parent / "scores.json").read_text())
    assert document["split"] == "val" and document["size"] is None and document["unit"] == "percent"
    score = evaluation.score
    assert score is not None
    assert document["global"]["J&F"] == score.jf
    assert document["global"]["J"] == {"mean": score.j.mean, "recall": score.j.recall, "decay": score.j.decay}
    many = document["sequences"]["many"]
    assert set(many["objects"]) == {"1", "2", "3"} and many["frames"] == FRAMES and many["fps"] > 0
    assert many["objects"]["2"]["F"]["mean"] == evaluation.sequences[0].objects[2].f.mean
    assert many["J"]["mean"] == np.mean([many["objects"][key]["J"]["mean"] for key in "123"])


def test_rows_fit_their_heads(mixed: Path) -> None:
    evaluation, _, _ = run(mixed)
    rows = evaluation.rows()
    assert [row[:2] for row in rows] == [("many", "3"), ("one", "1"), ("all", "4")]
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert evaluation.score is not None
    assert rows[-1][2] == f"{evaluation.score.jf:.1f}"


def test_progress_counts_all_frames_of_the_split(mixed: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []

    def on_frame(*call: object) -> None:
        calls.append(call)  # type: ignore[arg-type]

    evaluate(mixed, "val", Baseline, tmp_path / "out", tmp_path / "scores.json", progress=on_frame)
    assert calls == [
        ("many" if done <= FRAMES else "one", done, 2 * FRAMES) for done in range(1, 2 * FRAMES + 1)
    ]


def test_speed_is_that_of_the_tracker_alone(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances half a second whenever it is looked at, and ten in between frames."""
    seen = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: 10 * ((look := next(seen)) // 2) + 0.5 * (look % 2))
    evaluation, _, _ = run(mixed)
    assert [result.fps for result in evaluation.sequences] == [2, 2]
    assert evaluation.fps == 2


def test_scoring_a_folder_of_ones_own(mixed: Path) -> None:
    many, one = load_split(mixed, "val")
    perfect = score_annotations(Annotations.of(many), mixed / "Annotations/480p/many")
    assert [(score.jf, score.j.recall, score.j.decay) for score in perfect.values()] == [(100, 100, 0)] * 3
    assert score_annotations(Annotations.of(one), mixed / "Annotations/480p/one")[255].jf == 100


def test_scoring_an_incomplete_folder(mixed: Path, tmp_path: Path) -> None:
    many, _ = load_split(mixed, "val")
    with raises_user_error(MaskError, mentions=("00001.png",)):
        score_annotations(Annotations.of(many), tmp_path)


def test_scoring_masks_of_another_size(mixed: Path, tmp_path: Path) -> None:
    many, _ = load_split(mixed, "val")
    for index in range(FRAMES):
        write_mask(tmp_path / f"{index:05d}.png", np.ones((HEIGHT // 2, WIDTH), np.uint8))
    with raises_user_error(MaskError, mentions=("00001.png", "size")):
        score_annotations(Annotations.of(many), tmp_path)
