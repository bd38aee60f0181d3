"""Each format is opened by a real reader of it, and what that reads is the masks, to the pixel."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import supervision
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner
from user_errors import assert_command_error, raises_user_error

from maskring.cli import app
from maskring.common.errors import MaskError, SourceError
from maskring.runtime.conversion.formats import FORMATS
from maskring.runtime.conversion.result import TrackedMasks
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.pipeline.progress import no_progress
from maskring.runtime.video.masks import read_mask, write_mask

HEIGHT, WIDTH, FRAMES = 50, 71, 5
NAMES = {1: "cup", 4: "cup", 9: "a <dog> & co"}


def labels(index: int) -> np.ndarray:
    """A disc in two parts with a hole, a single pixel, and an object that leaves and returns."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(ids, (20 + index, 25), 12, 1, -1)
    cv2.circle(ids, (20 + index, 25), 4, 0, -1)
    ids[:, 20 + index] = 0
    ids[2, 69] = 4
    if index not in (1, 2):
        ids[30:, 50 - index : 60] = 9
    return ids


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    """What ``maskring track --from 10`` writes, and the images in ``frames``."""
    for folder in ("clip/masks", "frames"):
        (tmp_path / folder).mkdir(parents=True)
    lines = []
    for index in range(FRAMES):
        write_mask(tmp_path / f"clip/masks/f{index}.png", labels(index))
        Image.fromarray(labels(index)).convert("RGB").save(tmp_path / f"frames/f{index}.jpg")
        lines.append(json.dumps({"name": f"f{index}", "index": index + 10}))
    (tmp_path / "clip/objects.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "clip"


def written(tracked: Path, name: str, *, frames: bool = False) -> tuple[Path, list[str]]:
    out = tracked.parent / f"out{FORMATS[name][1]}"
    masks = TrackedMasks(tracked, tracked.parent / "frames" if frames else None)
    return out, FORMATS[name][0](masks, out, NAMES, no_progress)


def test_coco_by_pycocotools(tracked: Path) -> None:
    out, notes = written(tracked, "coco", frames=True)
    coco = COCO(str(out))
    assert notes == []
    assert {category["name"] for category in coco.loadCats(coco.getCatIds())} == set(NAMES.values())
    for index in range(FRAMES):
        (image,) = [image for image in coco.dataset["images"] if image["frame_index"] == index + 10]
        assert image["file_name"] == f"f{index}.jpg"
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            shape = coco.annToMask(entry)
            assert entry["area"] == shape.sum() == coco_mask.area(entry["segmentation"])
            x, y, width, height = entry["bbox"]
            assert cv2.boundingRect(shape) == (x, y, width, height)
            assert coco.loadCats([entry["category_id"]])[0]["name"] == NAMES[entry["track_id"]]
            ids[shape > 0] = entry["track_id"]
        np.testing.assert_array_equal(ids, labels(index))


def decoded(element: ElementTree.Element) -> np.ndarray:
    """A mask of CVAT, by pycocotools, whose run lengths go along columns."""
    left, top, width, height = (int(element.attrib[key]) for key in ("left", "top", "width", "height"))
    counts = [int(run) for run in element.attrib["rle"].split(",")]
    coded = coco_mask.frPyObjects({"counts": counts, "size": [width, height]}, width, height)
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    shape[top : top + height, left : left + width] = coco_mask.decode(coded).T
    return shape


def test_cvat_tracks_of_masks(tracked: Path) -> None:
    """An object ends where it is outside, so that CVAT does not carry its mask on."""
    out, _ = written(tracked, "cvat")
    root = ElementTree.parse(out).getroot()
    assert root.findtext("version") == "1.1"
    tracks = root.findall("track")
    assert [track.attrib["label"] for track in tracks] == [NAMES[number] for number in (1, 4, 9)]
    for track, number in zip(tracks, (1, 4, 9), strict=True):
        shown: dict[int, np.ndarray] = {}
        for element in track.findall("mask"):
            assert element.attrib["keyframe"] == "1"
            index = int(element.attrib["frame"]) - 10
            if element.attrib["outside"] == "0":
                shown[index] = decoded(element)
            else:
                assert number == 9 and index == 1
        for index in range(FRAMES):
            expected = (labels(index) == number).astype(np.uint8)
            assert expected.any() == (index in shown)
            if index in shown:
                np.testing.assert_array_equal(shown[index], expected)


def test_yolo_by_supervision(tracked: Path) -> None:
    """Polygons have no holes; a note says how many were filled."""
    out, notes = written(tracked, "yolo-seg", frames=True)
    assert notes == []  # the disc is cut, so its hole is open
    dataset = supervision.DetectionDataset.from_yolo(
        str(out / "images"), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    assert dataset.classes == ["cup", "a <dog> & co"]
    assert len(dataset) == FRAMES
    for path, _, found in dataset:
        ids = labels(int(Path(path).stem[1:]))
        for number, name in enumerate(dataset.classes):
            expected = np.isin(ids, [one for one, given in NAMES.items() if given == name])
            shapes = found.mask[found.class_id == number]
            np.testing.assert_array_equal(shapes.any(axis=0) if len(shapes) else expected & False, expected)


def test_yolo_fills_holes_and_says_so(tmp_path: Path) -> None:
    ring = np.zeros((HEIGHT, WIDTH), np.uint8)
    ring[5:20, 5:20], ring[10:14, 10:14] = 1, 0
    (tmp_path / "clip").mkdir()
    write_mask(tmp_path / "clip/0.png", ring)
    (note,) = FORMATS["yolo-seg"][0](
        TrackedMasks(tmp_path / "clip"), tmp_path / "out", {1: "ring"}, no_progress
    )
    assert note.startswith("1 holes")


@pytest.mark.parametrize(
    ("name", "split", "resolution"), [("davis", "val", "480p/"), ("youtube-vos", "all", "")]
)
def test_datasets_by_ones_own_reader(tracked: Path, name: str, split: str, resolution: str) -> None:
    out, _ = written(tracked, name, frames=True)
    (sequence,) = load_split(out, split)
    assert sequence.name == "clip" and len(sequence.frames) == FRAMES
    for index, path in sequence.annotations.items():
        assert path == out / f"Annotations/{resolution}clip/f{index}.png"
        np.testing.assert_array_equal(read_mask(path), labels(index))


def test_a_dataset_grows_by_one_video_after_another(tracked: Path) -> None:
    out, _ = written(tracked, "youtube-vos")
    written(tracked, "davis")
    tracked.rename(tracked.with_name("other"))
    for name in ("youtube-vos", "davis"):
        written(tracked.with_name("other"), name)
    meta = json.loads((out / "meta.json").read_text())
    assert list(meta["videos"]) == ["clip", "other"]
    assert meta["videos"]["clip"]["objects"]["9"] == {"category": NAMES[9], "frames": ["f0", "f3", "f4"]}
    assert (out / "ImageSets/2017/val.txt").read_text() == "clip\nother\n"


def test_the_command(tracked: Path, tmp_path: Path) -> None:
    words = ["convert", str(tracked), "--to", "coco", "--out", str(tmp_path / "new/a.json")]
    done = CliRunner().invoke(app, [*words, "--name", "9=dog"])
    assert done.exit_code == 0, done.output
    names = {category["name"] for category in json.loads((tmp_path / "new/a.json").read_text())["categories"]}
    assert names == {"object 1", "object 4", "dog"}
    for more, mention in (
        (["--name", "9"], "ID=NAME"),
        (["--name", "7=cup"], "1, 4, 9"),
        (["--out", str(tmp_path / "a.xml")], ".json"),
        (["--frames", str(tracked)], "f0.png"),
    ):
        bad = CliRunner().invoke(app, [*words, *more])
        assert_command_error(bad.exit_code, bad.stderr, [mention])


def test_what_is_no_result(tracked: Path, tmp_path: Path) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path / "none",)):
        TrackedMasks(tmp_path / "none")
    with raises_user_error(SourceError, mentions=(tmp_path, tracked)):
        TrackedMasks(tmp_path)
    for path in (tracked / "masks").iterdir():
        write_mask(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    with raises_user_error(MaskError, mentions=(tracked,)):
        TrackedMasks(tracked)
    write_mask(tracked / "masks/f3.png", np.ones((4, 4), np.uint8))
    with raises_user_error(MaskError, mentions=("f3.png", "size")):
        TrackedMasks(tracked)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (3, '{"name": "f2", "ind'),
        (3, '{"name": "f2"}'),
        (3, '{"name": "f2", "index": -1}'),
        (3, '{"name": "f2", "index": true}'),
        (3, "[]"),
        (1, "\0\xff"),
    ],
)
def test_a_damaged_line_is_named_instead_of_counting(tracked: Path, number: int, line: str) -> None:
    objects = tracked / "objects.jsonl"
    lines = objects.read_bytes().splitlines()
    lines[number - 1] = line.encode("latin-1")
    objects.write_bytes(b"\n".join(lines))
    with raises_user_error(SourceError, mentions=(objects, f"line {number} ", "track again")):
        TrackedMasks(tracked)


def test_a_mask_without_a_line_is_named_instead_of_counting(tracked: Path) -> None:
    objects = tracked / "objects.jsonl"
    lines = objects.read_text().splitlines()
    objects.write_text("\n".join(lines[:2] + lines[3:]))
    with raises_user_error(SourceError, mentions=(objects, "f2.png", "move the mask away")):
        TrackedMasks(tracked)


def test_masks_of_another_tracker_are_numbered_by_position_and_a_note_says_so(tracked: Path) -> None:
    words = ["convert", "--to", "coco", "--out", str(tracked.parent / "a.json")]
    done = CliRunner().invoke(app, [*words, str(tracked)])
    assert done.exit_code == 0 and done.stderr == ""
    (tracked / "objects.jsonl").unlink()
    done = CliRunner().invoke(app, [*words, str(tracked)])
    assert done.exit_code == 0 and done.stderr.startswith("note: ") and "position" in done.stderr
    images = json.loads((tracked.parent / "a.json").read_text())["images"]
    assert [image["frame_index"] for image in images] == list(range(FRAMES))
