"""Masks that a user names, some for the first frame and some for later ones: which object each of them shows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...common.errors import MaskError
from ...common.types import MAX_LABELS, Labels
from ..tracking.objects import free_id, ids_in
from ..video.annotation_files import annotated_mask, is_annotation_file
from ..video.mask_ids import MaskIds
from ..video.mask_picture import MaskPicture
from ..video.masks import check_drawn, check_not_empty, read_picture
from .edits import merge_masks


@dataclass(frozen=True)
class GivenMask:
    """A mask file, and its frame and object as the user gave them.

    Attributes:
        frame: index of the frame that it belongs to.
        path: the file.
        object_id: number of the only object in it; None where the file tells.
    """

    frame: int
    path: Path
    object_id: int | None = None


@dataclass
class PlannedMasks:
    """Masks by frame.

    Attributes:
        masks: frame index -> [H, W] uint8 object ids.
        notes: sentences that say how a file was read, and which object it redraws.
        classes: object id -> class, of objects in annotation files.
    """

    masks: dict[int, Labels] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: dict[int, str] = field(default_factory=dict)


def plan_masks(
    given: Iterable[GivenMask],
    *,
    boxes: int = 0,
    removals: Mapping[int, Sequence[int]] | None = None,
    frame_names: Sequence[str] | None = None,
) -> PlannedMasks:
    """Read masks and decide which object each of them shows, for all of them together.

    A file that names no object (white on black), and a file of one object whose number another file of the
    same frame has, is a new object with the lowest free number.

    Args:
        given: any order; of several masks for a frame, later ones lie on top.
        boxes: objects that are added to the first of these frames by other means; they take the lowest numbers
            that its masks leave free.
        removals: frame index -> ids of objects that are dropped before this frame.
        frame_names: of all frames of the source, as annotation files may know them; None where they have numbers.

    Raises:
        MaskError: when a file cannot be read, a number is given to several objects, files of a frame claim the
            same objects, or a mask hides an object of another one.
    """
    ordered = sorted(given, key=lambda one: one.frame)
    classes: dict[int, str] = {}
    pictures = [_read(one, frame_names, classes) for one in ordered]
    ids = MaskIds(picture.marks for picture in pictures)
    notes = [note for picture in pictures for note in picture.notes] + ids.notes
    plan = PlannedMasks(notes=notes, classes=classes)
    first = ordered[0].frame if ordered else 0
    numbers: dict[int, int] = {}  # object id -> frame that showed it last
    boxes_to_count = boxes
    for one, picture in zip(ordered, pictures, strict=True):
        if one.frame > first:
            for _ in range(boxes_to_count):
                numbers[_free(numbers)] = first
            boxes_to_count = 0
        beside = set(ids_in(plan.masks[one.frame])) if one.frame in plan.masks else set[int]()
        labels = _labels(one, picture, ids, beside, numbers)
        if is_annotation_file(one.path):
            check_not_empty(one.path, labels)
        else:
            check_drawn(picture, labels)
        shown = ids_in(labels)
        several = len([other for other in ordered if other.frame == one.frame]) > 1 or one.frame > first
        if several and one.object_id is None and not set(ids.objects(picture.marks, 0)) & set(shown):
            option = "--mask ID=FILE" if one.frame == first else f"--add {one.frame}:ID=FILE"
            plan.notes.append(f"{one.path} is object {shown[0]}; {option} would choose another number")
        for number in shown:
            if numbers.get(number, one.frame) < one.frame and not _removed(number, numbers, one, removals):
                plan.notes.append(f"{one.path} redraws object {number} at frame {one.frame}")
        if one.frame in plan.masks:
            labels = merge_masks(labels, plan.masks[one.frame])
            if hidden := sorted(beside - set(ids_in(labels))):
                raise MaskError(
                    f"{one.path} covers all of object {hidden[0]} in frame {one.frame}",
                    "name that object's mask later, so that it lies on top",
                )
        plan.masks[one.frame] = labels
        numbers |= dict.fromkeys(shown, one.frame)
    return plan


def _read(one: GivenMask, frame_names: Sequence[str] | None, classes: dict[int, str]) -> MaskPicture:
    """A mask; ``classes`` gets the classes of its objects."""
    if not is_annotation_file(one.path):
        return read_picture(one.path)
    picture, named = annotated_mask(one.path, one.frame, frame_names)
    for number, name in named.items():
        classes.setdefault(number if one.object_id is None else one.object_id, name)
    return picture


def _labels(
    one: GivenMask, picture: MaskPicture, ids: MaskIds, beside: set[int], numbers: Mapping[int, int]
) -> Labels:
    """Object ids [H, W] of a mask.

    Args:
        beside: ids of the other masks of its frame so far.
        numbers: ids of all masks so far.
    """
    marked = [number for number in ids.objects(picture.marks, MAX_LABELS) if number]
    if one.object_id is not None:
        if len(marked) > 1:
            raise MaskError(
                f"the mask {one.path} shows {len(marked)} objects, so it cannot be object {one.object_id}",
                "give a mask of one object, or leave the number out",
            )
        return _painted(picture.areas, one.object_id)
    if not ids.names_object(picture.marks):
        return _painted(picture.areas, _free(numbers))
    if len(marked) == 1 and marked[0] in beside:
        return _painted(ids.labels(picture), _free(numbers))
    if clash := sorted(beside & set(marked)):
        raise MaskError(
            f"the mask {one.path} holds object {clash[0]}, and so does another mask of frame {one.frame}",
            "give the objects of a frame different numbers",
        )
    return ids.labels(picture)


def _painted(areas: Labels, number: int) -> Labels:
    """All areas [H, W] as one object."""
    return np.where(areas > 0, number, 0).astype(np.uint8)


def _free(numbers: Collection[int]) -> int:
    """The lowest number that no object has."""
    number = free_id(numbers)
    if number is None:
        raise MaskError("there are more than 255 objects", "give fewer masks")
    return number


def _removed(
    number: int, numbers: Mapping[int, int], one: GivenMask, removals: Mapping[int, Sequence[int]] | None
) -> bool:
    """Whether an object was dropped after its last mask."""
    return any(
        numbers[number] < frame <= one.frame and number in dropped
        for frame, dropped in (removals or {}).items()
    )
