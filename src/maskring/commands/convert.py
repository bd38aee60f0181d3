"""``maskring convert``."""

from __future__ import annotations

from . import conversion
from .console import note, require_suffix, say


def convert(
    result: conversion.Result,
    to: conversion.To,
    out: conversion.Out,
    frames: conversion.Frames = None,
    names: conversion.ObjectNames = None,
) -> None:
    """Write the masks of a tracked video in the format of another program."""
    from ..runtime.conversion.formats import FORMATS
    from ..runtime.conversion.result import OBJECTS, TrackedMasks

    if suffix := FORMATS[to.value][1]:
        require_suffix(out, suffix)
    given = conversion.object_names(names or [])
    masks = TrackedMasks(result, frames)
    if masks.is_numbered_by_position:
        note(f"note: {result} has no {OBJECTS}: frames are numbered by position, from 0")
    conversion.write_format(masks, to, out, given)
    say(f"{len(masks)} frames, {len(masks.ids)} objects; {to.value} in {out}")
