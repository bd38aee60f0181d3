"""What annotation files of COCO, CVAT and LabelMe hold, frame by frame."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from ...common.errors import MaskError, UnavailableError
from ...common.types import Labels
from .frame import MAX_PIXELS

Size = tuple[int, int]

ELLIPSE_CORNERS = 90
"""Of the polygon that stands for an ellipse of CVAT."""

LABELME_BACKGROUND = ("_background_", "__ignore__")
"""Labels of LabelMe's shapes that are no objects."""

LABELME_LINES = ("point", "points", "line", "linestrip")
"""Types of LabelMe's shapes that cover no area."""

Shape = Callable[[], Labels]
"""Gives an object's mask [H, W], not 0 where it is."""


@dataclass(frozen=True)
class AnnotatedObject:
    """An object of a frame.

    Attributes:
        name: its class, as the file has it.
        shape: its mask, drawn when it is wanted.
        number: that the file gives it in all frames; None where it gives none. What has the same number in a
            frame is one object. 0 is the background.
    """

    name: str
    shape: Shape
    number: int | None = None


@dataclass(frozen=True)
class AnnotatedFrame:
    """The objects of one frame.

    Attributes:
        image: file name of its image; "" where the file does not tell.
        index: of the frame in its video; None where the file does not tell.
        size: (height, width).
        objects: later ones lie on top.
    """

    image: str
    index: int | None
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]


def import_coco_mask() -> Any:
    """The module ``pycocotools.mask``.

    Raises:
        UnavailableError: when it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UnavailableError(
            "pycocotools is not installed", "run pip install 'maskring[convert]'"
        ) from error
    return mask


def coco_frames(document: dict[str, Any]) -> list[AnnotatedFrame]:
    """The images of a COCO file. ``track_id``, of an annotation or of its attributes, numbers an object, from 1;
    where the file begins with 0, all are one more.

    Raises:
        KeyError, TypeError, ValueError: when the document is damaged.
    """
    classes = {one["id"]: str(one["name"]) for one in document.get("categories", [])}
    of_image: dict[Any, list[AnnotatedObject]] = {image["id"]: [] for image in document["images"]}
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in document["images"]}
    numbers = [_track_id(one) for one in document["annotations"]]
    first = 1 if 0 in numbers else 0
    for one, track in zip(document["annotations"], numbers, strict=True):
        image, number = one["image_id"], None if track is None else track + first
        name = classes.get(one.get("category_id"), "object")
        shape = partial(_coco_shape, one.get("segmentation"), sizes[image])
        of_image[image].append(AnnotatedObject(name, shape, number))
    return [
        AnnotatedFrame(
            str(image["file_name"]),
            None if image.get("frame_index") is None else int(image["frame_index"]),
            sizes[image["id"]],
            tuple(of_image[image["id"]]),
        )
        for image in document["images"]
    ]


def _track_id(annotation: dict[str, Any]) -> int | None:
    number = annotation.get("track_id", (annotation.get("attributes") or {}).get("track_id"))
    return None if number is None else int(number)


def _coco_shape(segmentation: Any, size: Size) -> Labels:
    """The mask of a list of polygons, or of run lengths, compressed or not."""
    height, width = size
    if isinstance(segmentation, dict):
        if [int(edge) for edge in segmentation["size"]] != [height, width]:
            raise ValueError("run lengths for another size")
        counts = segmentation["counts"]
        columns = _unpacked(_runs(counts) if isinstance(counts, str) else counts, (width, height))
        return _labels(columns.T)
    if not segmentation:
        raise MaskError("an annotation is a box without a mask", "give boxes by --box, or annotate masks")
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon of less than three corners")
    polygons = [[float(value) for value in polygon] for polygon in segmentation]
    for polygon in polygons:
        _require_near(polygon, size)
    coco_mask = import_coco_mask()
    return _labels(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))))


def _runs(text: str) -> list[int]:
    """The run lengths in the string of COCO's compressed RLE.

    pycocotools would unpack it too, but believes that they fill the mask, and writes beyond it where they do not.
    """
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        number |= (digit & 0x1F) << shift
        shift += 5
        if not digit & 0x20:
            if digit & 0x10:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs


def _unpacked(runs: list[int], shape: Size) -> Labels:
    """The mask of run lengths, row by row, background first.

    Raises:
        ValueError: when they do not fill it.
    """
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != shape[0] * shape[1]:
        raise ValueError("run lengths that do not fill the mask")
    return np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(shape)


def _require_near(coordinates: list[float], size: Size) -> None:
    """Refuse corners far outside the frame: pycocotools takes memory for each pixel of an edge."""
    side = max(size)
    if not all(-side <= value <= 2 * side for value in coordinates):
        raise ValueError("a corner far outside the frame")


def _labels(pixels: Any) -> Labels:
    return np.asarray(pixels, np.uint8)


def cvat_frames(root: Element) -> list[AnnotatedFrame]:
    """The frames of a CVAT file for video (1.1), whose tracks number objects from 1, or for images (1.1).

    Raises:
        KeyError, ValueError: when the document is damaged.
    """
    if len({track.get("task_id") for track in root.iterfind("track")}) > 1:
        raise MaskError("the annotations are of several tasks", "export one task, not its project")
    if root.find("track") is None:
        return [_cvat_image(image) for image in root.iterfind("image")]
    size = (
        int(root.findtext(".//original_size/height", "")),
        int(root.findtext(".//original_size/width", "")),
    )
    of_frame: dict[int, list[tuple[int, AnnotatedObject]]] = {}
    for track in root.iterfind("track"):
        for shape in _cvat_shapes(track):
            if shape.get("outside") != "1":
                one = AnnotatedObject(
                    track.attrib["label"], partial(_cvat_shape, shape, size), int(track.attrib["id"]) + 1
                )
                of_frame.setdefault(int(shape.attrib["frame"]), []).append(
                    (int(shape.get("z_order", 0)), one)
                )
    return [
        AnnotatedFrame("", index, size, tuple(one for _, one in sorted(found, key=lambda pair: pair[0])))
        for index, found in sorted(of_frame.items())
    ]


def _cvat_image(image: Element) -> AnnotatedFrame:
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    shapes = sorted(_cvat_shapes(image), key=lambda shape: int(shape.get("z_order", 0)))
    objects = [AnnotatedObject(shape.attrib["label"], partial(_cvat_shape, shape, size)) for shape in shapes]
    return AnnotatedFrame(image.attrib["name"], None, size, tuple(objects))


def _cvat_shapes(parent: Element) -> Iterator[Element]:
    """Shapes that cover pixels; points, lines and skeletons do not."""
    return (shape for shape in parent if shape.tag in ("mask", "polygon", "box", "ellipse"))


def _cvat_shape(shape: Element, size: Size) -> Labels:
    height, width = size
    if shape.tag == "mask":
        left, top, across, down = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        if not (0 <= left <= left + across <= width and 0 <= top <= top + down <= height):
            raise ValueError("a mask beyond the frame")
        runs = [int(run) for run in shape.attrib["rle"].split(",")]
        whole = np.zeros(size, np.uint8)
        whole[top : top + down, left : left + across] = _unpacked(runs, (down, across))
        return whole
    if shape.tag == "box":
        x0, y0, x1, y1 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif shape.tag == "ellipse":
        x, y, x_radius, y_radius = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        corners = np.stack([x + x_radius * np.cos(angles), y + y_radius * np.sin(angles)], axis=1)
    else:
        pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
        corners = np.array([(float(x), float(y)) for x, y in pairs])
    return _coco_shape([_rotated(corners, float(shape.get("rotation", 0))).ravel().tolist()], size)


def _rotated(corners: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Corners [N, 2], turned clockwise around the middle of their box."""
    if not degrees:
        return corners
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: NDArray[np.float64] = (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    return turned


def labelme_frame(document: dict[str, Any]) -> AnnotatedFrame:
    """The image of a LabelMe file. Shapes of one label and ``group_id`` are one object.

    Raises:
        KeyError, TypeError, ValueError: when the document is damaged.
    """
    size = (int(document["imageHeight"]), int(document["imageWidth"]))
    numbers: dict[tuple[str, Any], int] = {}
    objects = []
    for position, shape in enumerate(document["shapes"]):
        if shape.get("shape_type") not in LABELME_LINES:
            group = shape.get("group_id")
            key = (str(shape["label"]), f"alone {position}" if group is None else group)
            number = 0 if key[0] in LABELME_BACKGROUND else numbers.setdefault(key, len(numbers) + 1)
            objects.append(AnnotatedObject(key[0], partial(_labelme_shape, shape, size), number))
    return AnnotatedFrame(str(document.get("imagePath") or ""), None, size, tuple(objects))


def _labelme_shape(shape: dict[str, Any], size: Size) -> Labels:
    """The pixels that LabelMe's own ``shape_to_mask`` gives a shape."""
    height, width = size
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    _require_near([value for point in points for value in point], size)
    if kind == "mask":
        return _labelme_mask(shape["mask"], points, size)
    picture = Pillow.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    corners = 4 if kind in ("rectangle", "rotation", "oriented_rectangle") else None  # of X-AnyLabeling, too
    if len(points) == corners or (kind == "polygon" and len(points) > 2):
        draw.polygon(points, outline=1, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = float(np.hypot(edge[0] - x, edge[1] - y))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    else:
        raise ValueError(f"a shape of type {kind} with {len(points)} points")
    return _labels(picture)


def _labelme_mask(encoded: str, points: list[tuple[float, float]], size: Size) -> Labels:
    """A mask that is stored as a PNG, for the box between two points, both inclusive."""
    (x0, y0), (x1, y1) = ((int(x), int(y)) for x, y in points)
    try:
        with Pillow.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=("PNG",)) as stored:
            if stored.width * stored.height > MAX_PIXELS:
                raise ValueError("a mask of too many pixels")
            pixels = np.asarray(stored.convert("L")) != 0
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ValueError(f"a mask that is no PNG ({error})") from error
    if pixels.shape != (y1 - y0 + 1, x1 - x0 + 1) or x0 < 0 or y0 < 0 or y1 >= size[0] or x1 >= size[1]:
        raise ValueError("a mask that does not fill its box")
    whole = np.zeros(size, np.uint8)
    whole[y0 : y1 + 1, x0 : x1 + 1] = pixels
    return whole
