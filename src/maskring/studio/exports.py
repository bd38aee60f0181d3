"""Masks out of a project and into it."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from ..common.errors import MaskError, UserError
from ..common.files import atomic_path
from ..common.types import Labels
from ..runtime.arrays import label_maps
from ..runtime.conversion.formats import FORMATS
from ..runtime.conversion.result import TrackedMasks
from ..runtime.pipeline.directions import Drawn
from ..runtime.pipeline.progress import no_progress
from ..runtime.tracking.objects import ids_in
from ..runtime.tracking.result import ObjectState, Result, Timings
from ..runtime.video.frame import MAX_PIXELS
from ..runtime.video.masks import read_mask
from ..runtime.video.overlay_video import OverlayVideoSink
from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink, Sink
from .project import Files
from .workspace import Workspace

ZIP_NAME = "export.zip"
CONVERTED = ("coco", "cvat")
"""Formats of ``maskring convert`` that are one file."""

MAX_ENTRY = 1 << 26
"""Bytes of one mask inside a zip, unpacked."""


def export_zip(workspace: Workspace, on_frame: Callable[[int, int], None], stop: threading.Event) -> Path:
    """Write everything that is known of a clip into one zip in the project's folder.

    - ``masks/``: a palette PNG for each frame that has a mask, as ``maskring track`` writes them;
    - ``overlay.mp4``: the whole clip with its objects painted over it;
    - ``objects.jsonl``: area, box and confidence of each object on each frame with a mask;
    - ``objects.json``: names and colours;
    - ``coco.json`` and ``cvat.xml``: the masks as ``maskring convert`` writes them, with the names.

    Args:
        workspace: the clip.
        on_frame: called with the number of frames done, and of all.
        stop: set to give up.

    Raises:
        OutputError: when the disk is full.
        UnavailableError: when pycocotools is missing.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-export-") as name:
        folder = Path(name) / workspace.clip.source.stem  # the other formats name the video like it
        folder.mkdir()
        _write_results(workspace, folder, on_frame, stop)
        items = [vars(item) for item in workspace.project.items.values()]
        (folder / "objects.json").write_text(json.dumps(items, indent=1), encoding="utf-8")
        _convert(workspace, folder)
        target = workspace.clip.project / ZIP_NAME
        with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(folder).as_posix())
    return target


def _write_results(
    workspace: Workspace, folder: Path, on_frame: Callable[[int, int], None], stop: threading.Event
) -> None:
    store = workspace.store
    indices = store.indices
    with (
        MaskFolderSink(folder / "masks") as masks,
        JsonLinesSink(folder / "objects.jsonl") as objects,
        OverlayVideoSink(folder / "overlay.mp4", store.fps, by_time=True) as video,
        store.open(indices) as source,
    ):
        for done, frame in enumerate(source, 1):
            if stop.is_set():
                raise UserError("the export was stopped", "start it again")
            labels = workspace.labels(frame.index)
            sinks: list[Sink] = [video] if labels is None else [masks, objects, video]
            result = _result(
                workspace, frame.index, np.zeros(store.size, np.uint8) if labels is None else labels
            )
            for sink in sinks:
                sink.write(frame, result)
            on_frame(done, len(indices))


def _convert(workspace: Workspace, folder: Path) -> None:
    """Write the masks in the formats of other programs."""
    masks = TrackedMasks(folder)
    items = workspace.project.items
    names = {number: items[number].name if number in items else f"object {number}" for number in masks.ids}
    for name in CONVERTED:
        writer, suffix = FORMATS[name]
        writer(masks, folder / f"{name}{suffix}", names, no_progress)


def _result(workspace: Workspace, index: int, labels: Labels) -> Result:
    measured = workspace.project.measured.get(index, {})
    boxes = label_maps.boxes(labels, max(2, int(labels.max()) + 1))
    areas = label_maps.areas(labels, boxes)
    states = tuple(
        ObjectState(
            object_id,
            areas.get(object_id, 0),
            boxes.get(object_id),
            measured[object_id][1] if object_id in measured else None,
        )
        for object_id in workspace.project.items
        if object_id in measured or object_id in areas
    )
    nothing = np.zeros((1, 1, 1), np.float32)
    return Result(labels, nothing, states, Timings(0.0, 0.0, 0.0), index)


def import_masks(workspace: Workspace, data: bytes, index: int) -> dict[str, object]:
    """Take masks over: a PNG as drawn on frame ``index``, or a zip of PNGs, named like their frames, as if tracked.

    Raises:
        MaskError: when the data is neither, or a mask does not fit its frame.
    """
    if not data.startswith(b"PK"):
        mask = _mask(data, "the file", workspace.store.size)
        with workspace.lock:
            workspace.project.items.add_ids(ids_in(mask))
            return workspace.draw(f"import into frame {index}", index, Drawn.of(mask))
    masks = _masks_in_zip(data, workspace)
    if not masks:
        raise MaskError(
            "the zip holds no mask of a frame", "name each PNG like its frame, for example 00012.png"
        )
    with workspace.lock:
        files: Files = {}
        for frame, mask in masks.items():
            workspace.project.items.add_ids(ids_in(mask))
            areas = np.bincount(mask.ravel(), minlength=256)
            measured: dict[int, list[float | None]] = {
                one: [int(areas[one]), None, None] for one in ids_in(mask)
            }
            files |= workspace.project.tracked_files(frame, mask, measured)
        files |= workspace.project.record_file()
        return workspace.change(f"import {len(masks)} masks", files, masks)


def _masks_in_zip(data: bytes, workspace: Workspace) -> dict[int, Labels]:
    frame_of_name = {workspace.store.name(index): index for index in workspace.store.indices}
    masks: dict[int, Labels] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                path = PurePosixPath(entry.filename)
                index = frame_of_name.get(path.stem)
                if path.suffix.lower() != ".png" or path.name.startswith(".") or index is None:
                    continue
                if entry.file_size > MAX_ENTRY:
                    raise MaskError(
                        f"{path.name} is larger than {MAX_ENTRY >> 20} MB", "save it as a palette PNG"
                    )
                with archive.open(entry) as file:
                    masks[index] = _mask(file.read(MAX_ENTRY), path.name, workspace.store.size)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise MaskError(f"the zip cannot be read ({error})", "make it again, without a password") from error
    return masks


def _mask(data: bytes, name: str, size: tuple[int, int]) -> Labels:
    assert size[0] * size[1] <= MAX_PIXELS
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
