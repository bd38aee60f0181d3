"""A project: what a user drew on a clip, and what was tracked. Plain files in a folder beside the clip.

- ``project.json``: objects with names and colours, which of them were drawn on which frame, accepted frames;
- ``drawn/000012.png``: the objects that were drawn on frame 12, and no others;
- ``tracked/000012.png``: the labels that tracking gave frame 12;
- ``measured/000012.json``: area, confidence, overlap and softness of each object on frame 12;
- ``view.json``: the frame that was looked at last.

Each file is replaced as a whole, so a killed server loses at most the change that it was writing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..common.errors import OutputError, SourceError, UserError
from ..common.files import atomic_path, make_directory
from ..common.types import MAX_LABELS, Labels
from ..runtime.arrays import label_maps
from ..runtime.pipeline.directions import Drawn
from ..runtime.tracking.objects import ids_in
from ..runtime.video.masks import encode_mask, read_mask
from .items import Item, Items

RECORD, VIEW = "project.json", "view.json"
LOCK = ".lock"
FORMAT = 1

FRAME_FILE = re.compile(r"(drawn|tracked|measured)/([0-9]{6,9})\.(png|json)")

Files = dict[str, bytes | None]
"""Path below the project's folder -> content; None for a file that is not there."""


class Project:
    """Reads and writes the files of one project. The caller lets one thread at a time change it.

    Args:
        folder: the project's folder; created by the first change.
        size: (H, W) of the clip's frames.
        source: fingerprint of the clip, kept with the project.

    Attributes:
        recorded_source: the fingerprint that the project was saved with, None for none.

    Raises:
        SourceError: when the folder holds a damaged project, or one of another clip.
    """

    def __init__(self, folder: Path, size: tuple[int, int], source: str | None = None) -> None:
        self.folder, self.size, self._source = folder, size, source
        self.recorded_source: str | None = None
        self.reload()

    def reload(self) -> None:
        """Read everything from the files, as after a change that could not be written.

        Raises:
            SourceError: see above.
        """
        self.items = Items()
        self.drawn_ids: dict[int, frozenset[int]] = {}
        self.accepted: set[int] = set()
        self.tracked: set[int] = set()
        self.measured: dict[int, dict[int, list[float | None]]] = {}
        if (self.folder / RECORD).is_file():
            self._load_record((self.folder / RECORD).read_bytes())
            self._load_frames()

    # Reading -------------------------------------------------------------------------------------

    @property
    def masked(self) -> list[int]:
        """Numbers of the frames that have a mask, ascending."""
        return sorted(self.tracked | self.drawn_ids.keys())

    def drawn(self, index: int) -> Drawn | None:
        """What was drawn on a frame, without deleted objects; None for nothing."""
        if index not in self.drawn_ids:
            return None
        mask = self._labels(f"drawn/{index:06d}.png")
        ids = self.drawn_ids[index] & self.items.keys()
        return Drawn(np.zeros(self.size, np.uint8) if mask is None else mask, ids) if ids else None

    def labels(self, index: int) -> Labels | None:
        """[H, W] ids that a frame shows: what was drawn, over what was tracked. None for no mask."""
        tracked = self._labels(f"tracked/{index:06d}.png") if index in self.tracked else None
        drawn = self.drawn(index)
        return tracked if drawn is None else drawn.over(tracked)

    def _labels(self, path: str) -> Labels | None:
        if not (self.folder / path).is_file():
            return None
        labels = read_mask(self.folder / path, allow_empty=True)
        if labels.shape != self.size:
            raise SourceError(f"{self.folder / path} has another size than the frames", "delete that file")
        present = np.zeros(MAX_LABELS, np.uint8)
        present[list(self.items)] = list(self.items)
        return label_maps.relabel(labels, present)

    @property
    def seen(self) -> int | None:
        """The frame that was looked at last, None where that is unknown."""
        try:
            return int(json.loads((self.folder / VIEW).read_bytes())["frame"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def see(self, index: int) -> None:
        """Remember the frame that is looked at, once something is saved: to look at a clip leaves nothing behind.

        Raises:
            OutputError: when that cannot be written.
        """
        if (self.folder / RECORD).is_file():
            with atomic_path(self.folder / VIEW) as partial:
                partial.write_text(json.dumps({"frame": index}), encoding="utf-8")

    # Changes, as files ---------------------------------------------------------------------------

    def record_file(self) -> Files:
        """The present content of ``project.json``."""
        record = {
            "format": FORMAT,
            "size": list(self.size),
            "source": self._source,
            "used": self.items.used,
            "objects": [vars(item) for item in self.items.values()],
            "drawn": {str(index): sorted(ids) for index, ids in sorted(self.drawn_ids.items())},
            "accepted": sorted(self.accepted),
        }
        return {RECORD: json.dumps(record, indent=1).encode()}

    def drawn_files(self, index: int, drawn: Drawn | None) -> Files:
        """Files that store what is drawn on a frame, None for nothing."""
        if drawn is None or not drawn.ids:
            self.drawn_ids.pop(index, None)
            content = None
        else:
            self.drawn_ids[index] = drawn.ids
            content = encode_mask(drawn.mask)
        return {f"drawn/{index:06d}.png": content, **self.record_file()}

    def tracked_files(self, index: int, labels: Labels, measured: Mapping[int, list[float | None]]) -> Files:
        """Files that store the labels [H, W] of a frame, and area, confidence, overlap and softness of each object."""
        return {
            f"tracked/{index:06d}.png": encode_mask(labels),
            f"measured/{index:06d}.json": json.dumps(measured).encode(),
        }

    # Writing -------------------------------------------------------------------------------------

    def swap(self, files: Files) -> Files:
        """Write all files or none, and return what was there before. Doing that again with the result undoes it.

        Raises:
            OutputError: when they cannot be written; then nothing has changed.
        """
        before = {path: self._read(path) for path in files}
        with contextlib.ExitStack() as stack:  # which renames in the reverse order, so the record last
            for path in sorted(files, key=lambda path: path != RECORD):
                self._prepare(stack, path, files[path])
            for path in (path for path, content in files.items() if content is None):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / path).unlink()
        for path, content in files.items():
            self._note(path, content)
        return before

    def _read(self, path: str) -> bytes | None:
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _prepare(self, stack: contextlib.ExitStack, path: str, content: bytes | None) -> None:
        """Write the content under a temporary name, which is replaced when the stack is left."""
        if content is None:
            return
        file = self.folder / path
        if not file.parent.is_dir():
            make_directory(file.parent)
        partial = stack.enter_context(atomic_path(file))
        partial.write_bytes(content)

    def _note(self, path: str, content: bytes | None) -> None:
        if path == RECORD:
            self._load_record(content or b"{}")
            return
        kind, index = path.split("/")[0], int(path.split("/")[1].partition(".")[0])
        if kind == "tracked":
            (self.tracked.discard if content is None else self.tracked.add)(index)
        elif kind == "measured" and content is None:
            self.measured.pop(index, None)
        elif kind == "measured":
            self.measured[index] = _measures(json.loads(content or b"{}"))

    def _load_record(self, content: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(content)
            if record.get("format", FORMAT) != FORMAT:
                raise ValueError(f"format {record['format']}")
            if record.get("size", list(self.size)) != list(self.size):
                raise SourceError(
                    f"{self.folder} is a project of a clip of another size", "move it away to begin anew"
                )
            self.recorded_source = record.get("source")
            items = [Item(int(o["id"]), str(o["name"]), str(o["colour"])) for o in record.get("objects", [])]
            self.items = Items(items, int(record.get("used", 0)))
            drawn = record.get("drawn", {})
            self.drawn_ids = {int(index): frozenset(map(int, ids)) for index, ids in drawn.items()}
            self.accepted = set(map(int, record.get("accepted", [])))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SourceError(
                f"{self.folder / RECORD} is damaged or of another version ({error})",
                "move it away; the masks beside it stay",
            ) from error

    def _load_frames(self) -> None:
        for kind in ("drawn", "tracked", "measured"):
            for path in sorted((self.folder / kind).glob("*")) if (self.folder / kind).is_dir() else []:
                if not FRAME_FILE.fullmatch(f"{kind}/{path.name}"):
                    continue
                index = int(path.stem)
                if kind == "drawn" and index not in self.drawn_ids:  # killed before the record was written
                    self.drawn_ids[index] = frozenset(ids_in(read_mask(path, allow_empty=True)))
                    self.items.add_ids(self.drawn_ids[index])
                elif kind == "tracked":
                    self.tracked.add(index)
                elif kind == "measured":
                    with contextlib.suppress(ValueError, TypeError, AttributeError, OSError):
                        self.measured[index] = _measures(json.loads(path.read_bytes()))


def _measures(record: Mapping[str, Any]) -> dict[int, list[float | None]]:
    return {int(object_id): list(values) for object_id, values in record.items()}


class FolderLock:
    """Makes sure that no other server works on a project. The folder is created, and removed if it stays empty.

    Raises:
        UserError: when another server has it.
        OutputError: when the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / LOCK
        try:
            self._file = _locked(self._path)
        except OutputError as error:
            raise OutputError(
                error.problem,
                f"Studio saves its work there: let your user write to {folder.parent}, or copy the clip",
            ) from error

    def close(self) -> None:
        """Release the project."""
        with contextlib.suppress(OSError):  # of a folder that holds a project
            if not self._file.closed and [path.name for path in self._folder.iterdir()] == [LOCK]:
                self._path.unlink()
                self._folder.rmdir()
        self._file.close()


def _locked(path: Path) -> TextIO:
    make_directory(path.parent)
    file = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(
            f"another maskring studio has {path.parent} open", "use its page, or stop it first"
        ) from error
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    file.close()  # the last owner has just removed it
    return _locked(path)
