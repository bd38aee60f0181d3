"""What a mask's picture shows before its values become object ids: areas, and how each is marked.

A file alone cannot always tell which object a value means: an editor may order its palette anew in each file.
So a picture keeps the marks, and :mod:`.mask_ids` gives them ids for all masks of a run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.types import MAX_LABELS, Labels
from .mask_edges import (
    FEW_BLENDS,
    Entries,
    blended_entries,
    edge_entries,
    flat_entries,
    outline_entries,
    scattered_entries,
    soft_shape,
)

REMEDY = "save it as a palette PNG in which the index of a pixel is the number of its object"

WHITE, BLACK = 0xFFFFFF, 0
GREY = 0x010101
"""Packed colour of grey value 1."""

MAX_OFF_LINE = 32
"""How far the colour of a soft edge may be from the line between black and its object, in steps of 1/255."""

Values: TypeAlias = NDArray[np.integer[Any]]
Visible: TypeAlias = NDArray[np.bool_]

Source: TypeAlias = Literal["index", "value", "grey", "colour", "shape"]
"""How a file marks an object: by a palette index, a grey value, equal values of three colour channels, a
colour, or as the only thing that is there (white on black, or cut out by the alpha channel)."""


@dataclass(frozen=True, order=True)
class Mark:
    """How a file marks one object.

    Attributes:
        source: what carries the mark.
        number: palette index or grey value; 0 for colours.
        colour: 0xRRGGBB.
        solid: the file says that 255 is an object, not void.
    """

    source: Source
    number: int
    colour: int
    solid: bool = False


@dataclass(frozen=True, eq=False)
class MaskPicture:
    """The areas of a mask.

    Attributes:
        name: of the file, for messages.
        areas: [H, W] uint8; 0 is the background, k is the area of ``marks[k - 1]``.
        marks: of the areas that occur.
        notes: sentences that say how something ambiguous was read.
    """

    name: str
    areas: Labels
    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()


def is_shape(marks: tuple[Mark, ...]) -> bool:
    """Whether a mask shows one object and neither number nor colour for it."""
    return len(marks) == 1 and marks[0].source == "shape"


def is_grey(colour: int) -> bool:
    """Whether a packed colour is grey."""
    return colour == (colour & 0xFF) * GREY


def softened(
    name: str, entries: Entries, colours: NDArray[Any], used: NDArray[np.intp], *, required: bool = True
) -> tuple[Visible, int] | None:
    """The shape and the entry of the only object, where all other values blend it with the background.

    Args:
        entries: [H, W] positions in ``colours``.
        colours: [N, 3] RGB.
        used: the entries that occur.
        required: refuse soft edges that cannot be resolved.

    Returns:
        None where there are no soft edges.
    """
    flat = flat_entries(entries, len(colours))
    areas = [int(entry) for entry in used if flat[entry]]
    dark = [entry for entry in areas if not colours[entry].any()]
    if len(areas) == 2 and len(dark) == 1 and len(used) > 2:
        (entry,) = set(areas) - set(dark)
        full = colours[entry].astype(np.float64)
        share = colours.astype(np.float64) @ full / (full @ full)
        off = np.linalg.norm(colours - share[:, None] * full, axis=1)
        if (off[used] <= MAX_OFF_LINE).all():
            strength = np.clip(np.round(share * 255), 0, 255).astype(np.uint8)[entries]
            shape = soft_shape(strength)
            if shape is not None:
                return shape, entry
    if required:
        mapped = np.zeros(len(colours), np.intp)
        mapped[used] = np.arange(len(used))
        check_edges(name, mapped[entries], colours[used], flat[used])
    return None


def check_edges(name: str, entries: Entries, colours: NDArray[Any], flat: NDArray[np.bool_]) -> None:
    """Refuse soft edges between several objects: where two blend, no colour tells whose a pixel is.

    Args:
        entries: [H, W] positions in ``colours``, of which all occur.
        colours: [N, C].
        flat: [N].
    """
    blends = len(blended_entries(entries, colours, flat))
    edges = len(edge_entries(entries, colours, flat))
    blends = max(blends, edges if edges > FEW_BLENDS else 0)
    if blends:
        raise MaskError(
            f"the mask {name} has soft edges: {blends} colours or greys appear along edges alone",
            "draw without smoothing, scale without interpolation, and " + REMEDY,
        )


def check_objects(name: str, labels: Labels) -> None:
    """Refuse what no one draws as an object: pixels that stand alone, and lines around other objects.

    A tracker's mask may hold such objects, so this is for masks that were drawn.

    Args:
        labels: [H, W] object ids.
    """
    if scattered := scattered_entries(labels, MAX_LABELS):
        raise MaskError(
            f"the mask {name} is dithered: pixels of {len(scattered)} colours or greys stand alone",
            "convert it without dithering, and " + REMEDY,
        )
    if outlines := outline_entries(labels, np.bincount(labels.ravel()), flat_entries(labels, MAX_LABELS)):
        raise MaskError(
            f"the mask {name} has {len(outlines)} colours or greys that only outline other objects",
            "paint outlines black, or with index 255 of a palette, which is void",
        )


def marked_by_index(
    name: str, indices: Labels, objects: NDArray[np.intp], palette: NDArray[np.uint8], solid: bool
) -> MaskPicture:
    """The picture of ``indices`` into a ``palette`` [256, 3]; ``objects`` are the indices that are areas."""
    colours = packed_colours(palette)
    marks = [Mark("index", int(index), int(colours[index]), solid) for index in objects]
    areas = np.zeros(256, np.uint8)
    areas[objects] = np.arange(1, len(objects) + 1)
    return MaskPicture(name, areas[indices], tuple(marks))


def assembled(
    name: str,
    entries: Entries,
    table: Values,
    marks: list[Mark],
    notes: tuple[str, ...],
    by_colour: bool = False,
) -> MaskPicture:
    """The picture whose areas are the entries of ``marks``."""
    area_of = {mark.colour if by_colour else mark.number: k for k, mark in enumerate(marks, 1)}
    lookup = np.array([area_of.get(int(value), 0) for value in table], np.uint8)
    return MaskPicture(name, lookup[entries], tuple(marks), notes)


def picture_of_one(name: str, shape: Visible, mark: Mark) -> MaskPicture:
    """A picture of one object."""
    areas = shape.astype(np.uint8)
    notes: tuple[str, ...] = ()
    corners = areas[[0, 0, -1, -1], [0, -1, 0, -1]]
    if areas.size and areas.all():
        notes = (f"the object in {name} covers the whole picture",)
    elif mark.source == "shape" and corners.all():
        notes = (f"the object in {name} covers all corners; if the object is the hole, invert the mask",)
    return MaskPicture(name, areas, (mark,) if areas.any() else (), notes)


def packed_colours(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """RGB colours [..., 3] as 0xRRGGBB."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def unpacked_colours(colours: Values) -> NDArray[np.uint8]:
    """Colours 0xRRGGBB as RGB [..., 3]."""
    return np.stack([colours >> 16 & 0xFF, colours >> 8 & 0xFF, colours & 0xFF], axis=-1).astype(np.uint8)


def value_table(values: Values) -> tuple[Values, Entries]:
    """The values that occur, ascending, and for each pixel the position of its value among them."""
    if values.dtype == np.uint8:  # much faster than sorting
        table = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        lookup = np.zeros(256, np.uint8)
        lookup[table] = np.arange(len(table))
        return table, lookup[values]
    table, entries = np.unique(values, return_inverse=True)
    return table, entries.reshape(values.shape)


def shape_mark(brightest: int) -> Mark:
    return Mark("shape", brightest, WHITE)


def value_mark(source: Literal["value", "grey"], value: int) -> Mark:
    return Mark(source, value, value * GREY if value <= 255 else -1)
