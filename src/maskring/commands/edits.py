"""Objects and edits of ``maskring track``, read from the words of the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import MaskError
from ..common.types import MAX_LABELS, Labels

if TYPE_CHECKING:
    from ..runtime.arrays.label_maps import Box
    from ..runtime.pipeline.edits import Steering


@dataclass(frozen=True)
class Planned:
    """What the command line says about objects.

    Attributes:
        steering: carries it out.
        mask_files: files with masks, which are no frames even where they lie among them.
        notes: sentences that say how a mask was read.
        classes: object id -> class, of objects in annotation files.
        additions, removals: the values of ``--add`` and ``--remove``.
        objects: ids of all objects that masks and boxes name.
    """

    steering: Steering
    mask_files: list[Path]
    notes: list[str]
    classes: dict[int, str]
    additions: list[str]
    removals: list[str]
    objects: frozenset[int]

    def require_known(self) -> None:
        """Refuse to remove what no mask or box names. In a window, more objects may be drawn.

        Raises:
            MaskError: when there is no such object.
        """
        for text in self.removals:
            if int(text.partition("=")[2]) not in self.objects:
                given = ", ".join(map(str, sorted(self.objects))) or "none"
                raise MaskError(f"--remove {text} names no object (given: {given})", "name one of them")

    def require_reached(self, end: int | None) -> None:
        """Refuse edits after the last frame, once that is known; they would have no effect.

        Raises:
            MaskError: when an edit lies after frame ``end``.
        """
        for option, texts in (("--add", self.additions), ("--remove", self.removals)):
            for text in texts:
                if end is not None and int(text.partition("=")[0].partition(":")[0]) > end:
                    raise MaskError(
                        f"{option} {text} comes after frame {end}, the last one that is tracked",
                        "name an earlier frame; the first one is 0",
                    )


def planned_edits(
    source: str, masks: list[str], boxes: list[str], additions: list[str], removals: list[str], first: int = 0
) -> Planned:
    """The masks, boxes and removals of ``--mask``, ``--box``, ``--add`` and ``--remove``.

    Args:
        source: of the frames, whose names annotation files may know.
        masks, boxes, additions, removals: the values of these options.
        first: index of the first tracked frame.

    Raises:
        MaskError: when one is not in its form, or its mask cannot be read.
    """
    from ..runtime.interaction.boxes import Boxed
    from ..runtime.pipeline.edits import Edits, Schedule
    from ..runtime.pipeline.given_masks import GivenMask, plan_masks
    from ..runtime.video.annotation_files import frame_names, is_annotation_file

    given = []
    for text in masks:
        given.append(GivenMask(first, *_numbered(text)))
    for text in additions:
        where, path = _at_frame(text, "--add", "FRAME=MASK or FRAME:ID=MASK")
        frame, separator, number = where.partition(":")
        given.append(
            GivenMask(max(first, int(frame)), Path(path), _object_id(number, text) if separator else None)
        )
    removed: dict[int, list[int]] = {}
    for text in removals:
        frame, object_id = _at_frame(text, "--remove", "FRAME=ID")
        if not _is_number(frame) or not _is_number(object_id):
            raise MaskError(f"--remove {text} names no object", "use FRAME=ID, for example 40=2")
        removed.setdefault(int(frame), []).append(int(object_id))
    files = [one.path for one in given]
    names = frame_names(source, files) if any(map(is_annotation_file, files)) else None
    plan = plan_masks(given, boxes=len(boxes), removals=removed, frame_names=names)
    schedule = Schedule(Edits(plan.masks, removed))
    steering = Boxed([parse_box(text) for text in boxes], schedule) if boxes else schedule
    objects = _objects(plan.masks, first, len(boxes))
    return Planned(steering, files, plan.notes, plan.classes, additions, removals, objects)


def _objects(masks: Mapping[int, Labels], first: int, boxes: int) -> frozenset[int]:
    """Ids of all objects in masks by frame, and of the boxes beside the first mask."""
    from ..runtime.tracking.objects import ids_in

    ids = {frame: ids_in(labels) for frame, labels in masks.items()}
    free = sorted(set(range(1, MAX_LABELS)) - set(ids.get(first, ())))
    return frozenset(chain(free[:boxes], *ids.values()))


def parse_box(text: str) -> Box:
    """``120,40,260,310`` as the left, top, right and bottom edge in pixels.

    Raises:
        MaskError: when the text is anything else.
    """
    edges = text.replace(" ", "").split(",")
    if len(edges) != 4 or not all(map(_is_number, edges)):
        raise MaskError(
            f"--box {text} is not a box",
            "use X0,Y0,X1,Y1: the left, top, right and bottom edge in pixels, for example 120,40,260,310",
        )
    x0, y0, x1, y1 = map(int, edges)
    return x0, y0, x1, y1


def _is_number(text: str) -> bool:
    """Whether ``int`` can read it: superscripts are digits too, and ``int`` refuses thousands of digits."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def _numbered(text: str) -> tuple[Path, int | None]:
    """``2=x.png`` as the file and the number; a file of that whole name comes first."""
    number, separator, path = text.partition("=")
    if not separator or not _is_number(number) or os.path.exists(text):  # noqa: PTH110 (names may be too long)
        return Path(text), None
    return Path(path), _object_id(number, f"--mask {text}")


def _object_id(number: str, text: str) -> int:
    if not _is_number(number) or not 1 <= int(number) < MAX_LABELS:
        raise MaskError(f"{number!r} in {text} is not the number of an object", "use a number from 1 to 255")
    return int(number)


def _at_frame(text: str, option: str, form: str) -> tuple[str, str]:
    """What stands before and after the sign of equality; the former begins with a frame's index."""
    frame, separator, rest = text.partition("=")
    if not separator or not _is_number(frame.partition(":")[0]):
        raise MaskError(f"{option} {text} names no frame", f"use {option} {form}")
    return frame, rest
