"""``maskring score``: masks of any tracker get the figures that vos-benchmark prints for them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from user_errors import assert_command_error, raises_user_error
from vos_benchmark.benchmark import VideoEvaluator

from maskring.cli import app
from maskring.common.errors import MaskError, SourceError
from maskring.runtime.evaluation.scoring import score_predictions
from maskring.runtime.video.masks import write_mask
from maskring.runtime.video.palette import PALETTE

HEIGHT, WIDTH, FRAMES = 60, 90, 7


def truth(seed: int, index: int) -> np.ndarray:
    """Three discs that move; the third appears late, the second leaves."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in (1, 2, 3):
        x, y = rng.integers(10, 80), rng.integers(10, 50)
        if not (number == 2 and index > 4) and not (number == 3 and index < 2):
            cv2.circle(ids, (int(x) + index, int(y)), 6 + number, number, -1)
    return ids


def predicted(seed: int, index: int) -> np.ndarray:
    """The truth, shifted, with specks and an object that nobody annotated."""
    ids = np.roll(truth(seed, index), (index - 2, 2), (0, 1))
    rng = np.random.default_rng([seed, index])
    ids[rng.random(ids.shape) < 0.01] = 2
    ids[:3, :3] = 4
    return ids


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset without frames, of the sequences ``a`` and ``b``, and predictions for both."""
    for seed, name in enumerate("ab"):
        for kind, ids_of in (("davis/Annotations/480p", truth), ("predicted", predicted)):
            (tmp_path / kind / name).mkdir(parents=True)
            for index in range(FRAMES):
                write_mask(tmp_path / kind / name / f"{index:05d}.png", ids_of(seed, index))
    (tmp_path / "davis/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "davis/ImageSets/2017/val.txt").write_text("a\nb\n")
    return tmp_path / "davis", tmp_path / "predicted"


def ours(root: Path, masks: Path, split: str | None = None) -> dict[str, dict[int, tuple[float, float]]]:
    return {
        result.name: {number: (score.j.mean, score.f.mean) for number, score in result.objects.items()}
        for result in score_predictions(masks, root, split).evaluation.sequences
    }


def theirs(annotations: Path, masks: Path, name: str) -> dict[int, tuple[float, float]]:
    j, f = VideoEvaluator(str(annotations), str(masks))(name)[1:]
    return {number: pytest.approx((j[number], f[number]), abs=1e-9) for number in j}


@pytest.mark.parametrize("split", [None, "val"])
def test_equals_vos_benchmark(folders: tuple[Path, Path], split: str | None) -> None:
    root, masks = folders
    scores = ours(root, masks, split)
    assert list(scores) == ["a", "b"]
    for name, of_sequence in scores.items():
        assert set(of_sequence) == {1, 2, 3}
        assert of_sequence == theirs(root / "Annotations/480p", masks, name)


@pytest.mark.parametrize("place", ["davis", "davis/Annotations", "davis/Annotations/480p"])
def test_the_root_may_be_any_folder_above_the_sequences(
    folders: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    assert ours(tmp_path / place, folders[1]) == ours(*folders)


def test_equals_vos_benchmark_on_real_annotations(shared_data: Path, tmp_path: Path) -> None:
    """The masks of the frame before, as predictions."""
    annotations = shared_data / "davis_dev/Annotations/480p"
    for name in ("schoolgirls", "surf"):
        (tmp_path / name).mkdir()
        files = sorted((annotations / name).iterdir())[:12]
        for file, before in zip(files, [files[0], *files], strict=False):
            shutil.copy(before, tmp_path / name / file.name)
            (tmp_path / "Annotations" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "Annotations" / name / file.name)
    for name, of_sequence in ours(tmp_path / "Annotations", tmp_path).items():
        assert of_sequence and of_sequence == theirs(tmp_path / "Annotations", tmp_path, name)


def test_void_is_left_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, masks = folders
    plain = tmp_path / "plain"
    for name in "ab":
        for path in sorted((root / "Annotations/480p" / name).iterdir()):
            ids = np.array(Image.open(path))
            void = cv2.dilate((ids > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > (ids > 0)
            image = Image.open(path)
            image.paste(255, mask=Image.fromarray(void))
            image.save(path)
            prediction = masks / name / path.name
            for folder, kept in (("truth", ids), ("masks", np.array(Image.open(prediction)))):
                (plain / folder / name).mkdir(parents=True, exist_ok=True)
                write_mask(plain / folder / name / path.name, np.where(void, 0, kept).astype(np.uint8))
    for name, of_sequence in ours(root, masks).items():
        assert of_sequence == theirs(plain / "truth", plain / "masks", name)


def test_folders_of_objects(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """SA-V: each object by itself."""
    root, masks = folders
    for kind, source in (("sav/Annotations_6fps", root / "Annotations/480p"), ("sav_masks", masks)):
        for path in source.glob("*/*.png"):
            for number in (1, 2, 3):
                folder = tmp_path / kind / path.parent.name / f"{number - 1:03d}"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.array(Image.open(path)) == number).save(folder / path.name)
    for name, of_sequence in ours(tmp_path / "sav", tmp_path / "sav_masks").items():
        assert set(of_sequence) == {0, 1, 2}
        for number in of_sequence:
            places = (tmp_path / kind / name for kind in ("sav/Annotations_6fps", "sav_masks"))
            (expected,) = theirs(*places, f"{number:03d}").values()  # type: ignore[arg-type]
            assert of_sequence[number] == expected


def test_what_label_writes(folders: tuple[Path, Path]) -> None:
    root, masks = folders
    expected = ours(root, masks)
    for name in "ab":
        (masks / name).rename(masks / "moved")
        (masks / name).mkdir()
        (masks / "moved").rename(masks / name / "masks")
        (masks / name / "objects.jsonl").touch()
    assert ours(root, masks) == expected


def test_sequences_without_predictions_are_named(folders: tuple[Path, Path]) -> None:
    root, masks = folders
    shutil.rmtree(masks / "b")
    scoring = score_predictions(masks, root)
    assert [result.name for result in scoring.evaluation.sequences] == ["a"]
    assert scoring.without_prediction == ["b"]
    with raises_user_error(SourceError, mentions=(masks, "b")):
        score_predictions(masks, root, "val")
    with raises_user_error(SourceError, mentions=(masks / "a", "folder per sequence")):
        score_predictions(masks / "a", root)


def test_what_is_incomplete(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, masks = folders
    with raises_user_error(SourceError, mentions=(root, "test")):
        score_predictions(masks, root, "test")
    with raises_user_error(SourceError, mentions=(tmp_path / "none",)):
        score_predictions(tmp_path / "none", root)
    with raises_user_error(MaskError, mentions=(tmp_path / "empty",)):
        (tmp_path / "empty").mkdir()
        score_predictions(masks, tmp_path / "empty")
    (masks / "b/00003.png").unlink()
    with raises_user_error(MaskError, mentions=(masks / "b/00003.png",)):
        score_predictions(masks, root)


def recoloured(folder: Path, colours: list[tuple[int, int, int]]) -> None:
    """Replace the palette masks of a folder by RGB pictures."""
    for path in folder.glob("*/*.png"):
        with Image.open(path) as picture:
            indices = np.asarray(picture)
        Image.fromarray(np.array(colours, np.uint8)[indices]).save(path)


def test_predictions_in_colours(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Colours of the DAVIS palette, and those of the annotations, are numbers; others are none."""
    root, masks = folders
    expected = ours(root, masks)
    recoloured(masks, [tuple(colour) for colour in PALETTE[:5].tolist()])
    assert ours(root, masks) == expected
    shutil.rmtree(masks)
    shutil.copytree(root / "Annotations/480p", masks)
    free = [(0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0)]
    recoloured(masks, free)
    with raises_user_error(MaskError, mentions=(masks / "a", "colours", "number")):
        ours(root, masks)
    recoloured(root / "Annotations/480p", free)
    assert ours(root, masks) == {name: dict.fromkeys((1, 2, 3), (100.0, 100.0)) for name in "ab"}


def test_the_command(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, masks = folders
    words = ["score", str(masks), "--davis", str(root), "--json", str(tmp_path / "new/scores.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "new/scores.json").read_text())
    j, f = theirs(root / "Annotations/480p", masks, "a")[1].expected  # type: ignore[attr-defined]
    assert document["sequences"]["a"]["objects"]["1"]["J&F"] == pytest.approx((j + f) / 2)
    assert document["fps"] is None
    assert re.search(rf"all\s+6\s+{document['global']['J&F']:.1f}", done.stdout)
    shutil.rmtree(masks / "a")
    assert "without predictions: a" in CliRunner().invoke(app, words).stderr
    bad = CliRunner().invoke(app, [*words, "--split", "val"])
    assert_command_error(bad.exit_code, bad.stderr, [masks, "a"])
