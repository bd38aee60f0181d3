"""Labelled video datasets on disk: the DAVIS and the YouTube-VOS layout.

DAVIS (2016 masks and 2017 palettes)::

    ROOT/JPEGImages/RESOLUTION/SEQUENCE/00000.jpg ...
    ROOT/Annotations/RESOLUTION/SEQUENCE/00000.png ...
    ROOT/ImageSets/2017/SPLIT.txt, else ROOT/ImageSets/2016/SPLIT.txt

YouTube-VOS, where the split is a folder and any frames may be annotated::

    ROOT/SPLIT/JPEGImages/SEQUENCE/00000.jpg ...
    ROOT/SPLIT/Annotations/SEQUENCE/00000.png ...

SA-V, with a folder of masks per object (``Annotations`` may hold such folders in the other layouts too)::

    ROOT/JPEGImages_24fps/SEQUENCE/00000.jpg ...
    ROOT/Annotations_6fps/SEQUENCE/000/00000.png ...
    ROOT/sav_val.txt

ROOT may also be a split's own folder (``ROOT/JPEGImages/SEQUENCE``); the split ``all`` is all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...common.errors import MaskError, SourceError
from ..video.folders import IMAGES, RESOLUTIONS, images_in

ANNOTATIONS, LISTS = "Annotations", "ImageSets"

SAV_IMAGES, SAV_ANNOTATIONS, SAV_LIST = "JPEGImages_24fps", "Annotations_6fps", "sav_"
"""Folders of SA-V, and how the names of its lists begin."""

LIST_FOLDERS = ("2017", "2016", "480p", "1080p", "")
"""Folders below ``ImageSets`` that may hold a split's list, best first. DAVIS-2016 names them by resolution."""

WHOLE_FOLDER = "all"
"""Name of the split that consists of all sequences in a folder without lists."""

MAX_NAME_BYTES = 255
"""Longest file name that file systems allow."""


@dataclass(frozen=True)
class DatasetSequence:
    """A video with annotated frames.

    Attributes:
        name: as in the split's list.
        frames: image files in temporal order.
        annotations: frame index -> mask file; at least one. In SA-V, the mask of one of the objects.
        objects: in SA-V, the folder of each object -> frame index -> mask file; else empty.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: dict[int, Path]
    objects: dict[str, dict[int, Path]] = field(default_factory=dict)

    @property
    def mask_files(self) -> list[Path]:
        """All files with annotations."""
        return [file for files in (self.objects.values() or [self.annotations]) for file in files.values()]

    def predictions_in(self, folder: Path) -> Iterator[Path]:
        """The files that predictions for all frames are written to."""
        for place in [folder / name for name in self.objects] or [folder]:
            yield from (place / f"{path.stem}.png" for path in self.frames)


def load_split(root: Path, split: str) -> list[DatasetSequence]:
    """The sequences of a split, in the order of its list. Reads names only, opens no image.

    Raises:
        SourceError: when the root, the split or a sequence is missing.
        MaskError: when a sequence has no annotation that belongs to a frame.
    """
    if not root.is_dir():
        raise SourceError(f"the dataset root {root} is not a folder", "check the path")
    folder = root if split == WHOLE_FOLDER or not (root / split).is_dir() else root / split
    names = listed_sequences(root, split)
    if names is not None:
        return [_sequence(folder if _images(folder) else root, name, split) for name in names]
    if (images := _images(folder)) is None or (folder == root and split != WHOLE_FOLDER):
        raise SourceError(f"{root} has no split named {split}", _existing_splits(root))
    return [_sequence(folder, name, split) for name in folders_in(images)]


def find_sequences(root: Path) -> list[DatasetSequence]:
    """Every annotated sequence below ``root``, by name; split lists are not needed.

    Sequences without annotations are left out. Of several resolutions, the first of
    :data:`.folders.RESOLUTIONS` with an annotated sequence is taken.
    """
    for resolution in (*RESOLUTIONS, ""):
        images, masks = root / IMAGES / resolution, root / ANNOTATIONS / resolution
        sequences = []
        for name in folders_in(images):
            with suppress(SourceError, MaskError):
                sequences.append(_pair(name, images / name, masks / name))
        if sequences:
            return sequences
    return []


def _images(folder: Path) -> Path | None:
    """The folder of all sequences' frames."""
    return next((folder / name for name in (IMAGES, SAV_IMAGES) if (folder / name).is_dir()), None)


def listed_sequences(root: Path, split: str) -> list[str] | None:
    """Sequence names in the split's list, None when there is no such list.

    Raises:
        SourceError: when the list cannot be read, or names no folder.
    """
    lists = [root / LISTS / folder / f"{split}.txt" for folder in LIST_FOLDERS]
    if any((folder / SAV_IMAGES).is_dir() for folder in (root, root / split)):
        lists += [
            folder / f"{start}{split}.txt" for folder in (root, root / split) for start in ("", SAV_LIST)
        ]
    for path in lists:
        if path.is_file():
            lines = [line.strip() for line in _text(path).splitlines()]
            names = list(dict.fromkeys(_sequence_in(line) for line in lines if line))
            if not names:
                raise SourceError(f"{path} lists no sequence", "write one sequence name per line into it")
            if wrong := [name for name in names if not _is_folder_name(name)]:
                raise SourceError(
                    f"{path} lists {wrong[0][:80]!r}, which is not the name of a folder",
                    "write the name of one folder per line",
                )
            return names
    return None


def _sequence_in(line: str) -> str:
    """The sequence that a line of a list names, alone or as DAVIS-2016 does: with a frame and its mask."""
    first = line.split()[0]
    return (
        PurePosixPath(first).parts[-2] if first.startswith(f"/{IMAGES}/") and first.count("/") > 2 else line
    )


def _is_folder_name(name: str) -> bool:
    """Whether a name can only mean a direct subfolder; results are written under it."""
    return (
        name not in (".", "..")
        and not {"/", "\\", "\0"} & set(name)
        and len(os.fsencode(name)) <= MAX_NAME_BYTES
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"the split list {path} cannot be read as text", "write one name per line"
        ) from error


def _existing_splits(root: Path) -> str:
    """The remedy for a missing split: it lists the existing ones."""
    lists = {path.stem for folder in LIST_FOLDERS for path in (root / LISTS / folder).glob("*.txt")}
    lists |= {path.stem for path in root.glob(f"{SAV_LIST}*.txt")}
    folders = {path.parent.name for name in (IMAGES, SAV_IMAGES) for path in root.glob(f"*/{name}")}
    whole = {WHOLE_FOLDER} if _images(root) is not None and not lists else set()
    splits = sorted(lists | folders | whole)
    if splits:
        return f"choose one of these: {', '.join(splits)}"
    return (
        f"give a folder that holds {IMAGES}, {ANNOTATIONS} and {LISTS} (DAVIS) or {IMAGES} and {ANNOTATIONS}"
    )


def _sequence(root: Path, name: str, split: str) -> DatasetSequence:
    all_images = _images(root) or root / IMAGES
    all_masks = root / (SAV_ANNOTATIONS if all_images.name == SAV_IMAGES else ANNOTATIONS)
    image_folders, mask_folders = _locations(all_images, name), _locations(all_masks, name)
    if not image_folders:
        raise SourceError(
            f"the sequence {name} of split {split} has no folder below {all_images}",
            "complete the dataset or take the sequence off the list",
        )
    if not mask_folders:
        raise MaskError(
            f"the sequence {name} of split {split} has no folder below {all_masks}",
            "complete the dataset or take the sequence off the list",
        )
    # Take equal resolutions if possible; otherwise masks are scaled to the frames.
    shared = [resolution for resolution in image_folders if resolution in mask_folders]
    images = image_folders[shared[0]] if shared else next(iter(image_folders.values()))
    masks = mask_folders[shared[0]] if shared else next(iter(mask_folders.values()))
    return _pair(name, images, masks)


def _pair(name: str, images: Path, masks: Path) -> DatasetSequence:
    """Match frames and annotations by file name."""
    frames = tuple(images_in(images))
    if not frames:
        raise SourceError(f"{images} holds no image", "complete the dataset")
    return _matched(name, masks, frames, images)


def annotated_sequence(name: str, masks: Path) -> DatasetSequence:
    """A sequence of which only the annotations are needed; its frames are those that are annotated.

    Args:
        name: of the sequence.
        masks: folder of its annotations.

    Raises:
        MaskError: when there is none.
    """
    folders = [masks / name for name in _object_folders(masks)] or [masks]
    stems = {path.stem: path for folder in folders if folder.is_dir() for path in images_in(folder, {".png"})}
    return _matched(name, masks, tuple(stems[stem] for stem in sorted(stems)), masks)


def _matched(name: str, masks: Path, frames: tuple[Path, ...], images: Path) -> DatasetSequence:
    """The sequence of frames from ``images`` and masks of the same names."""
    position = {path.stem: index for index, path in enumerate(frames)}

    def by_frame(folder: Path) -> dict[int, Path]:
        files = images_in(folder, {".png"}) if folder.is_dir() else []
        if strays := [path for path in files if path.stem not in position]:
            raise MaskError(
                f"{strays[0]} belongs to no frame in {images}", "give masks the names of their frames"
            )
        return {position[path.stem]: path for path in files}

    objects = {name: by_frame(masks / name) for name in _object_folders(masks)}
    annotations = {index: file for files in objects.values() for index, file in files.items()}
    annotations = annotations if objects else by_frame(masks)
    if not annotations:
        raise MaskError(
            f"the sequence {name} has no annotation in {masks}",
            "add the mask of its first frame, named like that frame",
        )
    return DatasetSequence(name, frames, annotations, objects)


def _object_folders(masks: Path) -> list[str]:
    """Names of the folders that hold the masks of one object each; none where masks hold all objects."""
    names = [name for name in folders_in(masks) if name.isascii() and name.isdecimal() and len(name) < 10]
    return sorted(names, key=int) if names and not images_in(masks, {".png"}) else []


def _locations(base: Path, name: str) -> dict[str, Path]:
    """Resolution -> folder of a sequence, best first; "" stands for the layout without resolutions."""
    if (base / name).is_dir():
        return {"": base / name}
    present = folders_in(base)
    known = [resolution for resolution in RESOLUTIONS if resolution in present]
    others = [resolution for resolution in present if resolution not in known]
    candidates = {resolution: base / resolution / name for resolution in known + others}
    return {resolution: path for resolution, path in candidates.items() if path.is_dir()}


def folders_in(base: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where it does not exist."""
    return sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
