"""Objects and edits of ``maskring track``, read from the words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import MaskError

if TYPE_CHECKING:
    from ..runtime.arrays.label_maps import Box
    from ..runtime.pipeline.edits import Steering


def planned_edits(mask: Path | None, boxes: list[str], additions: list[str], removals: list[str]) -> Steering:
    """The masks, boxes and removals of ``--mask``, ``--box``, ``--add`` and ``--remove``.

    Raises:
        MaskError: when one is not in its form, or its mask cannot be read.
    """
    from ..runtime.interaction.boxes import Boxed
    from ..runtime.pipeline.edits import Edits, Schedule, merge_masks
    from ..runtime.video.masks import read_mask

    masks = {} if mask is None else {0: read_mask(mask)}
    for text in additions:
        frame, png = _at_frame(text, "--add", "FRAME=PNG")
        added = read_mask(Path(png))
        masks[frame] = merge_masks(added, masks[frame]) if frame in masks else added
    removed: dict[int, list[int]] = {}
    for text in removals:
        frame, object_id = _at_frame(text, "--remove", "FRAME=ID")
        if not _is_number(object_id):
            raise MaskError(f"--remove {text} names no object", "use FRAME=ID, for example 40=2")
        removed.setdefault(frame, []).append(int(object_id))
    schedule = Schedule(Edits(masks, removed))
    return Boxed([parse_box(text) for text in boxes], schedule) if boxes else schedule


def require_reached(end: int | None, additions: list[str] | None, removals: list[str] | None) -> None:
    """Refuse edits after the last frame, once that is known; they would have no effect.

    Raises:
        MaskError: when an edit lies after frame ``end``.
    """
    for option, texts in (("--add", additions or []), ("--remove", removals or [])):
        for text in texts:
            if end is not None and int(text.partition("=")[0]) > end:
                raise MaskError(
                    f"{option} {text} comes after frame {end}, the last one that is tracked",
                    "name an earlier frame; the first one is 0",
                )


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


def _at_frame(text: str, option: str, form: str) -> tuple[int, str]:
    frame, separator, rest = text.partition("=")
    if not separator or not _is_number(frame):
        raise MaskError(f"{option} {text} names no frame", f"use {option} {form}")
    return int(frame), rest
