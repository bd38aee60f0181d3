"""What ``convert`` and ``track --format`` share: their options, and the writing."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, say
from .progress import show_progress

if TYPE_CHECKING:
    from ..runtime.conversion.result import TrackedMasks


class FormatChoice(str, Enum):
    """:data:`maskring.runtime.conversion.formats.FORMATS` for the command line."""

    coco = "coco"
    cvat = "cvat"
    yolo_seg = "yolo-seg"
    label_studio = "label-studio"
    davis = "davis"
    youtube_vos = "youtube-vos"
    webm = "webm"


LISTED = "coco, cvat (for video), yolo-seg, label-studio, davis, youtube-vos or webm"

Result = Annotated[Path, typer.Argument(help="Folder that maskring track wrote, or a folder of masks.")]
To = Annotated[FormatChoice, typer.Option("--to", metavar="FORMAT", help=f"{LISTED}.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out", help="File (coco, label-studio: .json, cvat: .xml, webm: .webm) or folder to write."
    ),
]
Frames = Annotated[
    Path | None,
    typer.Option(
        "--frames", metavar="FOLDER", help="Images of the frames: for their names, and to be copied."
    ),
]
ObjectNames = Annotated[
    list[str] | None, typer.Option("--name", metavar="ID=NAME", help="Class of an object; repeatable.")
]
Formats = Annotated[
    list[FormatChoice] | None,
    typer.Option("--format", metavar="FORMAT", help=f"Also write the masks as {LISTED}; repeatable."),
]
ClassNames = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="ID=NAME", help="Class of an object for --format; repeatable."),
]


def object_names(texts: Iterable[str]) -> dict[int, str]:
    """Object id -> name, from the values of ``--name``.

    Raises:
        MaskError: when one is not in its form.
    """
    from ..common.errors import MaskError

    given = {}
    for text in texts:
        number, _, name = text.partition("=")
        if not (number.isdecimal() and len(number) < 4) or not name.strip():
            raise MaskError(f"--name {text} names no object", "use ID=NAME, for example 2=cup")
        given[int(number)] = name.strip()
    return given


def require_formats(
    formats: list[FormatChoice] | None, names: list[str] | None, out_dir: Path | None, masks: bool
) -> dict[int, str]:
    """Refuse, before anything is tracked, what ``track --format`` cannot write at the end; returns the names.

    Raises:
        UserError: when options do not fit together, or ``out_dir`` has masks already.
        UnavailableError: when a package is missing.
    """
    from ..common.errors import UserError
    from ..runtime.conversion.result import MASKS
    from ..runtime.conversion.webm import import_av
    from ..runtime.video.annotation_formats import import_coco_mask

    if not formats:
        if names:
            raise UserError(f"--name {names[0]} is for --format alone", "add --format, or leave --name out")
        return {}
    option = f"--format {formats[0].value}"
    if out_dir is None or not masks:
        raise UserError(f"{option} needs the mask files", "add --out DIR, and leave --no-masks out")
    if any((out_dir / MASKS).glob("*.png")):
        raise UserError(
            f"{out_dir} has masks of an earlier run, which {option} would write too",
            "choose another folder for --out, or delete them",
        )
    if FormatChoice.coco in formats:
        import_coco_mask()
    if FormatChoice.webm in formats:
        import_av()
    return object_names(names or [])


def write_formats(
    formats: list[FormatChoice], out_dir: Path, source: str, known: dict[int, str], names: dict[int, str]
) -> None:
    """Write what ``track`` wrote into ``out_dir`` in other formats as well, beside it.

    Args:
        source: of the tracked frames; where it is a folder of images, they are copied as with ``--frames``.
        known: classes of objects that the user did not name.
        names: classes that the user gave.
    """
    from ..runtime.conversion.formats import FORMATS
    from ..runtime.conversion.result import TrackedMasks

    masks = TrackedMasks(out_dir, Path(source) if Path(source).is_dir() else None)
    for one in dict.fromkeys(formats):
        out = out_dir / f"{one.value}{FORMATS[one.value][1]}"
        write_format(masks, one, out, {i: known[i] for i in masks.ids if i in known} | names)
        say(f"{one.value} in {out}")


def write_format(masks: TrackedMasks, to: FormatChoice, out: Path, names: dict[int, str]) -> None:
    """Write masks in a format; notes say what it cannot hold.

    Args:
        masks: of one video.
        to: the format.
        out: file or folder, whose suffix is that of the format.
        names: classes of objects; the others are called by their number.

    Raises:
        MaskError: when ``names`` names an object that no mask shows.
        OutputError: when ``out`` cannot be written.
        UnavailableError: when a package is missing.
    """
    from ..common.errors import MaskError
    from ..common.files import make_directory
    from ..runtime.conversion.formats import FORMATS

    if unknown := sorted(names.keys() - set(masks.ids)):
        raise MaskError(
            f"no mask in {masks.folder} shows object {unknown[0]}",
            f"name one of {', '.join(map(str, masks.ids))}",
        )
    writer, suffix = FORMATS[to.value]
    every = {number: names.get(number, f"object {number}") for number in masks.ids}
    make_directory(out.parent if suffix else out)
    with show_progress() as progress:
        for sentence in writer(masks, out, every, progress):
            note(f"note: {sentence}")
