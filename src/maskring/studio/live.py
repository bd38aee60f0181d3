"""A camera or stream: tracked as it comes, watched by pages, and drawn on while it runs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.errors import MaskError, SourceError, UserError, one_line
from ..common.types import Labels
from ..runtime.pipeline.directions import Drawn
from ..runtime.tracking.tracker import Tracker
from ..runtime.video.frame import Frame
from ..runtime.video.source import Source
from .encoder import FrameEncoder
from .items import Items
from .live_frames import Latency, LiveFrame, MissedFrames, RecentFrames
from .live_tracking import LiveTracking
from .strokes import stroke_on, whole_number

FPS_FRAMES = 30
"""Frames that the shown rate is taken from."""

MAX_UNDO = 50


class LivePage:
    """A page that watches; the session calls these from its own thread."""

    def offer(self, frame: LiveFrame) -> None:
        """A newer frame is there."""

    def tell(self, news: dict[str, Any]) -> None:
        """Something changed."""


@dataclass(eq=False)
class _Frozen:
    """A frame that a page holds, and what is drawn on it."""

    page: LivePage
    frame: LiveFrame
    missed: MissedFrames
    drawings: list[Drawn]
    revision: int = 0


class LiveSession:
    """Any thread may call the methods. One thread tracks, and no other touches the trackers.

    Args:
        name: of the stream, for people.
        source: the open stream, which hands out its newest frame; closed by the session.
        new_tracker: opens a tracker that has seen no frame.
        encoder: gives the features of frames.
        size: shorter side of the frames that the tracker sees, None for their own.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        new_tracker: Callable[[], Tracker],
        encoder: FrameEncoder,
        size: int | None = None,
    ) -> None:
        self.name, self.source = name, source
        self.latency = Latency()
        self._new_tracker, self._encoder, self._size = new_tracker, encoder, size
        self._items = Items(reuse=True)
        self._pages: set[LivePage] = set()
        self._lock = threading.RLock()
        self._recent = RecentFrames()
        self._frozen: _Frozen | None = None
        self._revisions = 0
        self._versions = itertools.count(time.time_ns() // 1_000_000)
        # Both wait for the thread.
        self._drawn: tuple[Drawn, Labels | None, MissedFrames] | None = None
        self._removed: set[int] = set()
        self._catching_up: tuple[int, int] | None = None  # frames done, and of all
        self._tracked: frozenset[int] = frozenset()
        self._ended: str | None = None
        self._times: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="studio live", daemon=True)

    def start(self) -> None:
        """Begin to read the stream."""
        self._thread.start()

    def close(self) -> None:
        """Stop and wait for that."""
        self._stop.set()
        self.source.close()  # ends waiting for a frame
        self._thread.join()

    # What pages are told -------------------------------------------------------------------------

    def watch(self, page: LivePage) -> None:
        """Send a page what comes from now on."""
        with self._lock:
            self._pages.add(page)

    def leave(self, page: LivePage) -> None:
        """The page is gone, and what it had frozen with it."""
        with self._lock:
            self._pages.discard(page)
            if self._frozen is not None and self._frozen.page is page:
                self._thaw()

    def state(self) -> dict[str, Any]:
        """Everything but frames."""
        with self._lock:
            frozen = self._frozen
            return {
                "version": next(self._versions),  # answers may reach a page in another order
                "live": True,
                "name": self.name,
                "height": self.source.size[0],
                "width": self.source.size[1],
                "objects": [
                    {**vars(item), "tracked": item.id in self._tracked} for item in self._items.values()
                ],
                "frozen": None if frozen is None else frozen.frame.frame.index,
                "revision": 0 if frozen is None else frozen.revision,
                "undo": frozen is not None and bool(frozen.drawings),
                "catching_up": (0, 0) if self._drawn is not None else self._catching_up,
                "ended": self._ended,
            }

    def figures(self) -> dict[str, Any]:
        """How the tracker keeps up with the stream."""
        times = self._times
        passed = times[-1] - times[0] if len(times) > 1 else 0.0
        return {
            "fps": round((len(times) - 1) / passed, 1) if passed else None,
            "dropped": self.source.dropped,
            "undecodable": self.source.undecodable,
            "reconnects": self.source.reconnects,
            "latency": self.latency.told(),
        }

    # What pages do -------------------------------------------------------------------------------

    def freeze(self, page: LivePage, index: int) -> None:
        """Hold a frame so that the page can draw on it; the stream goes on.

        Raises:
            UserError: when another page draws, or the last drawing is not tracked yet.
            MaskError: when the frame is gone.
        """
        with self._lock:
            if self._frozen is not None and self._frozen.page is not page:
                raise UserError("another page has a frame frozen", "wait until it goes on, or close it")
            if self._drawn is not None or self._catching_up is not None:
                raise UserError(
                    "the objects drawn last have not reached the newest frame", "wait a moment, then freeze"
                )
            frames = self._recent.since(index)
            if not frames:
                raise MaskError(f"frame {index} is gone", "freeze a newer one")
            missed = MissedFrames([one.frame for one in frames])
            self._frozen = _Frozen(page, frames[0], missed, [])
            self._changed()

    def stroke(self, page: LivePage, stroke: Mapping[str, Any]) -> None:
        """Draw on the frozen frame.

        Raises:
            UserError: when the page has none, the stroke is malformed, or no object is found.
        """
        frozen = self._held(page)
        frame = frozen.frame.frame
        item = self._items[whole_number(stroke.get("object"), 1, 255)]
        drawn = stroke_on(
            frame.image,
            self._shown(frozen),
            frozen.drawings[-1] if frozen.drawings else None,
            {**stroke, "object": item.id},
            lambda: self._encoder.features(("live", frame.index), frame.image),
        )
        with self._lock:
            self._held(page)
            frozen.drawings = [*frozen.drawings[-MAX_UNDO:], drawn]
            self._revise(frozen)

    def undo(self, page: LivePage) -> None:
        """Take the last stroke back.

        Raises:
            UserError: when there is none.
        """
        with self._lock:
            frozen = self._held(page)
            if not frozen.drawings:
                raise UserError("there is no stroke to take back", "draw first")
            frozen.drawings.pop()
            self._revise(frozen)

    def go_on(self, page: LivePage) -> None:
        """Show the stream again; what was drawn is tracked from its frame to the newest one.

        Raises:
            UserError: when the page has no frozen frame.
        """
        with self._lock:
            frozen = self._held(page)
            if frozen.drawings and frozen.drawings[-1].ids:
                self._drawn = frozen.drawings[-1], frozen.frame.labels, frozen.missed
            self._thaw()

    def drawing(self) -> Labels:
        """[H, W] ids that the frozen frame shows.

        Raises:
            MaskError: when no frame is frozen.
        """
        with self._lock:
            if self._frozen is None:
                raise MaskError("no frame is frozen", "freeze one")
            return self._shown(self._frozen)

    def add_object(self, name: str = "") -> None:
        """Add an object, to be drawn."""
        with self._lock:
            self._items.add(name)
            self._changed()

    def change_object(self, object_id: int, **changes: str | None) -> None:
        """Rename or recolour an object."""
        with self._lock:
            self._items.change(object_id, **changes)
            self._changed()

    def remove_object(self, object_id: int) -> None:
        """Stop tracking an object."""
        with self._lock:
            del self._items[self._items[object_id].id]
            self._removed.add(object_id)
            self._changed()

    def _held(self, page: LivePage) -> _Frozen:
        if self._frozen is None or self._frozen.page is not page:
            raise UserError("this page has no frozen frame", "freeze one, then draw on it")
        return self._frozen

    def _shown(self, frozen: _Frozen) -> Labels:
        before = frozen.frame.labels
        if frozen.drawings:
            return frozen.drawings[-1].over(before)
        return np.zeros(self.source.size, np.uint8) if before is None else before

    def _revise(self, frozen: _Frozen) -> None:
        self._revisions += 1
        frozen.revision = self._revisions
        self._changed()

    def _thaw(self) -> None:
        self._frozen = None
        self._changed()

    def _changed(self) -> None:
        self._tell({"type": "state", **self.state()})

    def _tell(self, news: dict[str, Any]) -> None:
        with self._lock:
            for page in self._pages:
                page.tell(news)

    # The thread ----------------------------------------------------------------------------------

    def _go(self) -> None:
        ended = str(SourceError("the stream has ended", "start maskring studio again"))
        try:
            with self.source as source, ExitStack() as stack:
                tracking = LiveTracking(
                    lambda: stack.enter_context(self._new_tracker()), self._size, self._complain, self._lost
                )
                begun = time.monotonic()  # frames tell their time since the first
                for frame in source:
                    if self._stop.is_set():
                        return
                    self._follow(tracking, frame, begun + frame.timestamp)
        except UserError as error:
            ended = str(error)
        except Exception as defect:  # the page has to hear of it; the log of the server gets the rest
            ended = f"tracking failed: {one_line(repr(defect))}"
            raise
        finally:
            with self._lock:
                self._ended = ended
                self._changed()

    def _follow(self, tracking: LiveTracking, frame: Frame, arrived: float) -> None:
        """Track one frame and hand it to the pages."""
        with self._lock:
            removed, self._removed = self._removed, set()
            drawn, self._drawn = self._drawn, None
        tracking.remove(removed)
        if drawn is not None:
            tracking.draw(*drawn)
        result = tracking.follow(frame)
        labels, objects = (None, ()) if result is None else (result.labels, result.objects)
        with self._lock:
            shown = LiveFrame(frame, labels, objects, arrived)
            self._recent.add(shown)
            if self._frozen is not None:
                self._frozen.missed.add(frame)
            self._times = [*self._times[-FPS_FRAMES:], time.monotonic()]
            catching = tracking.catch_up
            told = tracking.tracked, None if catching is None else (catching.done, catching.total)
            if told != (self._tracked, self._catching_up):
                self._tracked, self._catching_up = told
                self._changed()
            for page in self._pages:
                page.offer(shown)

    def _complain(self, error: str) -> None:
        self._tell({"type": "told", "error": error})

    def _lost(self, object_id: int) -> None:
        item = self._items.get(object_id)
        if item is not None:
            self._complain(f"{item.name} left the picture while it was drawn; draw it again")
