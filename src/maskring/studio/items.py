"""The objects of a project or a stream: their numbers in masks, names and colours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..common.errors import MaskError, UserError
from ..common.types import MAX_LABELS
from ..runtime.tracking.objects import free_id
from ..runtime.video.palette import PALETTE

MAX_NAME = 100

JOINERS = "\u200c\u200d"
"""Invisible letters that Persian, Indic scripts and emoji need."""

COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class Item:
    """An object: its number in masks, its name, its colour as ``#rrggbb``."""

    id: int
    name: str
    colour: str


class Items(dict[int, Item]):
    """Objects by number. Asking for one that is not there raises :class:`MaskError`.

    Args:
        items: the objects.
        used: the highest number that was ever given.
        reuse: numbers of deleted objects may be given again once there are no others. A project's may not: its masks
            still hold them.
    """

    def __init__(self, items: Iterable[Item] = (), used: int = 0, *, reuse: bool = False) -> None:
        super().__init__({item.id: item for item in items if 0 < item.id < MAX_LABELS})
        self.used, self._reuse = max([used, *self]), reuse

    def __missing__(self, object_id: int) -> Item:
        raise MaskError(f"there is no object {object_id}", "choose an object from the list")

    def palette(self) -> NDArray[np.uint8]:
        """RGB colour of each number, [256, 3] uint8."""
        palette: NDArray[np.uint8] = PALETTE.copy()
        for item in self.values():
            if COLOUR.fullmatch(item.colour):  # a project's file may hold anything
                palette[item.id] = np.frombuffer(bytes.fromhex(item.colour[1:]), np.uint8)
        return palette

    def add(self, name: str = "") -> Item:
        """A new object.

        Raises:
            MaskError: when there are too many.
        """
        number = self.used + 1
        if number >= MAX_LABELS:
            number = (free_id(self) or 0) if self._reuse else 0
        if not number:
            raise MaskError(
                f"there can be {MAX_LABELS - 1} objects",
                "delete one that is not needed" if self._reuse else "begin another project for more",
            )
        self.used = max(self.used, number)
        self[number] = Item(number, _name(name) or f"Object {number}", default_colour(number))
        return self[number]

    def add_ids(self, ids: Iterable[int]) -> None:
        """Objects that a mask brought, by their numbers there."""
        for object_id in sorted(set(ids) - self.keys()):
            self[object_id] = Item(object_id, f"Object {object_id}", default_colour(object_id))
        every = sorted(self.values(), key=lambda item: item.id)
        self.clear()
        self.update({item.id: item for item in every})
        self.used = max([self.used, *self])

    def change(self, object_id: int, *, name: str | None = None, colour: str | None = None) -> None:
        """Give an object another name or colour.

        Raises:
            MaskError: when there is no such object.
            UserError: when the colour is not of the form ``#rrggbb``.
        """
        item = self[object_id]
        if colour is not None and not COLOUR.fullmatch(colour.lower()):
            raise UserError(f"{colour} is not a colour", "give #rrggbb")
        changed = replace(item, name=_name(name or "") or item.name, colour=(colour or item.colour).lower())
        self[object_id] = changed


def default_colour(object_id: int) -> str:
    """The palette's colour of an object, bright and a little softened, so that it shows on dark frames."""
    channels = [int(channel) for channel in PALETTE[object_id]]
    brightest = max(*channels, 1)
    return "#" + "".join(f"{48 + channel * 207 // brightest:02x}" for channel in channels)


def _name(text: str) -> str:
    """A name of one line."""
    return "".join(letter for letter in text if letter.isprintable() or letter in JOINERS).strip()[:MAX_NAME]
