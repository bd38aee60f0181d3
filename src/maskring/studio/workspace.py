"""One open clip: its frames, its project, and what every page that shows it is told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..common.errors import MaskError, UserError
from ..common.types import Labels
from ..runtime.pipeline.directions import Drawn
from .clips import Clip
from .encoder import FrameEncoder
from .frames import FrameStore
from .history import History
from .project import Files, FolderLock, Project
from .strokes import stroke_on, whole_number
from .trust import doubtful_frames

Publish = Callable[[dict[str, Any]], None]
"""Tells every page that shows the clip. Any thread may call it."""

OTHER_CLIP = (
    "{} is not the file that these masks were made for: it has changed since, or another has its name. "
    "Check the masks; to begin anew, stop Studio and move the folder of the project away."
)

DECODING_STEP = 10
"""Pages hear of every so many decoded frames."""


class Workspace:
    """Any thread may call the methods: one change is made at a time.

    Args:
        clip: the clip.
        publish: tells its pages.
        encoder: gives the features of frames.
        first, last: the part of the clip that is opened.

    Raises:
        UserError: when the clip or its project cannot be opened.
    """

    def __init__(
        self, clip: Clip, publish: Publish, encoder: FrameEncoder, first: int = 0, last: int | None = None
    ) -> None:
        self.clip, self.publish, self._encoder = clip, publish, encoder
        self.lock = threading.RLock()
        self.store = FrameStore(clip.source, first, last)
        self._folder_lock = FolderLock(clip.project)
        try:
            source = self.store.fingerprint()
            self.project = Project(clip.project, self.store.size, source)
        except BaseException:
            self._folder_lock.close()
            raise
        self._other_clip = self.project.recorded_source not in (None, source)
        self.history = History(self.project)
        self.run: dict[str, Any] | None = None
        self._counter = itertools.count(time.time_ns() // 1_000_000)
        self._revisions = {index: next(self._counter) for index in self.project.masked}
        self._stop = threading.Event()
        self._decoding_error: str | None = None
        self._decoder = threading.Thread(target=self._decode, name="studio decode", daemon=True)
        self._decoder.start()

    def close(self) -> None:
        """Stop decoding and release the project."""
        self._stop.set()
        self._decoder.join()
        self._folder_lock.close()

    # What pages are told -------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything but pixels."""
        with self.lock:
            project, store = self.project, self.store
            indices = store.indices
            undo, redo = self.history.names
            checked = project.drawn_ids.keys() | project.accepted
            return {
                "version": next(self._counter),  # answers may reach a page in another order
                "clip": {"id": self.clip.id, "name": self.clip.name},
                "project": self.clip.project.name,
                "frames": {
                    "first": indices[0] if indices else 0,
                    "last": indices[-1] if indices else -1,
                    "missing": _gaps(indices),
                    "count": len(indices),
                    "expected": store.expected,
                    "complete": store.complete,
                    "error": self._decoding_error,
                    "fps": store.fps,
                    "height": store.size[0],
                    "width": store.size[1],
                },
                "objects": [vars(item) for item in project.items.values()],
                "masks": {index: self._revision(index) for index in project.masked},
                "drawn": {index: sorted(ids) for index, ids in project.drawn_ids.items()},
                "accepted": sorted(project.accepted),
                "measured": project.measured,
                "doubts": [
                    vars(doubt) for doubt in doubtful_frames(project.measured, checked, project.items)
                ],
                "seen": project.seen,
                "run": self.run,
                "warning": OTHER_CLIP.format(self.clip.name) if self._other_clip else None,
                "undo": undo,
                "redo": redo,
            }

    def changed(self, indices: Iterable[int] = ()) -> None:
        """Tell the pages that the project has changed, and the masks of these frames."""
        for index in indices:
            self.renew(index)
        self.publish({"type": "changed"})

    def renew(self, index: int) -> int:
        """Give the mask of a frame a new revision, so that no page shows an old one."""
        self._revisions[index] = next(self._counter)
        return self._revisions[index]

    def labels(self, index: int) -> Labels | None:
        """[H, W] ids that a frame shows, None for no mask."""
        with self.lock:
            return self.project.labels(index)

    # Changes -------------------------------------------------------------------------------------

    def stroke(self, stroke: Mapping[str, Any]) -> dict[str, Any]:
        """Draw on a frame; returns what :meth:`state` would.

        Raises:
            UserError: when it is malformed, or no object is found.
        """
        index = whole_number(stroke.get("frame"), 0, 1 << 31)
        image = self.store.image(index)
        with self.lock:
            item = self.project.items[whole_number(stroke.get("object"), 1, 255)]
            shown = self.project.labels(index)
            shown = np.zeros(self.store.size, np.uint8) if shown is None else shown
            key = self.clip.id, index
            drawn = stroke_on(
                image,
                shown,
                self.project.drawn(index),
                stroke,
                lambda: self._encoder.features(key, image),
            )
            return self.draw(f"{stroke['tool']} on {item.name}, frame {index}", index, drawn)

    def draw(self, name: str, index: int, drawn: Drawn | None) -> dict[str, Any]:
        """Replace what is drawn on a frame."""
        with self.lock:
            self.project.accepted.discard(index)
            return self.change(name, self.project.drawn_files(index, drawn), [index])

    def add_object(self, name: str = "") -> dict[str, Any]:
        """Add an object."""
        with self.lock:
            item = self.project.items.add(name)
            return self.change(f"add {item.name}", self.project.record_file())

    def change_object(self, object_id: int, **changes: str | None) -> dict[str, Any]:
        """Rename or recolour an object."""
        with self.lock:
            self.project.items.change(object_id, **changes)
            return self.change("change of an object", self.project.record_file())

    def remove_object(self, object_id: int) -> dict[str, Any]:
        """Delete an object from every frame."""
        with self.lock:
            name = self.project.items[object_id].name
            del self.project.items[object_id]
            return self.change(f"delete {name}", self.project.record_file(), self.project.masked)

    def accept(self, index: int) -> dict[str, Any]:
        """Mark a frame as looked at, or no longer."""
        with self.lock:
            if index not in self.project.masked:
                raise MaskError(f"frame {index} has no mask", "choose a frame with a mask")
            self.project.accepted ^= {index}
            return self.change(f"accept frame {index}", self.project.record_file())

    def see(self, index: int) -> dict[str, Any]:
        """Remember the frame that a page shows, for when the clip is opened again. No change that can be undone."""
        with self.lock:
            self.project.see(index)
            return {"seen": index}

    def undo(self) -> dict[str, Any]:
        """Take the latest change back."""
        return self._step(self.history.undo)

    def redo(self) -> dict[str, Any]:
        """Make the latest undone change again."""
        return self._step(self.history.redo)

    def change(self, name: str, files: Files, indices: Iterable[int] = ()) -> dict[str, Any]:
        """Write files of the project as one change that can be undone."""
        try:
            self.history.change(name, files)
        except UserError:
            self.project.reload()
            raise
        self.changed(indices)
        return self.state()

    def _step(self, step: Callable[[], Files]) -> dict[str, Any]:
        with self.lock:
            if self.run is not None:
                raise UserError("an object is being tracked", "stop that first")
            files = step()
            named = {int(path.split("/")[1].partition(".")[0]) for path in files if "/" in path}
            self.changed(named | set(self.project.masked if not named else ()))
            return self.state()

    def _revision(self, index: int) -> int:
        if index not in self._revisions:
            self.renew(index)
        return self._revisions[index]

    # Decoding ------------------------------------------------------------------------------------

    def _decode(self) -> None:
        told = itertools.count()

        def on_frame(index: int) -> None:
            if next(told) % DECODING_STEP == 0:
                self.publish({"type": "decoded", "last": index, "count": len(self.store.indices)})

        try:
            self.store.decode(on_frame, self._stop)
        except UserError as error:
            self._decoding_error = str(error)
        self.publish({"type": "changed"})


def _gaps(indices: list[int]) -> list[int]:
    """Numbers that are missing between the first and the last."""
    return sorted(set(range(indices[0], indices[-1] + 1)) - set(indices)) if indices else []
