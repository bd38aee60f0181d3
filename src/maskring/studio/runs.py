"""Tracking in a thread: one run at a time, for all clips."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from ..common.errors import MaskError, UserError, one_line
from ..common.types import Labels
from ..runtime.pipeline.directions import Drawn, Run, merge_runs
from ..runtime.pipeline.loop import track
from ..runtime.pipeline.resized import ResizedTracker
from ..runtime.tracking.objects import ids_in
from ..runtime.tracking.result import Result
from ..runtime.tracking.tracker import Tracker
from ..runtime.video.frame import Frame
from ..runtime.video.source import Source
from .frames import FrameStore
from .project import Files
from .trust import overlap, softness
from .workspace import Workspace

NEWS_S = 0.3
"""Seconds between messages to pages about tracked frames; pages decide when to show one (``page/pace.js``)."""

Direction = Literal["forward", "backward"]


class Runner:
    """Starts and stops runs.

    Args:
        new_tracker: opens a tracker that has seen no frame.
        size: shorter side of the frames that it sees, None for their own.
    """

    def __init__(self, new_tracker: Callable[[], Tracker], size: int | None = None) -> None:
        self._new_tracker, self._size = new_tracker, size
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, workspace: Workspace, index: int, direction: Direction) -> None:
        """Follow the objects of a frame, or of the nearest one before it in this direction that has a mask.

        Raises:
            MaskError: when no such frame has a mask, or no frame is left.
            UserError: when another run goes on.
        """
        with workspace.lock:
            plan = _Plan.of(workspace, index, direction)
            if not self._busy.acquire(blocking=False):
                raise UserError("an object is being tracked already", "stop that first, or wait for its end")
            workspace.run = {
                "direction": direction,
                "done": 0,
                "total": plan.total(workspace.store),
                "frame": plan.first,
            }
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._go, args=(workspace, plan, self._stop), daemon=True)
            self._thread.start()
        workspace.changed()

    def stop(self) -> None:
        """End the run after the frame that it is at; its results stay."""
        self._stop.set()

    def close(self) -> None:
        """End the run and wait for that."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _go(self, workspace: Workspace, plan: _Plan, stop: threading.Event) -> None:
        error = None
        run = Run(plan.start, _Drawings(workspace), stop)
        sink = _ProjectSink(workspace, run, plan)
        try:
            workspace.publish({"type": "status", "text": "Opening the model"})
            with plan.open(workspace.store) as source, self._new_tracker() as tracker:
                track(
                    source,
                    tracker if self._size is None else ResizedTracker(tracker, self._size),
                    [sink],
                    run,
                )
        except UserError as problem:
            error = str(problem)
        except Exception as defect:  # the page has to hear of it; the log of the server gets the rest
            error = f"tracking failed: {one_line(repr(defect))}"
            raise
        finally:
            error = self._end(workspace, sink) or error
            told = {"error": error, "stopped": stop.is_set(), "frames": sink.done, "fps": sink.fps}
            workspace.publish({"type": "ended", **told})
            workspace.changed()

    def _end(self, workspace: Workspace, sink: _ProjectSink) -> str | None:
        """Another run may begin, whatever happens; returns why the end of this one could not be saved."""
        with workspace.lock:
            try:
                sink.finish()
            except UserError as problem:
                return str(problem)
            finally:
                workspace.run = None
                self._busy.release()
        return None


class _Plan:
    """Where a run begins, through which frames it goes, and which objects it replaces there.

    Backwards it replaces the objects that were drawn on its first frame; the others keep what they have there. Forwards
    it replaces every object that it follows.
    """

    def __init__(self, start: Drawn, first: int, backwards: list[int], only: frozenset[int]) -> None:
        self.start, self.first, self.only = start, first, only
        self._backwards = backwards

    @classmethod
    def of(cls, workspace: Workspace, index: int, direction: Direction) -> _Plan:
        project, backward = workspace.project, direction == "backward"
        frames = workspace.store.indices
        known = set(project.masked).intersection(frames)  # only a part of the clip may be open
        masked = sorted(frame for frame in known if (frame >= index if backward else frame <= index))
        if not masked:
            where = "this frame or a later one" if backward else "this frame or an earlier one"
            raise MaskError(f"no object is outlined on {where}", "draw a box around an object first")
        begin = masked[0] if backward else masked[-1]
        labels = project.labels(begin)
        drawn = project.drawn(begin)
        if labels is None or not labels.any():
            raise MaskError(f"frame {begin} shows no object", "draw one there, or go to another frame")
        ids = frozenset(ids_in(labels)) | (frozenset() if drawn is None else drawn.ids)
        if begin == frames[0 if backward else -1] and (backward or workspace.store.complete):
            raise MaskError(
                f"frame {begin} is the {'first' if backward else 'last'} one", "go to another frame"
            )
        only = drawn.ids if backward and drawn is not None else frozenset()
        return cls(
            Drawn(labels, ids), begin, [f for f in frames if f <= begin][::-1] if backward else [], only
        )

    def open(self, store: FrameStore) -> Source:
        """The frames of the run."""
        return store.open(self._backwards) if self._backwards else store.open_from(self.first)

    def total(self, store: FrameStore) -> int:
        """How many frames these are; while a video is being decoded, as many as it claims to have."""
        if self._backwards:
            return len(self._backwards)
        there = sum(frame >= self.first for frame in store.indices)
        return there if store.complete else max(there, store.expected - self.first + store.indices[0])


class _Drawings(Mapping[int, Drawn]):
    """What is drawn on each frame at the moment that the run gets there."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __getitem__(self, index: int) -> Drawn:
        with self._workspace.lock:
            drawn = self._workspace.project.drawn(index)
        if drawn is None:
            raise KeyError(index)
        return drawn

    def __contains__(self, index: object) -> bool:
        return index in self._workspace.project.drawn_ids and self.get(index) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._workspace.project.drawn_ids))

    def __len__(self) -> int:
        return len(self._workspace.project.drawn_ids)


class _ProjectSink:
    """Writes each result into the project, and tells the pages."""

    def __init__(self, workspace: Workspace, run: Run, plan: _Plan) -> None:
        self._workspace, self._run, self._plan = workspace, run, plan
        self._before: Files = {}
        self._last: Labels | None = None
        self._started: float | None = None  # when the first frame was done: opening the model does not count
        self._news: dict[int, dict[str, object]] = {}
        self._told = 0.0
        self.fps = 0.0
        self.done = 0

    def write(self, frame: Frame, result: Result) -> None:
        """Merge a result with what the frame has, and save it."""
        workspace, project = self._workspace, self._workspace.project
        with workspace.lock:
            replaced = self._plan.only or self._run.followed
            earlier = project.labels(frame.index) if self._counts(frame.index, replaced) else None
            labels = merge_runs(earlier, result.labels, replaced)
            measured = self._measured(frame.index, labels, result)
            before = project.swap(project.tracked_files(frame.index, labels, measured))
            if earlier is not None and not np.array_equal(earlier, labels):
                project.accepted.discard(frame.index)
            self._before = {**before, **self._before}  # of a frame the oldest content counts
            self._last = labels
            self._tell(frame.index, measured)

    def _counts(self, index: int, replaced: Collection[int]) -> bool:
        """Whether a frame has labels that matter beside those of the ``replaced`` objects. To read them takes time."""
        project = self._workspace.project
        known = project.measured.get(index)
        return index in project.tracked and (
            bool(self._plan.only)
            or index in project.accepted
            or known is None
            or not known.keys() <= set(replaced)
        )

    def close(self) -> None:
        """Nothing is held open."""

    def finish(self) -> None:
        """Make the whole run one change that can be undone.

        Raises:
            OutputError: when the record cannot be written.
        """
        self._publish()
        if not self._before:
            return
        project = self._workspace.project
        record: Files = {}
        try:
            record = project.swap(project.record_file())
        finally:  # on a full disk, what was tracked can still be taken back
            name = f"track {(self._workspace.run or {}).get('direction', '')}"
            self._workspace.history.remember(name, {**self._before, **record})

    def _measured(self, index: int, labels: Labels, result: Result) -> dict[int, list[float | None]]:
        old = self._workspace.project.measured.get(index, {})
        sure = {state.id: state.confidence for state in result.objects}
        soft = {state.id: softness(result.probabilities, at) for at, state in enumerate(result.objects)}
        areas = np.bincount(labels.ravel(), minlength=256)
        measured: dict[int, list[float | None]] = {}
        for object_id in sorted({*np.flatnonzero(areas).tolist(), *sure} - {0}):
            confidence = sure.get(object_id)
            if confidence is None:
                confidence = _at(old, object_id, 1)
            confidence = None if confidence is None else round(float(confidence), 4)
            kept: list[float | None] = [
                int(areas[object_id]),
                confidence,
                overlap(self._last, labels, object_id),
            ]
            measured[object_id] = [*kept, soft[object_id] if object_id in soft else _at(old, object_id, 3)]
        return measured

    def _tell(self, index: int, measured: dict[int, list[float | None]]) -> None:
        self.done += 1
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        passed = now - self._started
        self.fps = round((self.done - 1) / passed, 2) if passed else 0.0
        total = self._plan.total(self._workspace.store)
        self._workspace.run = {
            **(self._workspace.run or {}),
            "frame": index,
            "done": self.done,
            "total": total,
            "fps": self.fps,
            "left": round((total - self.done) / self.fps) if self.fps else None,
        }
        self._news[index] = {"revision": self._workspace.renew(index), "measured": measured}
        if now - self._told >= NEWS_S:
            self._told = now
            self._publish()

    def _publish(self) -> None:
        if self._news:
            self._workspace.publish({"type": "tracked", "frames": self._news, "run": self._workspace.run})
            self._news = {}


def _at(rows: Mapping[int, Sequence[float | None]], object_id: int, place: int) -> float | None:
    """A measure of an earlier run, None where it has none."""
    row = rows.get(object_id, ())
    return row[place] if len(row) > place else None
