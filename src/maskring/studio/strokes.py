"""What a stroke of a tool does to the mask of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..common.errors import MaskError, UserError
from ..common.types import Image, Labels
from ..runtime.interaction.drawing import fill_polygon
from ..runtime.interaction.grabcut import MIN_BOX_SIDE, cut_from_box
from ..runtime.interaction.scribble import FrameFeatures, Scribble, outline_from_scribble
from ..runtime.pipeline.directions import Drawn

MAX_POINTS = 5000
MAX_LINES = 100
MAX_RADIUS = 500
"""Pixels."""

Inside = NDArray[np.bool_]


def stroke_on(
    image: Image,
    shown: Labels,
    drawn: Drawn | None,
    stroke: Mapping[str, Any],
    features: Callable[[], FrameFeatures],
) -> Drawn:
    """What is drawn on a frame after one more stroke.

    Args:
        image: [H, W, 3] uint8 RGB.
        shown: [H, W] ids that the frame shows.
        drawn: what is drawn on it, None for nothing.
        stroke: ``tool`` (box, polygon, scribble, brush, eraser), ``object``, ``points`` [[x, y], ...] in pixels, and
            ``radius`` of brush and eraser in pixels. A box has two points, its first and its last pixel. A
            scribble has ``inside`` and ``outside``, lists of lines, instead of points.
        features: gives the encoder's features of the image.

    Returns:
        The new drawing. The object is replaced by a box or a scribble; the other tools add to it or take from it.

    Raises:
        MaskError: when no object is found, or nothing changes.
        UserError: when the stroke is malformed.
    """
    tool, object_id = str(stroke.get("tool")), whole_number(stroke.get("object"), 1, 255)
    before = shown == object_id
    if tool == "scribble":
        inside, outside = (_lines(stroke.get(side), image.shape) for side in ("inside", "outside"))
        after = outline_from_scribble(image, features(), Scribble(inside, outside))
        return replaced(shown, drawn, object_id, after)
    points = _points(stroke.get("points"), image.shape)
    if tool == "box":
        after = _cut(image, points)
    elif tool == "polygon":
        if len(points) < 3:
            raise MaskError("a polygon needs three corners", "click more corners, then the first one again")
        after = before | fill_polygon(points, shown.shape)
    elif tool in ("brush", "eraser"):
        radius = whole_number(stroke.get("radius", 0), 0, MAX_RADIUS)
        if tool == "eraser" and not before.any():
            raise MaskError("this object is not on this frame", "choose the object to erase in the list")
        touched = _line(points, radius, shown.shape)
        after = before | touched if tool == "brush" else before & ~touched
    else:
        raise UserError(f"there is no tool {tool!r}", "use box, polygon, scribble, brush or eraser")
    return replaced(shown, drawn, object_id, after)


def replaced(shown: Labels, drawn: Drawn | None, object_id: int, inside: Inside) -> Drawn:
    """What is drawn on a frame once an object covers other pixels than before.

    Args:
        shown: [H, W] ids that the frame shows.
        drawn: what is drawn on it, None for nothing.
        object_id: the object.
        inside: [H, W] the pixels that it covers from now on.
    """
    mask = np.zeros_like(shown) if drawn is None else drawn.mask.copy()
    ids = frozenset() if drawn is None else drawn.ids
    mask[mask == object_id] = 0
    # Objects that lose pixels to this one and were drawn lose them in the drawing too; tracked ones lie below.
    mask[inside] = object_id
    return Drawn(mask, ids | {object_id})


def _cut(image: Image, points: list[tuple[int, int]]) -> Inside:
    if len(points) != 2:
        raise UserError("a box has two corners", "drag from one corner to the opposite one")
    (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*points, strict=True))
    inside = cut_from_box(image, (x0, y0, x1 + 1, y1 + 1))
    if inside is None:
        raise MaskError(
            "no object was found in the box",
            f"make it at least {MIN_BOX_SIDE} pixels wide and high, and leave background around it",
        )
    return inside


def _line(points: list[tuple[int, int]], radius: int, shape: tuple[int, ...]) -> Inside:
    """Pixels within ``radius`` of a line through the points; radius 0 is one pixel wide."""
    touched = np.zeros(shape, np.uint8)
    if radius:
        for point in points:
            cv2.circle(touched, point, radius, 1, cv2.FILLED)
    cv2.polylines(touched, [np.array(points, np.int32)], False, 1, max(1, 2 * radius))
    if len(points) == 1 and not radius:
        touched[points[0][1], points[0][0]] = 1
    return touched.astype(bool)


def _points(points: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pixels inside the frame; those outside are moved to its edge."""
    if not isinstance(points, list) or not 1 <= len(points) <= MAX_POINTS:
        raise UserError("the stroke has no points, or too many", f"send 1 to {MAX_POINTS}")
    try:
        return [(min(max(int(x), 0), shape[1] - 1), min(max(int(y), 0), shape[0] - 1)) for x, y in points]
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("the stroke's points are not pixels", "send [[x, y], ...]") from error


def _lines(lines: Any, shape: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    if not isinstance(lines, list) or len(lines) > MAX_LINES:
        raise UserError("the scribble has no lines, or too many", f"send at most {MAX_LINES}")
    return [_points(line, shape) for line in lines]


def whole_number(value: Any, least: int, most: int) -> int:
    """A number that a page sent.

    Raises:
        UserError: when it is none, or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(f"{value!r} is out of range", f"send a whole number from {least} to {most}")
    return value
