"""Drawing objects into one frame: what clicks and keys mean, and what is shown. No window in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import MAX_LABELS
from ..video.masks import Labels
from ..video.overlay import Image, draw_overlay
from ..video.palette import PALETTE

Point = tuple[int, int]
"""(x, y) in pixels of the frame, or of the picture on the screen where it says so."""

ENTER, BACKSPACE, ESCAPE, SPACE = "enter", "backspace", "escape", "space"

CLOSING_REACH = 8
"""A click so many screen pixels from a polygon's first corner closes it."""

SMALLEST_BOX = 6
"""Pixels of a side below which a box says too little for GrabCut."""

GRABCUT_MARGIN = 0.5
"""How much of the box's size around it GrabCut looks at, on each side: the background it learns."""

GRABCUT_PIXELS = 1 << 17
"""More than this is scaled down first, so that a box in a 4K frame answers as quickly as one in a clip."""

GRABCUT_ITERATIONS = 5

LIKELY, CERTAIN = 0.9, 0.25
"""Ellipses in the box, as shares of its size, inside which the object is likely and certain. Where the whole
box is likely, as GrabCut has it by itself, more of what it holds beside the object is taken along."""

LINE_HEIGHT, MARGIN, TEXT_SCALE = 20, 8, 0.45
FONT = cv2.FONT_HERSHEY_SIMPLEX
LEAST_WIDTH, MOST_WIDTH, MOST_HEIGHT = 640, 1280, 720


class Tool(Enum):
    """How a shape is outlined."""

    POLYGON = "polygon"
    BOX = "box"


class Outcome(Enum):
    """How drawing ended, or that it did not yet."""

    DRAWING = "drawing"
    DONE = "done"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    QUIT = "quit"


@dataclass(frozen=True)
class Pointer:
    """What the mouse did. ``close`` is its right button; x and y are pixels of the picture on the screen."""

    kind: Literal["press", "move", "release", "close"]
    x: int
    y: int


@dataclass(frozen=True)
class Key:
    """A key: a lower-case character or one of ENTER, BACKSPACE, ESCAPE, SPACE."""

    name: str


Event = Pointer | Key


@dataclass(frozen=True)
class View:
    """How a frame lies on the screen: scaled into the upper left corner of a picture, text below it.

    Attributes:
        height: of the frame, in pixels.
        width: of the frame, in pixels.
    """

    height: int
    width: int

    @property
    def scale(self) -> float:
        """Screen pixels per frame pixel: small clips are enlarged, large frames fitted to a screen."""
        enlarged = max(1.0, LEAST_WIDTH / self.width)
        return min(enlarged, MOST_WIDTH / self.width, MOST_HEIGHT / self.height)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame on the screen."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def to_frame(self, x: int, y: int) -> Point:
        """The frame's pixel under a screen pixel, the nearest one when that lies outside."""
        column, row = int((x + 0.5) // self.scale), int((y + 0.5) // self.scale)
        return min(max(column, 0), self.width - 1), min(max(row, 0), self.height - 1)

    def to_screen(self, point: Point) -> Point:
        """Screen pixel at the centre of a frame's pixel."""
        return int((point[0] + 0.5) * self.scale), int((point[1] + 0.5) * self.scale)

    def picture(self, image: Image, lines: tuple[str, ...]) -> Image:
        """The frame as large as it is shown, with text below it.

        Args:
            image: [H, W, 3] uint8 RGB of this view's size.
            lines: each as one or more lines of text; ASCII, which is all that OpenCV draws.

        Returns:
            [H', W', 3] uint8 RGB.
        """
        height, width = self.size
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        frame = cv2.resize(image, (width, height), interpolation=interpolation)
        full_width = max(width, LEAST_WIDTH)
        wrapped = [part for line in lines for part in _wrapped(line, full_width - 2 * MARGIN)]
        picture = np.zeros((height + LINE_HEIGHT * len(wrapped) + MARGIN, full_width, 3), np.uint8)
        picture[:height, :width] = frame
        for row, text in enumerate(wrapped, 1):
            origin = (MARGIN, height + LINE_HEIGHT * row - 4)
            cv2.putText(picture, text, origin, FONT, TEXT_SCALE, (230, 230, 230), 1, cv2.LINE_AA)
        return picture


@dataclass(frozen=True, eq=False)
class Shape:
    """One outlined piece of an object; inside is [H, W] bool."""

    object_id: int
    inside: NDArray[np.bool_]


@dataclass(eq=False)
class Drawing:
    """A user outlining objects in one frame.

    Shapes with one number form one object; where shapes overlap, the later one counts.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        followed: [H, W] uint8 objects that are tracked already, where they were last seen.
        known: ids of the tracked objects, visible or not.
        started: frames were tracked before, so that drawing can be cancelled but no frame skipped.
        object_id: number of the object that is drawn.
        tool: outlines the next shape.
        outcome: whether and how it ended.
        message: what the last event did, for the user.
        dropped: tracked objects that are to be followed no longer.
    """

    image: Image
    followed: Labels
    known: frozenset[int] = frozenset()
    started: bool = False
    object_id: int = 1
    tool: Tool = Tool.POLYGON
    outcome: Outcome = Outcome.DRAWING
    message: str = ""
    dropped: set[int] = field(default_factory=set)
    _shapes: list[Shape] = field(default_factory=list)
    _corners: list[Point] = field(default_factory=list)
    _anchor: Point | None = None
    _pointer: Point | None = None

    def __post_init__(self) -> None:
        self.view = View(self.image.shape[0], self.image.shape[1])

    @property
    def mask(self) -> Labels:
        """[H, W] uint8: what was drawn, 0 elsewhere."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for shape in self._shapes:
            labels[shape.inside] = shape.object_id
        return labels

    @property
    def ended(self) -> bool:
        """Whether the user has finished, one way or the other."""
        return self.outcome is not Outcome.DRAWING

    def handle(self, event: Event) -> None:
        """Take one event; :attr:`outcome`, :attr:`mask` and :meth:`picture` say what came of it."""
        self.message = ""
        if isinstance(event, Pointer):
            self._point(event)
        else:
            self._press(event.name)

    def picture(self) -> Image:
        """What the user sees: objects, the shape that is being outlined, the keys. [H', W', 3] uint8 RGB."""
        drawn = self.mask
        gone = [*np.unique(drawn[drawn > 0]), *self.dropped]
        left = np.where(np.isin(self.followed, gone), 0, self.followed)
        painted = draw_overlay(self.image, np.where(drawn > 0, drawn, left).astype(np.uint8))
        picture = self.view.picture(painted, (self._state(), self._help()))
        self._draw_outline(picture)
        return picture

    # What events do ------------------------------------------------------------------------------

    def _point(self, event: Pointer) -> None:
        point = self._pointer = self.view.to_frame(event.x, event.y)
        if event.kind == "close":
            self._close_polygon()
        elif self.tool is Tool.POLYGON and event.kind == "press":
            if len(self._corners) >= 3 and self._near_first_corner(event):
                self._close_polygon()
            else:
                self._corners.append(point)
        elif self.tool is Tool.BOX and event.kind == "press":
            self._anchor = point
        elif self.tool is Tool.BOX and event.kind == "release" and self._anchor is not None:
            anchor, self._anchor = self._anchor, None
            self._cut(anchor, point)

    def _press(self, key: str) -> None:
        if key == ENTER:
            self._finish()
        elif key == BACKSPACE:
            self._take_back()
        elif key == ESCAPE:
            self.outcome = Outcome.CANCELLED if self.started else Outcome.QUIT
        elif key == "q":
            self.outcome = Outcome.QUIT
        elif key == "s" and not self.started:
            self.outcome = Outcome.SKIPPED
        elif key in ("p", "b"):
            self._corners.clear()
            self._anchor = None
            self.tool = Tool.POLYGON if key == "p" else Tool.BOX
        elif key == "r":
            self._start_over()
        elif key == "x":
            self._drop()
        elif key == "n":
            self._next_object()
        elif key in tuple("123456789"):
            self._select(int(key))

    def _finish(self) -> None:
        if self._corners and not self._close_polygon():
            return
        if self._shapes or self.dropped:
            self.outcome = Outcome.DONE
        else:
            self.message = "Nothing is drawn yet."

    def _take_back(self) -> None:
        if self._corners:
            self._corners.pop()
        elif self._shapes:
            self.object_id = self._shapes.pop().object_id

    def _start_over(self) -> None:
        self._corners.clear()
        self._anchor = None
        self._shapes = [shape for shape in self._shapes if shape.object_id != self.object_id]

    def _drop(self) -> None:
        self._start_over()
        if self.object_id in self.known:
            self.dropped.add(self.object_id)
            self.message = f"Object {self.object_id} is followed no longer."

    def _next_object(self) -> None:
        if self._corners and not self._close_polygon():
            return
        taken = self.known | {shape.object_id for shape in self._shapes}
        new = free_id(taken)
        if new is None:
            self.message = f"There are {MAX_LABELS - 1} objects already."
        else:
            self.object_id = new

    def _select(self, object_id: int) -> None:
        if not self._corners or self._close_polygon():
            self.object_id = object_id

    def _near_first_corner(self, event: Pointer) -> bool:
        x, y = self.view.to_screen(self._corners[0])
        return max(abs(event.x - x), abs(event.y - y)) <= CLOSING_REACH

    def _close_polygon(self) -> bool:
        if len(self._corners) < 3:
            self.message = "A polygon needs three corners."
            return False
        self._shapes.append(Shape(self.object_id, fill_polygon(self._corners, self.image.shape[:2])))
        self._corners.clear()
        return True

    def _cut(self, anchor: Point, point: Point) -> None:
        left, right = sorted((anchor[0], point[0]))
        top, bottom = sorted((anchor[1], point[1]))
        inside = cut_from_box(self.image, (left, top, right + 1, bottom + 1))
        if inside is None:
            self.message = "No object was found: draw a larger box that leaves some background around it."
        else:
            self._shapes.append(Shape(self.object_id, inside))

    # What is shown -------------------------------------------------------------------------------

    def _state(self) -> str:
        what = f"Object {self.object_id}, {self.tool.value}."
        how = (
            "Click its corners; click the first one again to close it."
            if self.tool is Tool.POLYGON
            else "Drag a box around it."
        )
        return f"{what} {self.message or how}"

    def _help(self) -> str:
        drop = "X: drop object | " if self.known else ""
        last = "Esc: go on without" if self.started else "S: skip this frame"
        return (
            "Enter: track | N: another object | 1-9: choose object | P: polygon | B: box (GrabCut) | "
            f"Backspace: take back | R: redo object | {drop}{last} | Q: quit"
        )

    def _draw_outline(self, picture: Image) -> None:
        """Draw the polygon or box that is not closed yet."""
        colour = tuple(int(255 - (255 - value) // 2) for value in PALETTE[self.object_id])
        corners = [self.view.to_screen(corner) for corner in self._corners]
        if corners:
            pointer = [] if self._pointer is None else [self.view.to_screen(self._pointer)]
            cv2.polylines(picture, [np.array(corners + pointer, np.int32)], False, colour, 1, cv2.LINE_AA)
        for corner in corners:
            cv2.circle(picture, corner, 3, colour, cv2.FILLED, cv2.LINE_AA)
        if self._anchor is not None and self._pointer is not None:
            ends = self.view.to_screen(self._anchor), self.view.to_screen(self._pointer)
            cv2.rectangle(picture, *ends, colour, 1)


def free_id(taken: frozenset[int] | set[int]) -> int | None:
    """The lowest object id that is not taken, None when all are."""
    return next((number for number in range(1, MAX_LABELS) if number not in taken), None)


def fill_polygon(corners: list[Point], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels inside a polygon and on its boundary, [H, W] bool.

    Args:
        corners: at least three pixels (x, y); the last is joined to the first.
        shape: (H, W).
    """
    inside = np.zeros(shape, np.uint8)
    cv2.fillPoly(inside, [np.array(corners, np.int32)], 1)
    return inside.astype(bool)


def cut_from_box(image: Image, box: tuple[int, int, int, int]) -> NDArray[np.bool_] | None:
    """The object in a box, by GrabCut: two colour mixtures and a graph cut (Rother et al., SIGGRAPH 2004).

    The middle of the box is taken for part of the object, its corners rather for background. The same frame
    and box give the same object: OpenCV's random numbers are seeded.

    Args:
        image: [H, W, 3] uint8 RGB.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 just outside; there must be pixels around it.

    Returns:
        [H, W] bool; None when the box is too small or leaves no background.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if min(x1 - x0, y1 - y0) < SMALLEST_BOX:
        return None
    beside, above = round(GRABCUT_MARGIN * (x1 - x0)) + 1, round(GRABCUT_MARGIN * (y1 - y0)) + 1
    left, top = max(0, x0 - beside), max(0, y0 - above)
    crop = image[top : y1 + above, left : x1 + beside]
    shrink = min(1.0, (GRABCUT_PIXELS / (crop.shape[0] * crop.shape[1])) ** 0.5)
    small = cv2.resize(crop, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    seeds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    rows = slice(round((y0 - top) * shrink), round((y1 - top) * shrink))
    columns = slice(round((x0 - left) * shrink), round((x1 - left) * shrink))
    seeds[rows, columns] = _seeds_in_box(*seeds[rows, columns].shape)
    if not (seeds == cv2.GC_BGD).any() or not (seeds % 2).any():  # GC_FGD and GC_PR_FGD are the odd ones
        return None
    cv2.setRNGSeed(0)
    ground, object_ = np.zeros((1, 65)), np.zeros((1, 65))
    unused = (0, 0, 1, 1)
    cv2.grabCut(small, seeds, unused, ground, object_, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = (seeds % 2).astype(np.float32)
    if not found.any():
        return None
    inside = np.zeros((height, width), bool)
    full = cv2.resize(found, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    inside[top : y1 + above, left : x1 + beside] = full
    return inside if inside.any() else None


def _seeds_in_box(height: int, width: int) -> NDArray[np.uint8]:
    """What GrabCut is told of the pixels of a box [H, W]."""
    y, x = np.ogrid[:height, :width]
    distance = np.hypot((2 * y + 1) / height - 1, (2 * x + 1) / width - 1)  # 1 on the inscribed ellipse
    seeds = np.where(distance < LIKELY, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return np.where(distance < CERTAIN, cv2.GC_FGD, seeds).astype(np.uint8)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of text no wider than WIDTH pixels, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and cv2.getTextSize(longer, FONT, TEXT_SCALE, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
