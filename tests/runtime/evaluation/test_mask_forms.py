"""Annotations in other forms and layouts score as the same masks do in a DAVIS palette."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_runs import Write, write_clip
from PIL import Image
from pixel_backend import PixelBackend
from user_errors import raises_user_error
from vos_benchmark.benchmark import VideoEvaluator
from vos_benchmark.evaluator import Evaluator

from maskring.common.errors import MaskError, SourceError
from maskring.runtime.evaluation.annotations import Annotations
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.evaluation.protocol import evaluate
from maskring.runtime.evaluation.report import Evaluation
from maskring.runtime.evaluation.scoring import score_annotations
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.runtime.video.palette import PALETTE
from maskring.runtime.video.synthetic import render_clip

HEIGHT, WIDTH, FRAMES = 60, 90, 8

CLIP = [
    (image, np.where((labels == 1) & (index >= 4) | (labels > 2), 0, labels).astype(np.uint8))
    for index, (image, labels) in enumerate(render_clip(HEIGHT, WIDTH, FRAMES, 0))
]
"""Object 1 is gone from frame 4 on, so that a mask alone shows only object 2."""


def in_values(values: tuple[int, ...], kind: type = np.uint8) -> Write:
    return lambda path, ids: Image.fromarray(np.array(values, kind)[ids]).save(path)


def in_colours(*colours: tuple[int, int, int]) -> Write:
    return lambda path, ids: Image.fromarray(np.array(colours, np.uint8)[ids]).save(path)


def in_editors_palette(path: Path, ids: np.ndarray) -> None:
    """As an editor does that writes the colours of each file anew."""
    colours = np.array([(0, 0, 0), (0, 0, 255), (255, 0, 0)], np.uint8)
    Image.fromarray(colours[ids]).quantize(4, method=Image.Quantize.MAXCOVERAGE).save(path)


FORMS: dict[str, Write] = {
    "greys": in_values((0, 127, 255)),
    "16 bits": in_values((0, 500, 70), np.uint16),
    "colours": in_colours((0, 0, 0), (0, 0, 255), (255, 0, 0)),
    "colours of DAVIS": in_colours(*map(tuple, PALETTE[:3])),  # type: ignore[arg-type]
    "palettes of an editor": in_editors_palette,
}


def davis(root: Path, write: Write) -> Path:
    write_clip(root / "JPEGImages/480p/clip", root / "Annotations/480p/clip", CLIP, write)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("clip\n")
    return root


def run(root: Path, out: Path, split: str = "val") -> Evaluation:
    return evaluate(root, split, lambda: Tracker(PixelBackend()), out, out / "scores.json")


def scores(evaluation: Evaluation) -> list[float]:
    return sorted(score.jf for score in evaluation.sequences[0].objects.values())


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_decided_for_the_whole_sequence(form: str, tmp_path: Path) -> None:
    expected = scores(run(davis(tmp_path / "palette", write_mask), tmp_path / "a"))
    assert len(expected) == 2 and expected[0] < expected[1] < 100
    evaluation = run(davis(tmp_path / "other", FORMS[form]), tmp_path / "b")
    assert scores(evaluation) == pytest.approx(expected, abs=1e-9)


def with_void(path: Path, ids: np.ndarray) -> None:
    """A rim of void around all objects."""
    rim = cv2.dilate((ids > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > (ids > 0)
    image = Image.fromarray(np.where(rim, 255, ids).astype(np.uint8)).convert("P")
    image.putpalette(PALETTE.tobytes())
    image.save(path)


def test_void_is_neither_tracked_nor_scored(tmp_path: Path) -> None:
    """As vos-benchmark scores the maps when void is background in both."""
    root, out = davis(tmp_path / "davis", with_void), tmp_path / "out"
    evaluation = run(root, out)
    assert set(evaluation.sequences[0].objects) == {1, 2}
    theirs = Evaluator()
    for index in range(1, FRAMES - 1):
        truth = np.array(Image.open(root / f"Annotations/480p/clip/{index:05d}.png"))
        prediction = np.array(Image.open(out / f"clip/{index:05d}.png"))
        assert set(np.unique(prediction)) <= {0, 1, 2}
        theirs.feed_frame(np.where(truth == 255, 0, prediction), np.where(truth == 255, 0, truth))
    j, f = theirs.conclude()
    for number, score in evaluation.sequences[0].objects.items():
        assert (score.j.mean, score.f.mean) == pytest.approx((j[number], f[number]), abs=1e-9)


def sav(root: Path) -> Path:
    """One folder per object; object 001 overlaps object 000, and is annotated from frame 2 on."""
    write_clip(root / "JPEGImages_24fps/clip", root / "unused", CLIP, write_mask)
    for name in ("000", "001"):
        (root / "Annotations_6fps/clip" / name).mkdir(parents=True)
    for index in range(0, FRAMES, 2):
        whole = CLIP[index][1] > 0
        part = (CLIP[index][1] == 2) & (index >= 2)
        for name, mask in (("000", whole), ("001", part)):
            Image.fromarray(mask).save(root / f"Annotations_6fps/clip/{name}/{index:05d}.png")
    (root / "sav_val.txt").write_text("clip\n")
    return root


@pytest.mark.parametrize("split", ["sav_val", "val", "all"])
def test_sav_has_a_folder_per_object(tmp_path: Path, split: str) -> None:
    root, out = sav(tmp_path / "sav"), tmp_path / "out"
    evaluation = run(root, out, split)
    assert set(evaluation.sequences[0].objects) == {0, 1}
    for name, score in evaluation.sequences[0].objects.items():
        folder = f"{name:03d}"
        assert len(list((out / "clip" / folder).iterdir())) == FRAMES
        theirs = Evaluator()  # as SA-V's own evaluator, which took it over, does object by object
        for index in (2, 4):
            pair = [
                Image.open(p / "clip" / folder / f"{index:05d}.png") for p in (out, root / "Annotations_6fps")
            ]
            theirs.feed_frame(*(np.array(image) > 0 for image in pair))
        j, f = theirs.conclude()
        assert (score.j.mean, score.f.mean) == pytest.approx((j[True], f[True]), abs=1e-9)
    given = read_mask(out / "clip/001/00002.png")
    assert np.array_equal(given > 0, CLIP[2][1] == 2)


def test_lvos(tmp_path: Path) -> None:
    """Frames and masks of eight digits, of which every fifth or so is annotated; the split is a folder."""
    write_clip(tmp_path / "valid/JPEGImages/abc", tmp_path / "valid/Annotations/abc", CLIP, write_mask)
    for folder in ("JPEGImages", "Annotations"):
        for path in sorted((tmp_path / "valid" / folder / "abc").iterdir(), reverse=True):
            path.rename(path.with_name(f"{5 * int(path.stem) + 1:08d}{path.suffix}"))
    evaluation = run(tmp_path, tmp_path / "out", "valid")
    j, f = VideoEvaluator(str(tmp_path / "valid/Annotations"), str(tmp_path / "out"))("abc")[1:]
    for number, score in evaluation.sequences[0].objects.items():
        assert (score.j.mean, score.f.mean) == pytest.approx((j[number], f[number]), abs=1e-9)


@pytest.mark.parametrize("resolution", ["480p", "1080p"])
def test_published_lists_of_davis_2016(tmp_path: Path, resolution: str) -> None:
    """They name a frame and its mask per line."""
    write_clip(
        tmp_path / f"JPEGImages/{resolution}/clip",
        tmp_path / f"Annotations/{resolution}/clip",
        CLIP,
        in_values((0, 255, 255)),
    )
    lists = tmp_path / "ImageSets" / resolution
    lists.mkdir(parents=True)
    lines = [
        f"/JPEGImages/{resolution}/clip/{index:05d}.jpg /Annotations/{resolution}/clip/{index:05d}.png \n"
        for index in range(FRAMES)
    ]
    (lists / "val.txt").write_text("".join(lines))
    evaluation = run(tmp_path, tmp_path / "out")
    assert [result.name for result in evaluation.sequences] == ["clip"]
    assert set(evaluation.sequences[0].objects) == {255}


def test_a_list_cannot_lead_out_of_the_dataset(tmp_path: Path) -> None:
    root = davis(tmp_path, write_mask)
    (root / "ImageSets/2017/val.txt").write_text(
        "/JPEGImages/480p/../00000.jpg /Annotations/480p/../00000.png\n"
    )
    with raises_user_error(SourceError, mentions=("val.txt", "..")):
        load_split(root, "val")


def test_white_masks_among_numbered_ones(tmp_path: Path) -> None:
    root = davis(tmp_path, write_mask)
    path = root / "Annotations/480p/clip/00005.png"
    Image.fromarray(np.where(CLIP[5][1] > 0, 255, 0).astype(np.uint8)).save(path)
    with raises_user_error(MaskError, mentions=(path, "number")):
        run(root, tmp_path / "out")


def predictions(folder: Path, save: Write) -> Path:
    folder.mkdir()
    for index, (_, ids) in enumerate(CLIP):
        save(folder / f"{index:05d}.png", ids)
    return folder


@pytest.mark.parametrize("form", ["colours of DAVIS", "palette", "values"])
def test_predictions_in_another_form(form: str, tmp_path: Path) -> None:
    (sequence,) = load_split(davis(tmp_path / "davis", write_mask), "val")
    save = {"palette": write_mask, "values": in_values((0, 1, 2))}.get(form) or FORMS[form]
    scored = score_annotations(Annotations.of(sequence), predictions(tmp_path / "p", save))
    assert {number: score.jf for number, score in scored.items()} == {1: 100, 2: 100}


def test_one_object_may_be_named_or_not(tmp_path: Path) -> None:
    (sequence,) = load_split(davis(tmp_path / "davis", in_values((0, 255, 255))), "val")
    for number, save in enumerate((in_values((0, 255, 255)), in_values((0, 1, 1)), in_values((0, 3, 3)))):
        scored = score_annotations(Annotations.of(sequence), predictions(tmp_path / str(number), save))
        assert {number: score.jf for number, score in scored.items()} == {255: 100}


def test_predictions_of_other_objects_are_no_zero(tmp_path: Path) -> None:
    (sequence,) = load_split(davis(tmp_path / "davis", write_mask), "val")
    folder = predictions(tmp_path / "p", in_values((0, 7, 8)))
    with raises_user_error(MaskError, mentions=(folder, "7, 8", "1, 2")):
        score_annotations(Annotations.of(sequence), folder)
    white = predictions(tmp_path / "w", in_values((0, 255, 255)))
    with raises_user_error(MaskError, mentions=(white, "white")):
        score_annotations(Annotations.of(sequence), white)
