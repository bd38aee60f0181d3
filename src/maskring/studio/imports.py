"""Masks into a project: of another program, or of an exported zip, so that work goes on."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..common.errors import MaskError
from ..common.types import Labels
from ..runtime.pipeline.directions import Drawn
from ..runtime.tracking.objects import ids_in
from ..runtime.video.masks import read_mask
from .exports import ITEMS, MASKS
from .items import Items
from .project import Files
from .trust import overlap
from .workspace import Workspace

MAX_ENTRY = 1 << 26
"""Bytes of one file inside a zip, unpacked."""


def import_masks(workspace: Workspace, data: bytes, index: int) -> dict[str, object]:
    """Take masks over: a PNG as drawn on frame ``index``, or a zip of PNGs, named like their frames, as if tracked.

    Of a zip that Studio exported, names and colours are taken over as well.

    Raises:
        MaskError: when the data is neither, or a mask does not fit its frame.
        SourceError: when there is no such frame.
    """
    if not data.startswith(b"PK"):
        workspace.store.name(index)  # there is such a frame
        mask = _mask(data, "the file", workspace.store.size)
        with workspace.lock:
            workspace.project.items.add_ids(ids_in(mask))
            return workspace.draw(f"import into frame {index}", index, Drawn.of(mask))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _import_zip(workspace, archive)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise MaskError(f"the zip cannot be read ({error})", "make it again, without a password") from error


def _import_zip(workspace: Workspace, archive: zipfile.ZipFile) -> dict[str, object]:
    files: Files = {}
    frames: list[int] = []
    ids: set[int] = set()
    before: Labels | None = None
    for frame, mask in _masks(archive, workspace):
        areas = np.bincount(mask.ravel(), minlength=256)
        measured: dict[int, list[float | None]] = {
            one: [int(areas[one]), None, overlap(before, mask, one)] for one in ids_in(mask)
        }
        files |= workspace.project.tracked_files(frame, mask, measured)
        frames.append(frame)
        ids |= measured.keys()
        before = mask
    if not frames:
        raise MaskError(
            "the zip holds no mask of a frame", "name each PNG like its frame, for example 00012.png"
        )
    named = _items(archive)
    with workspace.lock:
        items = workspace.project.items
        new = ids - items.keys()
        items.add_ids(ids)
        for object_id in sorted(new & named.keys()):
            items.change(object_id, name=named[object_id].name, colour=named[object_id].colour)
        files |= workspace.project.record_file()
        return workspace.change(f"import {len(frames)} masks", files, frames)


def _masks(archive: zipfile.ZipFile, workspace: Workspace) -> Iterator[tuple[int, Labels]]:
    """Frame number and mask, by ascending number. A folder ``masks`` counts alone: other formats lie beside it."""
    frame_of_name = {workspace.store.name(index): index for index in workspace.store.indices}
    entries: dict[bool, dict[int, zipfile.ZipInfo]] = {True: {}, False: {}}
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        index = frame_of_name.get(path.stem)
        if index is not None and path.suffix.lower() == ".png":
            entries[path.parent.name == MASKS][index] = entry
    for index, entry in sorted((entries[True] or entries[False]).items()):
        name = PurePosixPath(entry.filename).name
        yield index, _mask(_content(archive, entry, name), name, workspace.store.size)


def _items(archive: zipfile.ZipFile) -> Items:
    """Names and colours that Studio exported; none where there are none."""
    items = Items()
    if ITEMS not in archive.namelist():
        return items
    try:
        for item in json.loads(_content(archive, archive.getinfo(ITEMS), ITEMS)):
            object_id = int(item["id"])
            items.add_ids([object_id] if 0 < object_id < 256 else [])
            items.change(object_id, name=str(item["name"]), colour=str(item["colour"]))
    except (ValueError, TypeError, KeyError) as error:
        raise MaskError(f"{ITEMS} in the zip is damaged", "take it out of the zip") from error
    return items


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    if entry.file_size > MAX_ENTRY:
        raise MaskError(f"{name} is larger than {MAX_ENTRY >> 20} MB", "save it as a palette PNG")
    with archive.open(entry) as file:
        return file.read(MAX_ENTRY)


def _mask(data: bytes, name: str, size: tuple[int, int]) -> Labels:
    with tempfile.TemporaryDirectory(prefix="maskring-import-") as folder:
        path = Path(folder) / "mask.png"
        path.write_bytes(data)
        try:
            mask = read_mask(path, allow_empty=True)
        except MaskError as error:
            problem = error.problem.replace(f"the mask {path}", name).replace(str(path), name)
            raise MaskError(problem, error.remedy) from error
    if mask.shape != size:
        raise MaskError(
            f"{name} has {mask.shape[1]}x{mask.shape[0]} pixels and the frames {size[1]}x{size[0]}",
            "draw masks at the size of the frames",
        )
    return mask
