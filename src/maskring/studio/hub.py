"""The open clips, and the pages that look at each."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.errors import MaskError, SourceError, UserError, one_line
from ..common.files import output_error
from .clips import Clip, clips_in
from .encoder import FrameEncoder
from .exports import export_zip
from .runs import Runner
from .workspace import Workspace

MAX_WAITING = 1000
"""Messages that wait for a page; one that reads none is told to fetch everything instead."""


class Hub:
    """Opens clips on demand and passes their news to their pages.

    Args:
        root: a clip, or a folder of clips.
        runner: tracks.
        encoder: gives the features of frames.
        first, last: the part of each clip that is opened.

    Raises:
        SourceError: when there is no clip.
    """

    def __init__(
        self, root: Path, runner: Runner, encoder: FrameEncoder, first: int = 0, last: int | None = None
    ) -> None:
        self.clips: Sequence[Clip] = clips_in(root)
        self._root = root
        self.runner, self._encoder = runner, encoder
        self._part = first, last
        self._workspaces: dict[str, Workspace] = {}
        self._pages: dict[str, set[asyncio.Queue[dict[str, Any]]]] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._exporting = threading.Lock()

    def started(self) -> None:
        """Take note of the event loop; call it there."""
        self._loop = asyncio.get_running_loop()

    def workspace(self, clip_id: str) -> Workspace:
        """The open clip of this id; opened by the first who asks.

        Raises:
            UserError: when there is no such clip, or it cannot be opened.
        """
        with self._lock:
            if clip_id not in self._workspaces:
                clip = next((clip for clip in self.clips if clip.id == clip_id), None)
                if clip is None:
                    raise SourceError("there is no such clip", "open one from the list")
                self._workspaces[clip_id] = Workspace(
                    clip, lambda event: self._publish(clip_id, event), self._encoder, *self._part
                )
            return self._workspaces[clip_id]

    def open_only(self) -> None:
        """Open the clip, where one was given and no folder of clips: its errors are the command's.

        Raises:
            UserError: when it cannot be opened.
        """
        if [clip.source for clip in self.clips] == [self._root.absolute()]:
            self.workspace(self.clips[0].id)

    def export(self, workspace: Workspace, page: str | None = None) -> None:
        """Write the zip of a clip in a thread; its pages hear of the progress.

        Args:
            workspace: the clip.
            page: named to all pages as the one that asked, so that the others do not fetch the zip as well.

        Raises:
            MaskError: when there is no mask.
            UserError: when another export goes on.
        """
        if not workspace.project.masked:
            raise MaskError("there is no mask to export", "draw an object and track it first")
        if not self._exporting.acquire(blocking=False):
            raise UserError("an export goes on already", "wait for its end")
        workspace.publish({"type": "exporting", "done": 0, "total": len(workspace.store.indices)})
        threading.Thread(
            target=self._export, args=(workspace, page), name="studio export", daemon=True
        ).start()

    def _export(self, workspace: Workspace, page: str | None) -> None:
        told: dict[str, Any] = {"type": "exported", "error": None, "notes": [], "page": page}
        try:
            told["notes"] = export_zip(
                workspace,
                lambda done, total: workspace.publish({"type": "exporting", "done": done, "total": total}),
                self._stop,
            )
        except UserError as error:
            told["error"] = str(error)
        except OSError as error:  # of the temporary folder, for example
            told["error"] = str(output_error(Path(error.filename or tempfile.gettempdir()), error))
        except Exception as defect:  # the page has to hear of it; the log of the server gets the rest
            told["error"] = f"the export failed: {one_line(repr(defect))}"
            raise
        finally:
            self._exporting.release()
            workspace.publish(told)

    def subscribe(self, clip_id: str) -> asyncio.Queue[dict[str, Any]]:
        """A queue of the news of a clip, for one page."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)
        self._pages.setdefault(clip_id, set()).add(queue)
        return queue

    def unsubscribe(self, clip_id: str, queue: asyncio.Queue[dict[str, Any]]) -> None:
        """The page is gone."""
        self._pages.get(clip_id, set()).discard(queue)

    def close(self) -> None:
        """End the run and release all projects."""
        self._stop.set()
        self.runner.close()
        for workspace in self._workspaces.values():
            workspace.close()

    def _publish(self, clip_id: str, event: dict[str, Any]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, clip_id, event)

    def _deliver(self, clip_id: str, event: dict[str, Any]) -> None:
        for queue in self._pages.get(clip_id, set()):
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                event = {"type": "changed"}
            queue.put_nowait(event)
