"""How pixels mark objects: by palette indices, grey values, colours or transparency."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.types import Labels
from .mask_alpha import check_alpha, least_opaque, shows_blurred_areas, visible_by
from .mask_edges import MAX_VALUES, Entries, flat_entries, soft_shape
from .mask_picture import (
    BLACK,
    GREY,
    REMEDY,
    WHITE,
    Mark,
    MaskPicture,
    Values,
    Visible,
    assembled,
    check_edges,
    is_grey,
    marked_by_index,
    packed_colours,
    picture_of_one,
    shape_mark,
    softened,
    unpacked_colours,
    value_mark,
    value_table,
)
from .palette import PALETTE

MAX_GREY_CHROMA = 16
"""Largest difference of a pixel's channels in a lossy grey picture."""

MIN_LEVEL = 0.6
"""Share of pixels that equal their right neighbour in a label map; in noise and photographs it is smaller."""

MIN_NOISY_PIXELS = 1024
"""Smaller pictures may be all outlines."""


def picture_of_indices(
    name: str, indices: Labels, palette: NDArray[np.uint8], alpha: NDArray[np.uint8], *, solid: bool = False
) -> MaskPicture:
    """Areas of palette indices.

    The index is the number of an object where index 0 is the background. Otherwise the colours decide, as
    they would without a palette.

    Args:
        indices: [H, W].
        palette: [256, 3] RGB.
        alpha: [256] opacity of the entries.
        solid: the file says that index 255 is an object.
    """
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    opaque = alpha[used].min() == 255
    hidden = alpha < (128 if opaque else least_opaque(alpha[indices]))
    if (palette[used] == PALETTE[used]).all():
        return marked_by_index(name, indices, used[used > 0], palette, solid)
    colours = packed_colours(palette)
    black = [index for index in used if colours[index] == BLACK and not hidden[index]]
    ordered = bool(hidden[0] or colours[0] == BLACK)
    if 0 not in used:
        ordered = bool(hidden[used].any()) or (ordered and len(black) != 1)
    elif hidden[0] and len(black) == 1:
        ordered = False
    if not ordered:
        return picture_of_colours(name, palette[indices], _none_if_all(~hidden[indices]))
    objects = np.array([index for index in used if index > 0 and not hidden[index]], np.intp)
    shown = np.where(hidden, 0, np.arange(256)).astype(np.uint8)[indices]
    told_apart = len({BLACK, *colours[objects].tolist()}) > len(objects)
    if told_apart and len(objects):
        opaque = palette.copy()
        opaque[hidden], opaque[0] = 0, 0
        soft = softened(name, shown, opaque, np.array([0, *objects]))
        if soft is not None:
            shape, index = soft
            return picture_of_one(name, shape, Mark("index", index, int(colours[index]), solid))
    return marked_by_index(name, shown, objects, palette, solid)


def picture_of_values(
    name: str,
    values: Values,
    brightest: int,
    visible: Visible | None = None,
    *,
    lossy: bool = False,
    source: Literal["value", "grey"] = "value",
) -> MaskPicture:
    """Areas of grey values: the value is the number of an object, the brightest alone is a shape.

    Args:
        values: [H, W].
        brightest: the largest value that the file's type can hold, which shows as white.
        visible: [H, W], False where the picture is transparent; None where it is opaque.
        lossy: the file was compressed with loss.
        source: where the values were.

    Raises:
        MaskError: when the values cannot be objects.
    """
    if visible is not None:
        if _is_cut_out(values, brightest, visible) or (
            _is_photograph(values, visible)
            and not (values.dtype == np.uint8 and shows_blurred_areas(values.view(np.uint8), visible))
        ):
            return picture_of_one(name, visible, shape_mark(brightest))
        values = np.where(visible, values, 0)
    if values.size and int(values.min()) < 0:
        raise MaskError(f"the mask {name} holds negative values", "use 0 for the background and ids from 1")
    deep = brightest > 255
    if deep and not (values % 257).any():  # 8 bits spread over 16
        values = (values // 257).astype(np.uint8)
    if deep and values.max(initial=0) <= 255:
        brightest = 255
    table, entries = value_table(values)
    objects = table[table > 0]
    if not len(objects):
        return MaskPicture(name, np.zeros(values.shape, np.uint8), ())
    if not lossy and len(objects) == 1:
        mark = shape_mark(brightest) if objects[0] == brightest else value_mark(source, int(objects[0]))
        return picture_of_one(name, values > 0, mark)
    if brightest in objects or lossy:
        strength = values if brightest == 255 else values.astype(np.int64) * 255 // brightest
        soft = soft_shape(strength.astype(np.uint8), lossy=lossy)
        if soft is not None:
            return picture_of_one(name, soft, shape_mark(brightest))
    if lossy:
        raise MaskError(
            f"the mask {name} is not a PNG: it was compressed with loss, and shows more than white on black",
            REMEDY,
        )
    _check_number_of_values(name, values, table, deep)
    flat = flat_entries(entries, len(table))
    notes: tuple[str, ...] = ()
    background = 0
    if table[0] > 0 and table[-1] == brightest and flat[-1]:
        background, notes = brightest, (f"{name} has no black; its white was read as background",)
    check_edges(name, entries, table[:, None], flat)
    marks = [value_mark(source, int(value)) for value in objects if value != background]
    return assembled(name, entries, table, marks, notes)


def picture_of_colours(name: str, colours: NDArray[np.uint8], visible: Visible | None = None) -> MaskPicture:
    """Areas of an RGB picture [H, W, 3]: transparent or black is the background, else white.

    Args:
        visible: [H, W], False where the picture is transparent; None where it is opaque.

    Raises:
        MaskError: when it has no background, or its colours cannot be objects.
    """
    packed = packed_colours(colours)
    if visible is not None and _is_photograph(packed, visible) and not shows_blurred_areas(colours, visible):
        return picture_of_one(name, visible, shape_mark(255))
    spread = 0
    if visible is None or visible.any():
        spread = int(np.ptp(colours if visible is None else colours[visible], axis=-1).max())
        if spread == 0:
            return picture_of_values(name, colours[..., 0], 255, visible, source="grey")
    shown = packed if visible is None else np.where(visible, packed, -1)
    table, entries = value_table(shown)
    if len(table) > MAX_VALUES + 1:
        if spread <= MAX_GREY_CHROMA:
            grey = colours.mean(axis=-1).round().astype(np.uint8)
            return picture_of_values(name, grey, 255, visible, lossy=True, source="grey")
        soft = _soft_colours(name, entries, table)
        if soft is not None:
            return soft
        raise MaskError(f"the mask {name} has {len(table)} colours, so they cannot all be objects", REMEDY)
    flat = flat_entries(entries, len(table))
    background, notes = _background(name, table, entries, flat)
    objects = table[table != background]
    if background < 0:
        objects = objects[objects != BLACK]
    soft = _soft_colours(name, entries, table)
    if soft is not None:
        return soft
    check_edges(name, entries, unpacked_colours(np.where(table < 0, 0, table)), flat)
    marks = [Mark("colour", 0, int(colour)) for colour in objects]
    marks = [value_mark("grey", mark.colour // GREY) if is_grey(mark.colour) else mark for mark in marks]
    return assembled(name, entries, table, marks, notes, by_colour=True)


def picture_with_alpha(
    name: str, colours: NDArray[np.uint8], alpha: NDArray[np.uint8], *, lossy: bool = False
) -> MaskPicture:
    """Areas of a picture with an alpha channel: transparent is the background.

    Args:
        colours: RGB [H, W, 3], or grey [H, W].
        alpha: [H, W].
        lossy: the colours were compressed with loss.

    Raises:
        MaskError: when neither its colours nor its transparency tell objects apart.
    """
    visible = visible_by(alpha)
    if lossy:
        picture = lossy_picture(name, colours, visible)
    elif colours.ndim == 3:
        picture = picture_of_colours(name, colours, visible)
    else:
        picture = picture_of_values(name, colours, 255, visible)
    return check_alpha(picture, alpha)


def lossy_picture(name: str, colours: NDArray[np.uint8], visible: Visible | None = None) -> MaskPicture:
    """The areas of a picture [H, W] or [H, W, 3] that was compressed with loss: white on black, or what its
    alpha channel cuts out.

    Raises:
        MaskError: when it shows anything else.
    """
    if visible is not None:
        if shows_blurred_areas(colours, visible):
            raise MaskError(f"the mask {name} shows several colours and was compressed with loss", REMEDY)
        return picture_of_one(name, visible, shape_mark(255))
    if colours.ndim == 3:
        if int(np.ptp(colours, axis=-1).max(initial=0)) > MAX_GREY_CHROMA:
            raise MaskError(
                f"the mask {name} is not a PNG: it was compressed with loss, which blurs colours", REMEDY
            )
        colours = colours.mean(axis=-1).round().astype(np.uint8)
    return picture_of_values(name, colours, 255, lossy=True)


def _background(
    name: str, table: Values, entries: Entries, flat: NDArray[np.bool_]
) -> tuple[int, tuple[str, ...]]:
    """The entry of the background among packed colours (-1 is transparent), and a note where it is white.

    Raises:
        MaskError: when there is none, or more than one.
    """
    if table[0] < 0:
        if len(table) > 2 and table[1] == BLACK and flat[1]:
            raise MaskError(
                f"the mask {name} has transparent and black areas, and either may be its background",
                "paint one of them in the other's colour",
            )
        return -1, ()
    if table[0] == BLACK:
        return BLACK, ()
    rows, columns = entries[[0, -1]], entries[:, [0, -1]]
    if table[-1] == WHITE and len(table) > 1 and max(rows.max(), columns.max()) == len(table) - 1:
        return WHITE, (f"{name} has no black; its white was read as background",)
    raise MaskError(
        f"the mask {name} has no black background",
        "paint everything but the objects black, or make it transparent",
    )


def _check_number_of_values(name: str, values: Values, table: Values, deep: bool) -> None:
    """Refuse a photograph or noise. Integers of more than 8 bits may mark 255 objects."""
    objects = int((table > 0).sum())
    if deep and objects > 255:
        raise MaskError(f"the mask {name} holds {objects} objects", "mark at most 255")
    level = float((values[:, 1:] == values[:, :-1]).mean()) if values.size >= MIN_NOISY_PIXELS else 1.0
    if level < MIN_LEVEL or (objects > MAX_VALUES and not deep):
        raise MaskError(
            f"the mask {name} has {len(table)} grey values, so they cannot all be objects", REMEDY
        )


def _is_cut_out(values: Values, brightest: int, visible: Visible) -> bool:
    """Whether all visible pixels are black or all are white, so that transparency alone draws the object."""
    shown = values[visible]
    return bool(shown.size) and bool((shown == shown[0]).all()) and shown[0] in (0, brightest)


def _is_photograph(packed: Values, visible: Visible) -> bool:
    """Whether few of the visible pixels lie in areas of one value: the picture itself was cut out."""
    if len(np.unique(packed[visible])) <= MAX_VALUES:
        return False
    table, entries = value_table(np.where(visible, packed, -1))
    flat = flat_entries(entries, len(table))
    return float(flat[entries[visible]].mean()) < 0.5


def _none_if_all(visible: Visible) -> Visible | None:
    return None if visible.all() else visible


def _soft_colours(name: str, entries: Entries, table: Values) -> MaskPicture | None:
    """One coloured object with soft edges."""
    colours = unpacked_colours(np.where(table < 0, 0, table))
    soft = softened(name, entries, colours, np.arange(len(table)), required=False)
    if soft is None:
        return None
    shape, entry = soft
    colour = int(table[entry])
    mark = value_mark("grey", colour // GREY) if is_grey(colour) else Mark("colour", 0, colour)
    return picture_of_one(name, shape, mark)
