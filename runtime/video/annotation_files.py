"""Masks from the annotation files of other programs: COCO, CVAT and LabelMe.

Polygons cover the pixels that the program itself gives them: pycocotools for COCO and CVAT, Pillow for LabelMe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from ...common.errors import MaskError
from .annotation_formats import AnnotatedFrame, coco_frames, cvat_frames, labelme_frame
from .folders import images_in
from .frame import MAX_PIXELS
from .mask_picture import MaskPicture, value_mark

ANNOTATION_SUFFIXES = (".json", ".xml")
"""Suffixes of files that are read as annotations, not as images."""

FRAME_NAME = re.compile(r"(?:frame_)?([0-9]{5,9})")
"""Names of images that give the index of a frame of a video: CVAT's ``frame_000042``, and maskring's ``00042``."""

MAX_FILE_BYTES = 1 << 30

MAX_OBJECTS = 254
"""Objects of a frame; 255 among numbers is void."""


def is_annotation_file(path: Path) -> bool:
    """Whether a file is read by :func:`annotated_mask`, as its suffix tells."""
    return path.suffix.lower() in ANNOTATION_SUFFIXES


def frame_names(source: str, ignored: Iterable[Path] = ()) -> list[str] | None:
    """Names without suffix of the frames in a folder; None for other sources, whose frames have numbers.

    Args:
        source: as for :func:`.open_source.open_source`.
        ignored: images that are no frames.
    """
    folder = Path(source)
    if not folder.is_dir():
        return None
    others = {path.resolve() for path in ignored}
    return [path.stem for path in images_in(folder) if path.resolve() not in others]


def annotated_mask(path: Path, index: int, names: Sequence[str] | None) -> tuple[MaskPicture, dict[int, str]]:
    """The mask of one frame, and object id -> class.

    The frame is the one of that index, where the file numbers frames, else the one whose image is named like it.
    A file of a single frame may name its image as it likes, but not like another frame. Objects have the
    numbers that the file gives them through all frames, else 1, 2, ... in its order.

    Args:
        path: a file of COCO, CVAT or LabelMe.
        index: of the frame in its source.
        names: of all frames of the source, in order; None where they are called by their index.

    Raises:
        MaskError: when the file is missing, damaged or foreign, or has no such frame.
        UnavailableError: when pycocotools is needed and not installed.
    """
    try:
        frames = [one for one in _frames(path) if one.objects]
        frame = _of_frame(path, frames if names is not None else _numbered(frames), index, names)
        return _picture(path, frame)
    except MaskError as error:
        raise MaskError(_with_name(error.problem, path), error.remedy) from error
    except OSError as error:
        raise MaskError(
            f"the annotations {path} cannot be read ({error.strerror})", "check the path"
        ) from error
    except (
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
        ElementTree.ParseError,
    ) as error:  # fmt: skip
        raise MaskError(
            f"the annotations {path} are damaged ({type(error).__name__}: {error})", "export them again"
        ) from error


def _frames(path: Path) -> list[AnnotatedFrame]:
    """All frames of a file, whose shapes are not drawn yet."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MaskError(f"the annotations {path} are larger than 1 GB", "export the frames of masks alone")
    data = path.read_bytes()
    if path.suffix.lower() == ".xml":
        root = ElementTree.fromstring(data)
        if root.tag == "annotations":
            return cvat_frames(root)
    else:
        document = json.loads(data)
        if isinstance(document, dict) and "shapes" in document:
            return [labelme_frame(document)]
        if isinstance(document, dict) and {"images", "annotations"} <= document.keys():
            return coco_frames(document)
    raise MaskError(
        f"{path} is no annotation file of COCO, CVAT or LabelMe", "export one of these, or masks as images"
    )


def _of_frame(
    path: Path, frames: list[AnnotatedFrame], index: int, names: Sequence[str] | None
) -> AnnotatedFrame:
    if not frames:
        raise MaskError(f"the annotations {path} hold no object", "annotate one first")
    name = f"{index:05d}" if names is None else names[index] if index < len(names) else None
    if found := [one for one in frames if one.index == index]:
        return found[0]
    unnumbered = [one for one in frames if one.index is None]
    if found := [one for one in unnumbered if _stem(one) == name]:
        return found[0]
    (only, *others) = frames
    called = f"frame {index}" if name is None else f"frame {index} ({name})"
    if others:
        raise MaskError(
            f"the annotations {path} have {len(frames)} frames with objects, and none of them is {called}",
            "annotate that frame, or name another one with --from or --add FRAME=FILE",
        )
    other = only.index if names is None or _stem(only) not in names else names.index(_stem(only))
    if other is not None:
        raise MaskError(
            f"the annotations {path} belong to frame {other}, not to {called}",
            f"track with --from {other}, or use --add {other}={path}",
        )
    return only


def _numbered(frames: list[AnnotatedFrame]) -> list[AnnotatedFrame]:
    """Frames of a video, with the indices that tools put into the names of their images."""
    matches = [None if one.index is not None else FRAME_NAME.fullmatch(_stem(one)) for one in frames]
    return [
        replace(one, index=int(match[1])) if match else one
        for one, match in zip(frames, matches, strict=True)
    ]


def _with_name(problem: str, path: Path) -> str:
    """A problem that names its file."""
    return problem if str(path) in problem else f"{path}: {problem}"


def _stem(frame: AnnotatedFrame) -> str:
    return PurePosixPath(frame.image.replace("\\", "/")).stem


def _picture(path: Path, frame: AnnotatedFrame) -> tuple[MaskPicture, dict[int, str]]:
    """The mask of a frame, drawn."""
    height, width = frame.size
    if not 0 < height * width <= MAX_PIXELS or min(height, width) < 1:
        raise MaskError(f"the annotations {path} claim {width} x {height} pixels", "export them again")
    given = [one.number for one in frame.objects]
    numbers = [number for number in given if number is not None and 0 <= number <= MAX_OBJECTS]
    if len(numbers) < len(given):
        numbers = list(range(1, len(given) + 1))
    distinct = sorted(set(numbers) - {0})
    if len(distinct) > MAX_OBJECTS:
        raise MaskError(f"the annotations {path} hold {len(distinct)} objects", f"keep at most {MAX_OBJECTS}")
    painted = np.zeros(frame.size, np.uint8)
    for number, one in zip(numbers, frame.objects, strict=True):
        shape = one.shape()
        if shape.shape != frame.size:
            raise ValueError(f"a mask of another size than {width} x {height}")
        painted[shape != 0] = number
    shown = [number for number in distinct if (painted == number).any()]
    table = np.zeros(MAX_OBJECTS + 1, np.uint8)
    table[shown] = np.arange(1, len(shown) + 1)
    names = {number: one.name for number, one in zip(reversed(numbers), reversed(frame.objects), strict=True)}
    classes = {number: names[number] for number in shown}
    marks = tuple(value_mark("value", number) for number in shown)
    listed = ", ".join(f"{number} is {name}" for number, name in classes.items())
    notes: tuple[str, ...] = (f"{path}: object {listed}",) if classes else ()
    if hidden := sorted(set(distinct) - set(shown)):
        notes += (f"{path}: object {hidden[0]} is empty, or covered by others",)
    return MaskPicture(str(path), table[painted], marks, notes), classes
