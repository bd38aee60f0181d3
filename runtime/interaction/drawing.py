"""A user outlines objects in one frame: what clicks and keys mean, and what is shown. It opens no window."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import MAX_LABELS, Image, Labels
from ..tracking.objects import free_id
from ..video.overlay import draw_overlay
from ..video.palette import PALETTE
from .events import BACKSPACE, ENTER, ESCAPE, Event, Pointer
from .grabcut import cut_from_box
from .view import Point, View

CLOSING_REACH = 8
"""A click within so many screen pixels of a polygon's first corner closes it."""


class Tool(Enum):
    """How a shape is outlined."""

    POLYGON = "polygon"
    BOX = "box"


class DrawingOutcome(Enum):
    """Whether drawing has ended, and how."""

    DRAWING = "drawing"
    DONE = "done"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    QUIT = "quit"


@dataclass(frozen=True, eq=False)
class Shape:
    """A piece of an object.

    Attributes:
        object_id: number of the object.
        inside: its pixels, [H, W] bool.
    """

    object_id: int
    inside: NDArray[np.bool_]


@dataclass(eq=False)
class Drawing:
    """A user outlines objects in one frame.

    Shapes of the same number form one object. Where shapes overlap, the later one counts.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        tracked: [H, W] uint8 ids of tracked objects, where they were last seen.
        tracked_ids: ids of all tracked objects, visible or not.
        started: frames were tracked before. Then drawing can be cancelled, but no frame skipped.
        object_id: number of the object that is being drawn.
        tool: outlines the next shape.
        outcome: whether drawing has ended, and how.
        message: tells the user what the last event did.
        dropped: tracked objects that the user wants to stop tracking.
    """

    image: Image
    tracked: Labels
    tracked_ids: frozenset[int] = frozenset()
    started: bool = False
    object_id: int = 1
    tool: Tool = Tool.POLYGON
    outcome: DrawingOutcome = DrawingOutcome.DRAWING
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
        """The drawn objects, [H, W] uint8; 0 elsewhere."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for shape in self._shapes:
            labels[shape.inside] = shape.object_id
        return labels

    @property
    def ended(self) -> bool:
        """Whether the user has finished or given up."""
        return self.outcome is not DrawingOutcome.DRAWING

    def handle(self, event: Event) -> None:
        """Handle one event; it changes :attr:`outcome`, :attr:`mask` and :meth:`picture`."""
        self.message = ""
        if isinstance(event, Pointer):
            self._point(event)
        else:
            self._press(event.name)

    def picture(self) -> Image:
        """The picture for the user, [H', W', 3] uint8 RGB: objects, the shape in progress, the keys."""
        drawn = self.mask
        replaced = [*np.unique(drawn[drawn > 0]), *self.dropped]
        remaining = np.where(np.isin(self.tracked, replaced), 0, self.tracked)
        painted = draw_overlay(self.image, np.where(drawn > 0, drawn, remaining).astype(np.uint8))
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
            self.outcome = DrawingOutcome.CANCELLED if self.started else DrawingOutcome.QUIT
        elif key == "q":
            self.outcome = DrawingOutcome.QUIT
        elif key == "s" and not self.started:
            self.outcome = DrawingOutcome.SKIPPED
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
            self.outcome = DrawingOutcome.DONE
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
        if self.object_id in self.tracked_ids:
            self.dropped.add(self.object_id)
            self.message = f"Object {self.object_id} is no longer tracked."

    def _next_object(self) -> None:
        if self._corners and not self._close_polygon():
            return
        taken = self.tracked_ids | {shape.object_id for shape in self._shapes}
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
            self.message = "No object was found: draw a larger box, with background around it."
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
        drop = "X: drop object | " if self.tracked_ids else ""
        last = "Esc: go on without" if self.started else "S: skip this frame"
        return (
            "Enter: track | N: another object | 1-9: choose object | P: polygon | B: box (GrabCut) | "
            f"Backspace: take back | R: redo object | {drop}{last} | Q: quit"
        )

    def _draw_outline(self, picture: Image) -> None:
        """Draw the unfinished polygon or box."""
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


def fill_polygon(corners: list[Point], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels inside a polygon and on its boundary, [H, W] bool.

    Args:
        corners: at least three pixels (x, y); the last is connected to the first.
        shape: (H, W).
    """
    inside = np.zeros(shape, np.uint8)
    cv2.fillPoly(inside, [np.array(corners, np.int32)], 1)
    return inside.astype(bool)
