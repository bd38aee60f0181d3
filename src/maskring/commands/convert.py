"""``maskring convert``."""

from __future__ import annotations

from . import options
from .console import note, require_suffix, say
from .progress import show_progress


def convert(
    result: options.Result,
    to: options.ConvertedTo,
    out: options.ConvertedOut,
    frames: options.ConvertedFrames = None,
    names: options.ObjectNames = None,
) -> None:
    """Write the masks of a tracked video in the format of another program."""
    from ..common.errors import MaskError
    from ..common.files import make_directory
    from ..runtime.conversion.formats import FORMATS
    from ..runtime.conversion.result import OBJECTS, TrackedMasks

    writer, suffix = FORMATS[to.value]
    if suffix:
        require_suffix(out, suffix)
    given = {}
    for text in names or []:
        number, _, name = text.partition("=")
        if not (number.isdecimal() and len(number) < 4) or not name.strip():
            raise MaskError(f"--name {text} names no object", "use ID=NAME, for example 2=cup")
        given[int(number)] = name.strip()
    masks = TrackedMasks(result, frames)
    if unknown := sorted(given.keys() - set(masks.ids)):
        raise MaskError(
            f"no mask in {result} shows object {unknown[0]}", f"name one of {', '.join(map(str, masks.ids))}"
        )
    if masks.is_numbered_by_position:
        note(f"note: {result} has no {OBJECTS}: frames are numbered by position, from 0")
    every = {number: given.get(number, f"object {number}") for number in masks.ids}
    make_directory(out.parent if suffix else out)
    with show_progress() as progress:
        for sentence in writer(masks, out, every, progress):
            note(f"note: {sentence}")
    say(f"{len(masks)} frames, {len(masks.ids)} objects; {to.value} in {out}")
