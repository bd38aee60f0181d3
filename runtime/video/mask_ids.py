"""Object ids of marks: one table for all masks of a run, so that a mark means the same object in each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.types import MAX_LABELS, Labels
from .mask_picture import GREY, REMEDY, Mark, MaskPicture, is_grey, is_shape
from .palette import PALETTE

VOID = 255
"""Palette index of pixels that belong to no object and are not scored, as in PASCAL VOC and DAVIS."""

DEEP_VOID = 65535
"""The same in 16 bits."""

MAX_ID = MAX_LABELS - 1

_DAVIS_ID = {int.from_bytes(colour.tobytes(), "big"): index for index, colour in enumerate(PALETTE)}


class MaskIds:
    """What the marks of several masks mean.

    - A palette index or a grey value is the id. If a value exceeds 255, all are numbered from 1, ascending.
    - Where palettes disagree about the order of their colours, colours decide.
    - A colour that a palette holds means its index. If all colours belong to the DAVIS palette, they mean
      their index there. Others are numbered from 1 by (red, green, blue), mask after mask.
    - 255 is void beside other palette indices, and beside the grey values 1, 2, ..., n.
    - White on black alone names no object. Where other masks have grey values, it is the value 255.

    Args:
        marks: those of each mask, in the order of the run.
        like: ids of other masks; marks that they have too mean the same here.

    Attributes:
        notes: sentences that say how something ambiguous was read.

    Raises:
        MaskError: when there are more than 255 objects.
    """

    def __init__(self, marks: Iterable[tuple[Mark, ...]], like: MaskIds | None = None) -> None:
        masks = list(marks)
        every = list(dict.fromkeys(mark for of_mask in masks for mark in sorted(of_mask, key=_order)))
        self.notes: list[str] = []
        self._white_is_value = any(mark.source in ("value", "grey") for mark in every)
        if not self._white_is_value:
            every = [mark for mark in every if mark.source != "shape"]
        self._ids = self._numbered(every, _palettes_disagree(masks))
        self._like = frozenset[Mark]() if like is None else frozenset(like._ids)
        if like is not None:
            self._ids |= {mark: number for mark, number in like._ids.items() if mark in self._ids}
        self._void = _void_marks(every, self._ids)
        if self._void:
            self.notes.append(f"{VOID} beside other ids was read as void, which belongs to no object")
        if len(set(self._ids.values())) > MAX_ID:
            raise MaskError(f"the masks mark {len(set(self._ids.values()))} objects", "mark at most 255")

    @property
    def ids(self) -> list[int]:
        """Ids of all objects that the masks name, ascending."""
        return sorted({number for mark, number in self._ids.items() if mark not in self._void})

    def names_object(self, marks: tuple[Mark, ...]) -> bool:
        """Whether a mask with these marks says which objects it shows, as a white shape does not."""
        return not is_shape(marks) or (marks[0] in self._ids and marks[0] not in self._void)

    def unnumbered(self, marks: tuple[Mark, ...]) -> list[Mark]:
        """Marks of a mask that are colours of no palette, so that their ids follow from an order alone."""
        return [
            mark
            for mark in marks
            if mark.source == "colour"
            and mark not in self._like
            and self._ids[mark] != _DAVIS_ID.get(mark.colour)
        ]

    def objects(self, marks: tuple[Mark, ...], shape: int = 1) -> list[int]:
        """Ids of the objects in a mask, in the order of its marks; 0 for void.

        Args:
            marks: those of one of the masks.
            shape: id of an object that the mask does not name.
        """
        return [0 if mark in self._void else self._ids.get(mark, shape) for mark in marks]

    def labels(self, picture: MaskPicture, shape: int = 1) -> Labels:
        """Object ids [H, W] of one of the masks; void is background. Arguments as for :meth:`objects`."""
        return np.array([0, *self.objects(picture.marks, shape)], np.uint8)[picture.areas]

    def void(self, picture: MaskPicture) -> NDArray[np.bool_]:
        """Pixels [H, W] of one of the masks that belong to no object and are not scored."""
        return np.array([False, *(mark in self._void for mark in picture.marks)])[picture.areas]

    def _numbered(self, marks: list[Mark], by_colour: bool) -> dict[Mark, int]:
        if by_colour:
            self.notes.append("palettes differ in the order of their colours, so colours tell objects apart")
            numbered = {mark: mark.number for mark in marks if mark.source == "index" and _is_davis(mark)}
            return numbered | _by_colour([mark for mark in marks if mark not in numbered], numbered)
        davis = all(mark.colour in _DAVIS_ID for mark in marks if mark.source in ("grey", "colour", "shape"))
        numbered = {
            mark: mark.number
            for mark in marks
            if mark.source in ("index", "value") or (mark.source in ("grey", "shape") and not davis)
        }
        if any(number > MAX_ID for number in numbered.values()):
            self.notes.append(f"values above {MAX_ID} were replaced: all are numbered from 1, ascending")
            rank = {number: k for k, number in enumerate(sorted(set(numbered.values())), 1)}
            numbered = {mark: rank[number] for mark, number in numbered.items()}
        return numbered | _by_colour([mark for mark in marks if mark not in numbered], numbered)


def is_written(marks: tuple[Mark, ...]) -> bool:
    """Whether a program wrote the mask, by its palette, which no one draws with: that of DAVIS."""
    return bool(marks) and all(mark.source == "index" and _is_davis(mark) for mark in marks)


def _order(mark: Mark) -> tuple[int, int]:
    return mark.colour, mark.number


def _is_davis(mark: Mark) -> bool:
    """Whether a palette index has its colour of the DAVIS palette."""
    return _DAVIS_ID.get(mark.colour) == mark.number


def _palettes_disagree(masks: list[tuple[Mark, ...]]) -> bool:
    """Whether masks differ in the colour of an index or in the indices of a colour, so that indices are no ids.

    Entries that are black like the background have no colour of their own, and a palette may hold a colour
    twice. The DAVIS palette is no editor's: its indices are ids whatever other masks look like.
    """
    placed = {mark for marks in masks for mark in marks if mark.source == "index" and mark.colour}
    edited = {(mark.number, mark.colour) for mark in placed if not _is_davis(mark)}
    several_colours = len({number for number, _ in edited}) < len(edited)
    if not edited or several_colours:
        return several_colours
    placed |= {mark for marks in masks for mark in marks if mark.source == "grey"}
    used: dict[int, set[int]] = {}
    together: dict[int, int] = {}
    for marks in masks:
        of_mask: dict[int, set[int]] = {}
        for mark in placed.intersection(marks):
            of_mask.setdefault(mark.colour, set()).add(mark.number)
        for colour, numbers in of_mask.items():
            used.setdefault(colour, set()).update(numbers)
            together[colour] = max(together.get(colour, 0), len(numbers))
    return any(len(numbers) > together[colour] for colour, numbers in used.items())


def _by_colour(marks: list[Mark], numbered: dict[Mark, int]) -> dict[Mark, int]:
    """Ids of marks by their colours.

    Args:
        marks: in the order in which new colours are numbered.
        numbered: marks that have their ids; those of palettes give them to marks of the same colour.
    """
    ids = {mark.colour: number for mark, number in numbered.items() if mark.source == "index"}
    others = [mark.colour for mark in marks if mark.colour not in ids]
    if all(colour in _DAVIS_ID for colour in others):
        ids |= {colour: _DAVIS_ID[colour] for colour in others}
    elif all(is_grey(colour) for colour in others):
        ids |= {colour: colour // GREY for colour in others}
    else:
        taken = {0, *numbered.values()}
        free = (number for number in range(1, MAX_LABELS) if number not in taken)
        for colour in dict.fromkeys(others):
            ids[colour] = next(free, 0)
        if 0 in ids.values():
            raise MaskError("the masks mark more than 255 objects", REMEDY)
    return {mark: ids[mark.colour] for mark in marks}


def _void_marks(marks: list[Mark], ids: dict[Mark, int]) -> set[Mark]:
    """Marks of pixels that belong to no object."""
    coded = {mark for mark in marks if mark.source == "index" or ids[mark] == _DAVIS_ID.get(mark.colour)}
    void = {mark for mark in coded if VOID in (mark.number, ids[mark]) and not mark.solid}
    if void == coded:
        void = set()
    values = {mark for mark in marks if mark.source in ("value", "grey", "shape")} - void
    ends = {mark for mark in values if mark.number in (VOID, DEEP_VOID)}
    numbers = {mark.number for mark in values - ends}
    if numbers and numbers == set(range(1, len(numbers) + 1)):
        void |= ends
    return void
