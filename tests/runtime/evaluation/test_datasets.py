"""Dataset layouts as they are found on disk, and one sentence for each way they can be incomplete."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError
from maskring.runtime.evaluation.datasets import load_split


def fill(folder: Path, suffix: str, stems: list[str]) -> None:
    """Files by name alone: listing a dataset opens no image."""
    folder.mkdir(parents=True)
    for stem in stems:
        (folder / f"{stem}{suffix}").touch()


STEMS = ["00000", "00001", "00002"]


def davis(root: Path, names: list[str], resolution: str = "480p") -> Path:
    for name in names:
        fill(root / "JPEGImages" / resolution / name, ".jpg", STEMS)
        fill(root / "Annotations" / resolution / name, ".png", STEMS)
    return root


def write_list(root: Path, year: str, split: str, text: str) -> None:
    (root / "ImageSets" / year).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / year / f"{split}.txt").write_text(text)


def test_davis(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan", "bear"])
    write_list(root, "2017", "val", "swan\nbear\n")
    swan, bear = load_split(root, "val")
    assert (swan.name, bear.name) == ("swan", "bear")
    assert [path.name for path in swan.frames] == [f"{stem}.jpg" for stem in STEMS]
    assert swan.annotations == {
        index: root / "Annotations/480p/swan" / f"{stem}.png" for index, stem in enumerate(STEMS)
    }


def test_frames_in_natural_order(tmp_path: Path) -> None:
    fill(tmp_path / "JPEGImages/480p/swan", ".jpg", ["9", "10", "8", "._8"])
    fill(tmp_path / "Annotations/480p/swan", ".png", ["10", "9", "._9"])
    write_list(tmp_path, "2017", "val", "swan\n")
    (swan,) = load_split(tmp_path, "val")
    assert [path.stem for path in swan.frames] == ["8", "9", "10"]
    assert {index: path.stem for index, path in swan.annotations.items()} == {1: "9", 2: "10"}


def test_the_list_of_2017_comes_before_that_of_2016(tmp_path: Path) -> None:
    root = davis(tmp_path, ["old", "new"])
    write_list(root, "2016", "val", "old\n")
    assert [sequence.name for sequence in load_split(root, "val")] == ["old"]
    write_list(root, "2017", "val", "new\n")
    assert [sequence.name for sequence in load_split(root, "val")] == ["new"]


def test_list_with_blank_lines_and_foreign_line_ends(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan", "bear"])
    write_list(root, "2017", "val", "\ufeffswan\r\n\r\n  bear \r\n")
    assert [sequence.name for sequence in load_split(root, "val")] == ["swan", "bear"]


def test_480p_is_preferred_to_other_resolutions(tmp_path: Path) -> None:
    for resolution in ("1080p", "480p", "Full-Resolution"):
        davis(tmp_path, ["swan"], resolution)
    write_list(tmp_path, "2017", "val", "swan\n")
    (swan,) = load_split(tmp_path, "val")
    assert swan.frames[0].parent == tmp_path / "JPEGImages/480p/swan"
    assert swan.annotations[0].parent == tmp_path / "Annotations/480p/swan"


def test_frames_and_masks_come_at_a_shared_resolution(tmp_path: Path) -> None:
    davis(tmp_path, ["swan"], "Full-Resolution")
    fill(tmp_path / "JPEGImages/480p/swan", ".jpg", STEMS)
    write_list(tmp_path, "2017", "val", "swan\n")
    (swan,) = load_split(tmp_path, "val")
    assert swan.frames[0].parent.parent.name == "Full-Resolution"
    assert swan.annotations[0].parent.parent.name == "Full-Resolution"


def test_different_resolutions_if_none_is_shared(tmp_path: Path) -> None:
    fill(tmp_path / "JPEGImages/Full-Resolution/swan", ".jpg", STEMS)
    fill(tmp_path / "Annotations/480p/swan", ".png", STEMS)
    write_list(tmp_path, "2017", "val", "swan\n")
    (swan,) = load_split(tmp_path, "val")
    assert swan.frames[0].parent.parent.name == "Full-Resolution"
    assert swan.annotations[0].parent.parent.name == "480p"


@pytest.mark.parametrize(("root", "split"), [("", "valid"), ("valid", "all")])
def test_youtube_vos(tmp_path: Path, root: str, split: str) -> None:
    """Every fifth frame is annotated, or only those in which an object appears."""
    fill(tmp_path / "valid/JPEGImages/0a49f5265b", ".jpg", [f"{index:05d}" for index in range(0, 30)])
    fill(tmp_path / "valid/Annotations/0a49f5265b", ".png", ["00000", "00015"])
    fill(tmp_path / "valid/JPEGImages/4307020e0f", ".jpg", [f"{index:05d}" for index in range(0, 30, 5)])
    fill(tmp_path / "valid/Annotations/4307020e0f", ".png", ["00010"])
    (tmp_path / "valid/meta.json").touch()
    first, second = load_split(tmp_path / root, split)
    assert len(first.frames) == 30 and sorted(first.annotations) == [0, 15]
    assert first.annotations[15].name == "00015.png"
    assert len(second.frames) == 6 and sorted(second.annotations) == [2]


def test_missing_root(tmp_path: Path) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path / "nowhere",)):
        load_split(tmp_path / "nowhere", "val")


def test_missing_split_names_those_there_are(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    write_list(root, "2017", "train", "swan\n")
    write_list(root, "2016", "val", "swan\n")
    with raises_user_error(SourceError, mentions=("test", "train, val")):
        load_split(root, "test")


def test_missing_split_of_folders_names_those_there_are(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        fill(tmp_path / split / "JPEGImages" / "x", ".jpg", STEMS)
    with raises_user_error(SourceError, mentions=("train, valid",)):
        load_split(tmp_path, "val")
    with raises_user_error(SourceError, mentions=("val", "all")):
        load_split(tmp_path / "train", "val")


def test_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path, "JPEGImages, Annotations and ImageSets")):
        load_split(tmp_path, "val")


def test_missing_sequence(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    write_list(root, "2017", "val", "swan\nbear\n")
    with raises_user_error(SourceError, mentions=("bear", "split val", "JPEGImages")):
        load_split(root, "val")


def test_missing_annotations(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    fill(root / "JPEGImages/480p/bear", ".jpg", STEMS)
    write_list(root, "2017", "val", "bear\n")
    with raises_user_error(MaskError, mentions=("bear", "split val", "Annotations")):
        load_split(root, "val")
    (root / "Annotations/480p/bear").mkdir()
    with raises_user_error(MaskError, mentions=("bear", "annotation")):
        load_split(root, "val")


def test_annotation_without_its_frame(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    (root / "Annotations/480p/swan/00007.png").touch()
    write_list(root, "2017", "val", "swan\n")
    with raises_user_error(MaskError, mentions=("00007.png",)):
        load_split(root, "val")


def test_sequence_without_frames(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    for path in (root / "JPEGImages/480p/swan").iterdir():
        path.unlink()
    write_list(root, "2017", "val", "swan\n")
    with raises_user_error(SourceError, mentions=("swan",)):
        load_split(root, "val")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty_list(tmp_path: Path, content: bytes) -> None:
    root = davis(tmp_path, ["swan"])
    write_list(root, "2017", "val", "")
    (root / "ImageSets/2017/val.txt").write_bytes(content)
    with raises_user_error(SourceError, mentions=("val.txt", "one sequence name per line")):
        load_split(root, "val")


def test_list_that_is_no_text(tmp_path: Path) -> None:
    root = davis(tmp_path, ["swan"])
    write_list(root, "2017", "val", "")
    (root / "ImageSets/2017/val.txt").write_bytes(b"\xff\xfe\x00swan")
    with raises_user_error(SourceError, mentions=("val.txt",)):
        load_split(root, "val")


def test_real_folders(shared_data: Path) -> None:
    sequences = load_split(shared_data / "davis_dev", "dev")
    assert len(sequences) == 7
    assert all(len(sequence.frames) == len(sequence.annotations) for sequence in sequences)
