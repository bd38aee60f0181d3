"""Tracked masks in the formats of other programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import cv2
import numpy as np

from ...common.errors import OutputError
from ...common.files import atomic_path, make_directory
from ...common.types import Array, Labels
from ..pipeline.progress import Progress
from ..video.annotation_formats import import_coco_mask
from ..video.masks import write_mask
from .label_studio import write_label_studio
from .objects import masks_of_objects
from .result import MaskFrame, TrackedMasks
from .webm import write_webm

Names: TypeAlias = Mapping[int, str]
"""Object id -> name of its class."""

Writer: TypeAlias = Callable[[TrackedMasks, Path, Names, Progress], list[str]]
"""Writes a format; returns sentences that say what it cannot hold."""


def write_coco(masks: TrackedMasks, out: Path, names: Names, progress: Progress) -> list[str]:
    """COCO: one JSON file; masks as compressed RLE, which is exact. ``track_id`` is the object's id.

    Raises:
        UnavailableError: when pycocotools is not installed.
    """
    coco_mask = import_coco_mask()
    category = {name: number for number, name in enumerate(dict.fromkeys(names[i] for i in masks.ids), 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = masks.size
    for done, frame in enumerate(masks, 1):
        image: dict[str, Any] = {"id": frame.index + 1, "file_name": frame.image_name}
        images.append(image | {"height": height, "width": width, "frame_index": frame.index})
        for number, shape in masks_of_objects(frame.labels):
            coded = coco_mask.encode(np.asfortranarray(shape))
            entry = {
                "id": len(annotations) + 1,
                "image_id": frame.index + 1,
                "category_id": category[names[number]],
                "track_id": number,
                "segmentation": {"size": [height, width], "counts": coded["counts"].decode("ascii")},
                "area": int(coco_mask.area(coded)),
                "bbox": [int(edge) for edge in coco_mask.toBbox(coded)],
                "iscrowd": 0,
            }
            annotations.append(entry)
        progress("coco", done, len(masks))
    document = {
        "info": {"description": f"{masks.name}, tracked by maskring"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in category.items()],
    }
    with atomic_path(out) as partial:
        partial.write_text(json.dumps(document), encoding="utf-8")
    return []


def write_cvat(masks: TrackedMasks, out: Path, names: Names, progress: Progress) -> list[str]:
    """CVAT for video 1.1: one XML file with a track of masks per object, which is exact."""
    height, width = masks.size
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(task, "name").text = masks.name
    ElementTree.SubElement(task, "size").text = str(len(masks))
    ElementTree.SubElement(task, "mode").text = "interpolation"
    labels = ElementTree.SubElement(task, "labels")
    for name in dict.fromkeys(names[number] for number in masks.ids):
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(width)
    ElementTree.SubElement(size, "height").text = str(height)
    tracks = {
        number: ElementTree.SubElement(root, "track", id=str(position), label=names[number], source="auto")
        for position, number in enumerate(masks.ids)
    }
    shown: dict[int, dict[str, str]] = {}
    for done, frame in enumerate(masks, 1):
        present = {number: _cvat_mask(shape) for number, shape in masks_of_objects(frame.labels)}
        for number in sorted(shown.keys() | present):
            place = present.get(number) or shown[number]
            state = {"frame": str(frame.index), "keyframe": "1", "outside": str(int(number not in present))}
            ElementTree.SubElement(
                tracks[number], "mask", state | {"occluded": "0"} | place | {"z_order": "0"}
            )
        shown = present
        progress("cvat", done, len(masks))
    ElementTree.indent(root)
    with atomic_path(out) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
    return []


def write_yolo(masks: TrackedMasks, out: Path, names: Names, progress: Progress) -> list[str]:
    """YOLO segmentation: ``labels/NAME.txt`` and ``data.yaml``; a polygon per connected part of an object."""
    classes = list(dict.fromkeys(names[number] for number in masks.ids))
    labels, images = make_directory(out / "labels"), make_directory(out / "images")
    scale, holes = np.array(masks.size[::-1], np.float64), 0
    for done, frame in enumerate(masks, 1):
        lines = []
        for number, shape in masks_of_objects(frame.labels):
            polygons, filled = _polygons(shape)
            holes += filled
            for polygon in polygons:
                # Readers paint up to the pixel of a vertex, whether they round its position or cut it off.
                points = " ".join(f"{value:.7g}" for value in ((polygon + 0.25) / scale).ravel())
                lines.append(f"{classes.index(names[number])} {points}\n")
        with atomic_path(labels / f"{frame.name}.txt") as partial:
            partial.write_text("".join(lines))
        _copy_image(frame, images)
        progress("yolo-seg", done, len(masks))
    listed = [f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes)]
    with atomic_path(out / "data.yaml") as partial:
        partial.write_text(
            "path: .\ntrain: images\nval: images\nnames:\n" + "".join(listed), encoding="utf-8"
        )
    return [f"{holes} holes were filled: polygons of YOLO have none"] if holes else []


def write_davis(masks: TrackedMasks, out: Path, names: Names, progress: Progress) -> list[str]:
    """DAVIS: ``Annotations/480p/NAME`` and a list; with frames ``JPEGImages/480p/NAME``."""
    _write_folders(masks, out / "JPEGImages" / "480p", out / "Annotations" / "480p", "davis", progress)
    listing = make_directory(out / "ImageSets" / "2017") / "val.txt"
    listed = listing.read_text(encoding="utf-8").split() if listing.is_file() else []
    with atomic_path(listing) as partial:
        partial.write_text(
            "".join(f"{name}\n" for name in dict.fromkeys([*listed, masks.name])), encoding="utf-8"
        )
    return []


def write_youtube_vos(masks: TrackedMasks, out: Path, names: Names, progress: Progress) -> list[str]:
    """YouTube-VOS: ``Annotations/NAME`` and ``meta.json``; with frames ``JPEGImages/NAME``."""
    seen = _write_folders(masks, out / "JPEGImages", out / "Annotations", "youtube-vos", progress)
    meta = out / "meta.json"
    try:
        document = json.loads(meta.read_text(encoding="utf-8")) if meta.is_file() else {"videos": {}}
        document["videos"][masks.name] = {
            "objects": {str(one): {"category": names[one], "frames": frames} for one, frames in seen.items()}
        }
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{meta} is not that of YouTube-VOS", "choose another folder for --out") from error
    with atomic_path(meta) as partial:
        partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return []


FORMATS: dict[str, tuple[Writer, str]] = {
    "coco": (write_coco, ".json"),
    "cvat": (write_cvat, ".xml"),
    "yolo-seg": (write_yolo, ""),
    "label-studio": (write_label_studio, ".json"),
    "davis": (write_davis, ""),
    "youtube-vos": (write_youtube_vos, ""),
    "webm": (write_webm, ".webm"),
}
"""Name of a format -> what writes it, and the suffix of its file; "" where it is a folder."""


def _cvat_mask(shape: Labels) -> dict[str, str]:
    """Box and run lengths of a mask: row by row in the box, background first."""
    left, top, width, height = cv2.boundingRect(shape)
    pixels = shape[top : top + height, left : left + width].ravel()
    ends = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
    runs = np.diff([0, *ends, pixels.size])
    place = {"left": left, "top": top, "width": width, "height": height}
    return {"rle": ", ".join(map(str, runs.tolist())), **{key: str(value) for key, value in place.items()}}


def _polygons(shape: Labels) -> tuple[list[Array], int]:
    """Outlines [N, 2] of (x, y) pixels of a mask's parts, and how many holes they fill."""
    contours, hierarchy = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [
        contour[:, 0] for contour, (*_, parent) in zip(contours, hierarchy[0], strict=True) if parent < 0
    ]
    outlines = [np.concatenate([points] * 3) if len(points) < 3 else points for points in outer]
    return outlines, len(contours) - len(outer)


def _write_folders(
    masks: TrackedMasks, images: Path, annotations: Path, task: str, progress: Progress
) -> dict[int, list[str]]:
    """Masks, and images where there are some; returns object id -> names of the frames that show it."""
    folder, seen = make_directory(annotations / masks.name), {number: list[str]() for number in masks.ids}
    for done, frame in enumerate(masks, 1):
        write_mask(folder / f"{frame.name}.png", frame.labels)
        _copy_image(frame, images / masks.name)
        for number in np.unique(frame.labels[frame.labels > 0]).tolist():
            seen[number].append(frame.name)
        progress(task, done, len(masks))
    return seen


def _copy_image(frame: MaskFrame, folder: Path) -> None:
    if frame.image is not None:
        with atomic_path(make_directory(folder) / frame.image.name) as partial:
            shutil.copyfile(frame.image, partial)
