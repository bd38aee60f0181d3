"""Masks from annotation files: the pixels that each program gives its shapes, numbers, classes, frames."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.conversion.formats import FORMATS
from maskring.runtime.conversion.result import TrackedMasks
from maskring.runtime.pipeline.given_masks import GivenMask, plan_masks
from maskring.runtime.pipeline.progress import no_progress
from maskring.runtime.video.annotation_files import annotated_mask, frame_names
from maskring.runtime.video.mask_ids import MaskIds
from maskring.runtime.video.masks import write_mask

LABELME = "MASKRING_LABELME"
"""Names a folder into which the wheel of labelme was unpacked; the package would install Qt."""

HEIGHT, WIDTH = 40, 61
TRIANGLE = [5.5, 4.0, 50.2, 9.7, 20.0, 35.5]
SQUARE = [30.0, 20.0, 44.0, 20.0, 44.0, 33.0, 30.0, 33.0]


def labels(path: Path, index: int = 0, names: list[str] | None = None) -> np.ndarray:
    picture, _ = annotated_mask(path, index, names)
    return MaskIds([picture.marks]).labels(picture)


def write(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def coco(*segmentations: Any, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "any.jpg", "height": HEIGHT, "width": WIDTH} | more],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 3, "segmentation": each, "iscrowd": 0, "area": 1}
            for number, each in enumerate(segmentations, 1)
        ],
    }


def labelme(*shapes: dict[str, Any], image: str = "any.jpg") -> dict[str, Any]:
    return {"imagePath": image, "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": list(shapes)}


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None} | more


def test_coco_polygons_and_run_lengths_are_those_of_pycocotools(tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [100, 60, HEIGHT * WIDTH - 160]}
    path = write(tmp_path / "a.json", coco([TRIANGLE], [SQUARE, [0, 0, 3, 0, 3, 3]], runs))
    reader = COCO(str(path))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in (1, 2, 3):
        expected[reader.annToMask(reader.loadAnns([number])[0]) > 0] = number
    np.testing.assert_array_equal(labels(path), expected)
    assert annotated_mask(path, 0, None)[1] == {1: "cup", 2: "cup", 3: "cup"}


@pytest.mark.parametrize("name", ["coco", "cvat"])
def test_what_convert_writes_is_read_back(tmp_path: Path, name: str) -> None:
    """Numbers and frames stay what they were, in the middle of the clip too."""
    (tmp_path / "clip").mkdir()
    truth = []
    for index in range(3):
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.circle(ids, (20 + index, 18), 9, 4, -1)
        cv2.circle(ids, (20 + index, 18), 3, 0, -1)
        ids[30:38, 40:55] = 9 if index != 1 else 0
        write_mask(tmp_path / f"clip/f{index}.png", ids)
        truth.append(ids)
    writer, suffix = FORMATS[name]
    path = tmp_path / f"a{suffix}"
    writer(TrackedMasks(tmp_path / "clip"), path, {4: "cup", 9: "dog"}, no_progress)
    for index, ids in enumerate(truth):
        # CVAT numbers tracks from 0, in the order of the ids.
        expected = ids if name == "coco" else np.array([0, 1, 2], np.uint8)[np.searchsorted([0, 4, 9], ids)]
        np.testing.assert_array_equal(labels(path, index), expected)


def test_cvat_for_images(tmp_path: Path) -> None:
    points = ";".join(f"{x},{y}" for x, y in np.reshape(TRIANGLE, (-1, 2)))
    path = write(
        tmp_path / "a.xml",
        f"""<annotations><version>1.1</version>
        <image id="0" name="x/other.png" width="{WIDTH}" height="{HEIGHT}"/>
        <image id="1" name="x/f1.png" width="{WIDTH}" height="{HEIGHT}">
          <mask label="a" rle="2, 3, 1" left="40" top="10" width="3" height="2" z_order="1"/>
          <polygon label="b" points="{points}" z_order="0"/>
          <box label="c" xtl="1" ytl="2" xbr="4" ybr="6" z_order="2"/>
          <points label="d" points="1,1"/>
        </image></annotations>""",
    )
    found = labels(path, 1, ["f0", "f1"])
    expected = labels(write(tmp_path / "b.json", coco([TRIANGLE])))
    expected[10, 42], expected[11, 40:42] = 2, 2
    expected[2:6, 1:4] = 3
    np.testing.assert_array_equal(found, expected)
    assert annotated_mask(path, 1, ["f0", "f1"])[1] == {1: "b", 2: "a", 3: "c"}


def test_labelme_shapes(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).save(png, "PNG")
    path = write(
        tmp_path / "a.json",
        labelme(
            shape("cup", [[2, 2], [10, 2], [10, 8], [2, 8]]),
            shape("cup", [[20, 2], [24, 5]], "rectangle", group_id=1),
            shape("dog", [[40, 20], [40, 23]], "circle"),
            shape("fox", [[25, 10], [32, 14]], "rectangle", group_id=1),
            shape("cup", [[20, 9], [29, 12]], "rectangle", group_id=1),
            shape(
                "cup",
                [[30, 30], [31, 31]],
                "mask",
                group_id=1,
                mask=base64.b64encode(png.getvalue()).decode(),
            ),
        ),
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:9, 2:11] = 1
    expected[2:6, 20:25] = 2
    expected[10:15, 25:33] = 4
    expected[30, 30] = expected[31, 31] = 2
    expected[9:13, 20:30] = 2  # on top of what lies between
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = labels(path)
    disc = found == 3
    assert np.abs(np.hypot(x - 40, y - 20)[disc]).max() <= 3.2 and disc.sum() in range(25, 38)
    np.testing.assert_array_equal(np.where(disc, 0, found), expected)
    assert annotated_mask(path, 0, None)[1] == {1: "cup", 2: "cup", 3: "dog", 4: "fox"}


def test_labelmes_own_pixels(tmp_path: Path) -> None:
    """By the code of its package, of which this module needs nothing else."""
    if not (folder := os.environ.get(LABELME)):
        pytest.skip(f"{LABELME} names no folder with the package labelme")
    text = (Path(folder) / "labelme/utils/shape.py").read_text()
    module: dict[str, Any] = {}
    exec(text.replace("from labelme._label_file import ShapeDict", "ShapeDict = dict"), module)
    rng = np.random.default_rng(0)
    for trial in range(60):
        kind, corners = [("polygon", 5), ("rectangle", 2), ("circle", 2), ("oriented_rectangle", 4)][
            trial % 4
        ]
        shapes = [
            shape("a", (rng.random((corners, 2)) * [WIDTH, HEIGHT]).tolist(), kind, group_id=group)
            for group in (1, None, 1)
        ]
        _, expected = module["shapes_to_label"]((HEIGHT, WIDTH), shapes, {"a": 1})
        np.testing.assert_array_equal(labels(write(tmp_path / "a.json", labelme(*shapes))), expected)


def test_parts_of_one_number_are_one_object(tmp_path: Path) -> None:
    document = coco([TRIANGLE], [SQUARE], [[0, 0, 3, 0, 3, 3]])
    for one, track in zip(document["annotations"], (0, 4, 0), strict=True):
        one["attributes"] = {"track_id": track}
    found = labels(write(tmp_path / "a.json", document))
    assert set(np.unique(found)) == {0, 1, 5} and found[0, 2] == 1


def test_frames_are_found_by_name(tmp_path: Path) -> None:
    for name in ("f0.png", "f1.png", "f10.png", "mask.png"):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / name)
    names = frame_names(str(tmp_path), [tmp_path / "mask.png"])
    assert names == ["f0", "f1", "f10"]
    assert frame_names(str(tmp_path / "f0.png")) is None
    here = write(tmp_path / "a.json", labelme(shape("cup", [[2, 2], [9, 2], [9, 8]]), image="../f10.png"))
    assert labels(here, 2, names).any()
    with raises_user_error(MaskError, mentions=(here, "frame 2", "--from 2", "--add 2=")):
        annotated_mask(here, 0, names)
    assert labels(here, 0, ["p", "q"]).any(), "a single frame of another name"
    two = coco([TRIANGLE])
    two["images"].append(two["images"][0] | {"id": 8, "file_name": "00003.jpg"})
    two["annotations"].append(two["annotations"][0] | {"image_id": 8, "segmentation": [SQUARE]})
    path = write(tmp_path / "b.json", two)
    np.testing.assert_array_equal(labels(path, 3), labels(write(tmp_path / "c.json", coco([SQUARE]))))
    with raises_user_error(MaskError, mentions=(path, "frame 4", "--add")):
        annotated_mask(path, 4, None)


def test_a_plan_of_annotations_and_pictures(tmp_path: Path) -> None:
    """Numbers of both kinds of files are the same objects, and --mask ID=FILE holds."""
    path = write(tmp_path / "a.json", coco([TRIANGLE]))
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:3, :3] = 1
    write_mask(tmp_path / "b.png", ids)
    plan = plan_masks([GivenMask(0, path), GivenMask(5, tmp_path / "b.png"), GivenMask(8, path, 6)])
    assert set(np.unique(plan.masks[0])) == {0, 1} and set(np.unique(plan.masks[8])) == {0, 6}
    assert plan.classes == {1: "cup", 6: "cup"}
    assert any("1 is cup" in note for note in plan.notes)
    assert any("redraws object 1" in note for note in plan.notes)


def cvat(*shapes: str) -> str:
    """A file of CVAT for video with these shapes, one of each track."""
    tracks = "".join(f'<track id="{k}" label="a">{one}</track>' for k, one in enumerate(shapes))
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    return f"<annotations><meta>{size}</meta>{tracks}</annotations>"


def test_rotated_boxes_and_ellipses_of_cvat(tmp_path: Path) -> None:
    """A quarter turn swaps width and height; an ellipse fills pi / 4 of its box."""
    box = '<box frame="0" xtl="10" ytl="16" xbr="30" ybr="24" rotation="90.0"/>'
    ellipse = '<ellipse frame="0" cx="46" cy="20" rx="12" ry="6"/>'
    found = labels(write(tmp_path / "a.xml", cvat(box, ellipse)))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:30, 16:24] = 1
    np.testing.assert_array_equal(found * (found == 1), expected)
    rows, columns = np.nonzero(found == 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 25, 34, 57)
    assert abs(len(rows) - np.pi * 12 * 6) < 12
    turned = labels(write(tmp_path / "b.xml", cvat(box.replace("90.0", "30.0"))))
    assert turned[12, 13] and not turned[27, 13], "clockwise, as y points down"


def test_background_of_labelme_is_no_object(tmp_path: Path) -> None:
    corners = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    square = [[30, 20], [44, 20], [44, 33], [30, 33]]
    hole = [[34, 24], [38, 24], [38, 28], [34, 28]]
    document = labelme(
        shape("__ignore__", corners), shape("cup", square, "rectangle"), shape("_background_", hole)
    )
    path = write(tmp_path / "a.json", document)
    found = labels(path)
    assert set(np.unique(found)) == {0, 1} and found[21, 31] and not found[26, 36] and not found[2, 2]
    assert annotated_mask(path, 0, None)[1] == {1: "cup"}


@pytest.mark.parametrize("name", ["frame_000057.PNG", "x/00057.jpg"])
def test_images_of_a_video_are_named_by_their_index(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", coco([TRIANGLE], file_name=name))
    assert labels(path, 57).any()
    with raises_user_error(MaskError, mentions=(path, "frame 57", "--from 57")):
        annotated_mask(path, 0, None)


def test_an_object_that_others_cover_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", coco([SQUARE], [TRIANGLE], [TRIANGLE]))
    picture, _ = annotated_mask(path, 0, None)
    assert any("object 2" in note and "covered" in note for note in picture.notes)


def test_what_a_file_lacks_is_said(tmp_path: Path) -> None:
    boxes = write(tmp_path / "boxes.json", coco([]))
    with raises_user_error(MaskError, mentions=(boxes, "box", "--box")):
        annotated_mask(boxes, 0, None)
    box = '<box frame="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    project = cvat(box, box).replace('id="0"', 'id="0" task_id="3"').replace('id="1"', 'id="0" task_id="4"')
    with raises_user_error(MaskError, mentions=("project.xml", "several tasks")):
        annotated_mask(write(tmp_path / "project.xml", project), 0, None)


DAMAGED = {
    "no.json": "{",
    "list.json": [1],
    "other.json": {"a": 1},
    "size.json": coco([TRIANGLE], height="x"),
    "huge.json": coco([TRIANGLE], height=10**6, width=10**6),
    "none.json": coco(),
    "two.json": coco([[1, 2, 3, 4]]),
    "nan.json": coco({"size": [HEIGHT, WIDTH], "counts": [1, 2]}),
    "wrong.json": coco({"size": [3, 3], "counts": [9]}),
    "image.json": coco([TRIANGLE]) | {"annotations": [{"image_id": 9, "segmentation": [TRIANGLE]}]},
    "long.json": coco({"size": [HEIGHT, WIDTH], "counts": "o" * 400}),
    "far.json": coco([[1.0, 2.0, 1e12, 3.0, 5.0, 5.0]]),
    "far_too.json": labelme(shape("a", [[1, 2], [1e300, 4], [2, 2]])),
    "inf.json": labelme(shape("a", [[1, 2], [3, 4]], "mask", mask="")) | {"imageHeight": float("inf")},
    "deep.json": "[" * 100_000,
    "line.json": labelme(shape("a", [[1, 2], [3, 4]], "line")),  # covers nothing
    "kind.json": labelme(shape("a", [[1, 2], [3, 4]], "spiral")),
    "mask.json": labelme(shape("a", [[1, 2], [3, 4]], "mask", mask="!")),
    "beyond.json": labelme(shape("a", [[60, 2], [61, 2]], "mask", mask=base64.b64encode(b"x").decode())),
    "no.xml": "<annotations>",
    "other.xml": "<svg/>",
    "size.xml": "<annotations><track id='0' label='a'><mask frame='0' rle='1'/></track></annotations>",
    "beyond.xml": "<annotations><image name='a' width='9' height='9'><mask label='a' rle='0, 4' left='8' top='0' "
    "width='2' height='2'/></image></annotations>",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    with raises_user_error(MaskError, mentions=(name,)):
        annotated_mask(write(tmp_path / name, DAMAGED[name]), 0, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with raises_user_error(MaskError, mentions=("none.json",)):
        annotated_mask(tmp_path / "none.json", 0, None)


@given(st.data())
@settings(max_examples=150)
def test_whatever_a_file_holds_is_a_mask_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["a.json", "b.json", "c.json", "d.xml"]))
    good = {
        "a.json": json.dumps(coco([TRIANGLE], {"size": [HEIGHT, WIDTH], "counts": [100, 2340]})),
        "b.json": json.dumps(
            labelme(shape("a", [[2, 2], [9, 2], [9, 8]]), shape("b", [[2, 2], [9, 9]], "circle"))
        ),
        "c.json": json.dumps(coco({"size": [HEIGHT, WIDTH], "counts": "T3S1n1"})),
        "d.xml": f"<annotations><image name='a' width='{WIDTH}' height='{HEIGHT}'><mask label='a' rle='0, 4' left='8' "
        "top='0' width='2' height='2'/><polygon label='b' points='1,2;30,3;5,30'/></image></annotations>",
    }[name]
    at = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(
        st.sampled_from(["", "9", "-", "e99", "null", '"', "[", "}", "<", "&", "\\0", "NaN", "1e999"])
    )
    path = tmp_path_factory.mktemp("any") / name
    path.write_text(good[:at] + new + good[at + data.draw(st.integers(0, 3)) :])
    with contextlib.suppress(MaskError):
        assert labels(path).shape[0] > 0
