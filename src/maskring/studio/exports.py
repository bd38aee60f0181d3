"""Masks out of a project."""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..common.files import atomic_path
from ..common.types import Labels
from ..runtime.arrays import label_maps
from ..runtime.conversion.formats import FORMATS
from ..runtime.conversion.result import TrackedMasks
from ..runtime.pipeline.progress import no_progress
from ..runtime.tracking.result import ObjectState, Result, Timings
from ..runtime.video.overlay_video import OverlayVideoSink
from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink, Sink
from .workspace import Workspace

ZIP_NAME = "export.zip"
MASKS, ITEMS = "masks", "objects.json"
"""In the zip."""


def export_zip(
    workspace: Workspace, on_frame: Callable[[int, int], None], stop: threading.Event
) -> list[str]:
    """Write everything that is known of a clip into one zip in the project's folder.

    - ``masks/``: a palette PNG for each frame that has a mask, as ``maskring track`` writes them;
    - ``overlay.mp4``: the whole clip with its objects painted over it in their colours;
    - ``objects.jsonl``: area, box and confidence of each object on each frame with a mask;
    - ``objects.json``: names and colours;
    - ``coco.json``, ``cvat.xml``, ``yolo-seg/``, ``davis/``, ``youtube-vos/``: what ``maskring convert`` writes, with
      the names of the objects and without the frames.

    Args:
        workspace: the clip.
        on_frame: called with the number of frames done, and of all.
        stop: set to give up.

    Returns:
        Sentences that say what a format could not hold.

    Raises:
        OutputError: when the disk is full.
        UnavailableError: when pycocotools is missing.
    """
    with tempfile.TemporaryDirectory(prefix="maskring-export-") as name:
        folder = Path(name) / workspace.clip.source.stem  # the other formats name the video like it
        folder.mkdir()
        _write_results(workspace, folder, on_frame, stop)
        items = [vars(item) for item in workspace.project.items.values()]
        (folder / ITEMS).write_text(json.dumps(items, indent=1), encoding="utf-8")
        notes = _convert(workspace, folder)
        target = workspace.clip.project / ZIP_NAME
        with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(folder).as_posix())
    return notes


def _write_results(
    workspace: Workspace, folder: Path, on_frame: Callable[[int, int], None], stop: threading.Event
) -> None:
    store = workspace.store
    indices = store.indices
    with (
        MaskFolderSink(folder / MASKS) as masks,
        JsonLinesSink(folder / "objects.jsonl") as objects,
        OverlayVideoSink(
            folder / "overlay.mp4", store.fps, by_time=True, palette=workspace.project.items.palette()
        ) as video,
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


def _convert(workspace: Workspace, folder: Path) -> list[str]:
    """Write the masks in the formats of other programs; returns what these cannot hold."""
    masks = TrackedMasks(folder)
    items = workspace.project.items
    names = {number: items[number].name if number in items else f"object {number}" for number in masks.ids}
    notes: list[str] = []
    for name, (writer, suffix) in FORMATS.items():
        notes += writer(masks, folder / f"{name}{suffix}", names, no_progress)
    return notes


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
