"""Masks of a tracked video, as ``maskring track`` and other trackers write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ...common.errors import MaskError, SourceError
from ...common.stored import Between, checked
from ...common.types import Labels
from ..video.folders import IMAGE_SUFFIXES, images_in
from ..video.mask_ids import MaskIds
from ..video.masks import read_picture

MASKS, OBJECTS = "masks", "objects.jsonl"
"""What ``maskring track`` writes into its folder."""

FRAME_RATE = 24
"""Of frames whose times are not known, as for folders of images."""

_Index = Annotated[int, Between(0, 2**53)]
_Time = Annotated[float, Between(-(2**40), 2**40)]


@dataclass(frozen=True, eq=False)
class MaskFrame:
    """One frame.

    Attributes:
        index: of the frame in its video.
        time: of the frame, in seconds.
        name: without suffix.
        image_name: file name of the frame's image.
        image: the image file; None where only the name is known.
        labels: [H, W] uint8 object ids.
    """

    index: int
    time: float
    name: str
    image_name: str
    image: Path | None
    labels: Labels


class TrackedMasks:
    """The masks of one video. Two passes read each file: one for the ids, one for the pixels.

    Args:
        folder: what ``maskring track`` wrote, or a folder of masks.
        frames: folder with the images of the frames, named like the masks; None where there are none.

    Attributes:
        folder: as given.
        name: of the video: that of the folder.
        size: (height, width) of all masks.
        ids: of all objects, ascending.
        is_numbered_by_position: whether the first mask counts as frame 0, the next as frame 1: there is no
            ``objects.jsonl`` to tell.

    Raises:
        SourceError: when there are no masks, a mask has no image in ``frames``, or ``objects.jsonl`` is damaged
            or lacks a mask.
        MaskError: when a mask cannot be read, or masks differ in size or name no objects.
    """

    def __init__(self, folder: Path, frames: Path | None = None) -> None:
        if not folder.is_dir():
            raise SourceError(f"{folder} is not a folder", "name the folder that maskring track wrote")
        self._files = images_in(folder / MASKS if (folder / MASKS).is_dir() else folder, {".png"})
        if not self._files:
            inner = next((path for path in sorted(folder.iterdir()) if (path / MASKS).is_dir()), None)
            raise SourceError(
                f"{folder} holds no masks",
                "name the folder that maskring track wrote"
                if inner is None
                else f"name one video, such as {inner}",
            )
        self.folder, self.name = folder, folder.resolve().name
        self._images = (
            {} if frames is None else {path.stem: path for path in images_in(frames, IMAGE_SUFFIXES)}
        )
        if frames is not None and (
            missing := [path for path in self._files if path.stem not in self._images]
        ):
            raise SourceError(
                f"{frames} holds no image for {missing[0]}", "name the folder of the tracked frames"
            )
        told = _told(folder / OBJECTS, self._files)
        self.is_numbered_by_position = told is None
        self._frames = told or [(index, index / FRAME_RATE) for index in range(len(self._files))]
        sizes, marks_of_files = set[tuple[int, int]](), []
        for path in self._files:
            picture = read_picture(path)
            height, width = picture.areas.shape
            sizes.add((height, width))
            if len(sizes) > 1:
                raise MaskError(
                    f"{path} differs in size from {self._files[0].name}", "convert one video at a time"
                )
            marks_of_files.append(picture.marks)
        (self.size,) = sizes
        self._ids = MaskIds(marks_of_files)
        self.ids = sorted({number for marks in marks_of_files for number in self._ids.objects(marks)} - {0})
        if not self.ids:
            raise MaskError(f"the masks in {folder} hold no object", "track one first")

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[MaskFrame]:
        for path, (index, time) in zip(self._files, self._frames, strict=True):
            image = self._images.get(path.stem)
            name = f"{path.stem}.jpg" if image is None else image.name
            yield MaskFrame(index, time, path.stem, name, image, self._ids.labels(read_picture(path)))


def _told(objects: Path, files: list[Path]) -> list[tuple[int, float]] | None:
    """Index and time of each mask's frame, as ``objects.jsonl`` tells; None where there is no such file.

    Raises:
        SourceError: when it is damaged, or tells nothing of a mask.
    """
    if not objects.is_file():
        return None
    remedy = "track again, or move the file away to number frames by position"
    of_name: dict[str, tuple[int, float]] = {}
    for number, line in enumerate(objects.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            index = checked(_Index, record["index"])
            of_name[checked(str, record["name"])] = (
                index,
                checked(_Time, record.get("timestamp", index / FRAME_RATE)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"line {number} of {objects} is damaged", remedy) from error
    if untold := [path for path in files if path.stem not in of_name]:
        raise SourceError(
            f"{objects} has no line for {untold[0]}, a mask of an earlier run perhaps",
            f"move the mask away, or {remedy}",
        )
    return [of_name[path.stem] for path in files]
