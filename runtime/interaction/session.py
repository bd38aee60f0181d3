"""A user watches the tracking and steers it: draws, corrects, pauses, stops. Works with any screen."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...common.types import Image, Labels
from ..pipeline.edits import Decision, Steering, merge_masks
from ..tracking.objects import free_id
from ..tracking.result import Result
from ..video.frame import Frame
from ..video.overlay import draw_overlay
from .drawing import Drawing, DrawingOutcome, Tool
from .events import Event, Key
from .view import View

HELP = "Space: pause | A: add an object | R: redraw an object | Q: quit"

IDLE_MS, PASSING_MS = 30, 1
"""How long to wait for the user: while paused or drawing, and while tracking."""


class Screen(Protocol):
    """Shows pictures and reports what the user does."""

    def show(self, picture: Image) -> None:
        """Show a picture [H, W, 3] uint8 RGB instead of the last one."""

    def events(self, wait_ms: int) -> list[Event]:
        """Events since the last call, after waiting up to ``wait_ms``; ``Key("q")`` when the screen was closed."""

    def close(self) -> None:
        """Close the screen. Closing twice does nothing."""


class Interaction:
    """Both steering and sink of a pipeline: it passes on what a user decides, and shows the results.

    Without a planned first mask, drawing starts at the first frame. If the user skips it, drawing starts at the
    next one, and so on.

    Args:
        screen: shows everything; closed by :meth:`close`.
        planned: edits known beforehand; objects drawn at the same frame lie on top.
    """

    def __init__(self, screen: Screen, planned: Steering) -> None:
        self._screen = screen
        self._planned = planned
        self._last: Result | None = None
        self._tool = Tool.POLYGON
        self._object_id = 1
        self._requested: int | None = None  # the object that the user asked to draw
        self._stopped = False

    def decide(self, frame: Frame) -> Decision:
        """Let the user draw into this frame if they asked for it, or if tracking has not begun."""
        if self._stopped:
            return Decision(verdict="stop")
        planned = self._planned.decide(frame)
        if self._requested is None and (self._last is not None or planned.mask is not None):
            return planned
        drawing = self._draw(frame)
        if drawing.outcome is DrawingOutcome.QUIT:
            return Decision(verdict="stop")
        if drawing.outcome is DrawingOutcome.SKIPPED:
            return Decision(removals=planned.removals, verdict="skip")
        if drawing.outcome is DrawingOutcome.CANCELLED:
            return planned
        removals = [*planned.removals, *sorted(drawing.dropped - set(planned.removals))]
        return Decision(_above(drawing.mask, planned.mask), removals)

    def write(self, frame: Frame, result: Result) -> None:
        """Show a result and handle the user's keys, for as long as the tracking is paused."""
        self._last = result
        picture = draw_overlay(frame.image, result.labels)
        visible = sum(state.box is not None for state in result.objects)
        state = f"Frame {frame.index}: {visible} of {len(result.objects)} objects in sight."
        view = View(frame.image.shape[0], frame.image.shape[1])
        self._screen.show(view.picture(picture, (state, HELP)))
        paused = self._handle(self._screen.events(PASSING_MS), paused=False)
        if not paused:
            return
        self._screen.show(view.picture(picture, (f"Paused. {state}", HELP)))
        while paused:
            paused = self._handle(self._screen.events(IDLE_MS), paused=True)

    def close(self) -> None:
        """Close the screen."""
        self._screen.close()

    def _handle(self, events: list[Event], *, paused: bool) -> bool:
        """Handle keys pressed while tracking; returns whether the tracking is paused now."""
        tracked = frozenset[int]() if self._last is None else _ids(self._last)
        for event in events:
            if event == Key("space"):
                paused = not paused
            elif event == Key("a"):
                self._requested, paused = free_id(tracked) or self._object_id, False
            elif event == Key("r"):
                self._requested, paused = self._object_id, False
            elif event == Key("q"):
                self._stopped, paused = True, False
        return paused

    def _draw(self, frame: Frame) -> Drawing:
        """Let the user draw into a frame until they finish or cancel."""
        drawing = Drawing(
            frame.image,
            np.zeros(frame.image.shape[:2], np.uint8) if self._last is None else self._last.labels,
            frozenset() if self._last is None else _ids(self._last),
            started=self._last is not None,
            object_id=self._requested or self._object_id,
            tool=self._tool,
        )
        self._screen.show(drawing.picture())
        while not drawing.ended:
            events = self._screen.events(IDLE_MS)
            for event in events:
                if not drawing.ended:
                    drawing.handle(event)
            if events:
                self._screen.show(drawing.picture())
        self._tool, self._object_id, self._requested = drawing.tool, drawing.object_id, None
        return drawing


def _ids(result: Result) -> frozenset[int]:
    return frozenset(state.id for state in result.objects)


def _above(drawn: Labels, planned: Labels | None) -> Labels | None:
    """The drawn mask over the planned one; None when neither shows an object."""
    labels = drawn if planned is None else merge_masks(drawn, planned)
    return labels if labels.any() else None
