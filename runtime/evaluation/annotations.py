"""Annotated masks of a sequence: which object appears when, and how predictions are written and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.files import atomic_path, make_directory
from ...common.types import Labels
from ..video.frame import pixels
from ..video.mask_ids import MaskIds
from ..video.mask_picture import Mark, MaskPicture
from ..video.masks import read_picture, write_mask
from .datasets import DatasetSequence

WHITE = 255


@dataclass(frozen=True, eq=False)
class Scored:
    """Objects of one frame to compare.

    Attributes:
        name: number of the only object in both maps in the dataset; None where their ids are its numbers.
        prediction, truth: [H, W] object ids; void is background in both.
    """

    name: int | None
    prediction: Labels
    truth: Labels


@dataclass(frozen=True)
class Annotations(ABC):
    """The masks of a sequence, summarised.

    Attributes:
        sequence: the sequence.
        shape: (height, width) of all masks.
        appearances: frame index -> ids of the objects that are annotated there for the first time.
        notes: sentences that say how something ambiguous was read.
    """

    sequence: DatasetSequence
    shape: tuple[int, int]
    appearances: dict[int, frozenset[int]]
    notes: tuple[str, ...]

    @staticmethod
    def of(sequence: DatasetSequence) -> Annotations:
        """Read all masks of a sequence.

        Raises:
            MaskError: when one is damaged or differs in size, or none shows an object.
        """
        return _ObjectFolders.read(sequence) if sequence.objects else _LabelMaps.read(sequence)

    @property
    def start(self) -> int:
        """The first frame that shows an object."""
        return min(self.appearances)

    @property
    @abstractmethod
    def scorable(self) -> bool:
        """Whether there are annotations beyond the masks that introduce objects."""

    @abstractmethod
    def introduced(self, index: int) -> Labels | None:
        """The mask [H, W] of the objects that first appear in frame ``index``; None when there are none."""

    @abstractmethod
    def write(self, folder: Path, stem: str, ids: Labels) -> None:
        """Write a prediction in the form of the annotations, so that other tools read both the same way."""

    @abstractmethod
    def pairs(self, predictions: Path) -> Iterator[Scored]:
        """Predictions and annotations of the frames that count, object by object or frame by frame.

        The first and the last annotated frame do not count.

        Raises:
            MaskError: when a mask is missing, damaged or of another size than the annotation, or names none
                of the annotated objects.
        """

    def _checked(self, path: Path, picture: MaskPicture) -> MaskPicture:
        """A prediction that has the size of the annotations."""
        if picture.areas.shape != self.shape:
            raise MaskError(
                f"{path} is {pixels(picture.areas.shape)} pixels and its annotation {pixels(self.shape)}",
                "write predictions at the annotations' size",
            )
        return picture


@dataclass(frozen=True)
class _LabelMaps(Annotations):
    """One mask per frame, with all objects.

    Attributes:
        ids: what the marks of the annotations mean.
        white: id of an object that its mask does not name: 255 where no mask names one (DAVIS-2016).
    """

    ids: MaskIds
    white: int

    @staticmethod
    def read(sequence: DatasetSequence) -> _LabelMaps:
        shape, marks, notes = None, dict[int, tuple[Mark, ...]](), dict[str, None]()
        for index, path in sorted(sequence.annotations.items()):
            picture = read_picture(path)
            shape = _same_size(path, picture, shape)
            marks[index] = picture.marks
            notes |= dict.fromkeys(picture.notes)
        ids = MaskIds(marks.values())
        white = ids.ids[0] if len(ids.ids) == 1 else 0 if ids.ids else WHITE
        earlier, appearances = frozenset[int](), {}
        for index, of_frame in marks.items():
            _check_named(sequence.annotations[index], ids, of_frame, white)
            new = frozenset(ids.objects(of_frame, white)) - earlier - {0}
            if new:
                appearances[index], earlier = new, earlier | new
        if shape is None or not earlier:
            raise _no_object(sequence)
        every = (*notes, *ids.notes)
        return _LabelMaps(sequence, shape, appearances, every, ids, white)

    @property
    def scorable(self) -> bool:
        return len(self.sequence.annotations) > len(self.appearances)

    def introduced(self, index: int) -> Labels | None:
        if index not in self.appearances:
            return None
        mask = self.ids.labels(read_picture(self.sequence.annotations[index]), self.white)
        return np.where(np.isin(mask, list(self.appearances[index])), mask, 0).astype(np.uint8)

    def write(self, folder: Path, stem: str, ids: Labels) -> None:
        if self._names_nothing:
            _write_white(folder / f"{stem}.png", ids)
        else:
            write_mask(folder / f"{stem}.png", ids)

    @property
    def _names_nothing(self) -> bool:
        return not self.ids.ids

    def pairs(self, predictions: Path) -> Iterator[Scored]:
        annotated = [path for _, path in sorted(self.sequence.annotations.items())][1:-1]
        predicted = [predictions / f"{path.stem}.png" for path in annotated]
        marks = [self._checked(path, read_picture(path)).marks for path in predicted]
        ids = MaskIds(marks, like=self.ids)
        for path, of_frame in zip(predicted, marks, strict=True):
            _check_named(path, ids, of_frame, self.white)
        if len(ids.ids) > 1 and any(ids.unnumbered(of_frame) for of_frame in marks):
            raise MaskError(
                f"the predictions in {predictions} mark objects by colours, and the annotations have other ones",
                "write the number of its object into each pixel",
            )
        self._check_ids(
            predictions, {number for of_frame in marks for number in ids.objects(of_frame, self.white)}
        )
        for path, file in zip(annotated, predicted, strict=True):
            truth, prediction = read_picture(path), ids.labels(read_picture(file), self.white)
            if self._names_nothing:
                yield Scored(None, _whitened(prediction), _whitened(truth.areas))
            else:
                void = self.ids.void(truth)
                yield Scored(
                    None, np.where(void, np.uint8(0), prediction), self.ids.labels(truth, self.white)
                )

    def _check_ids(self, predictions: Path, predicted: set[int]) -> None:
        """Refuse predictions that hold none of the annotated objects, which would score 0."""
        predicted = predicted - {0}
        annotated = {number for of_frame in self.appearances.values() for number in of_frame}
        if len(predicted) > 1 if self._names_nothing else predicted and not predicted & annotated:
            raise MaskError(
                f"the predictions in {predictions} hold the objects {_listed(predicted)} and the annotations "
                f"{_listed(annotated)}",
                "number predicted objects as the annotations do",
            )


@dataclass(frozen=True)
class _ObjectFolders(Annotations):
    """A folder of masks per object, which may overlap (SA-V). Object NAME has the id of its folder + 1."""

    @staticmethod
    def read(sequence: DatasetSequence) -> _ObjectFolders:
        shape, notes, appearances = None, dict[str, None](), dict[int, frozenset[int]]()
        for position, files in enumerate(sequence.objects.values(), 1):
            first = None
            for index, path in sorted(files.items()):
                picture = read_picture(path)
                shape = _same_size(path, picture, shape)
                notes |= dict.fromkeys(picture.notes)
                if len(picture.marks) > 1:
                    raise MaskError(
                        f"{path} holds {len(picture.marks)} objects", "save one object per mask and folder"
                    )
                if first is None and picture.marks:
                    first = index
            if first is not None:
                appearances[first] = appearances.get(first, frozenset()) | {position}
        if shape is None or not appearances:
            raise _no_object(sequence)
        return _ObjectFolders(sequence, shape, dict(sorted(appearances.items())), tuple(notes))

    @property
    def scorable(self) -> bool:
        return any(len(files) > 1 for files in self.sequence.objects.values())

    def introduced(self, index: int) -> Labels | None:
        """As in the base class; where masks overlap, the smaller object lies on top."""
        if index not in self.appearances:
            return None
        files = list(self.sequence.objects.values())
        shapes = {
            number: read_picture(files[number - 1][index]).areas > 0 for number in self.appearances[index]
        }
        mask: Labels = np.zeros(self.shape, np.uint8)
        for number in sorted(shapes, key=lambda number: -int(shapes[number].sum())):
            mask[shapes[number]] = number
        return mask

    def write(self, folder: Path, stem: str, ids: Labels) -> None:
        for number, name in enumerate(self.sequence.objects, 1):
            make_directory(folder / name)
            _write_white(folder / name / f"{stem}.png", (ids == number).astype(np.uint8))

    def pairs(self, predictions: Path) -> Iterator[Scored]:
        for name, files in self.sequence.objects.items():
            for path in [path for _, path in sorted(files.items())][1:-1]:
                file = predictions / name / f"{path.stem}.png"
                prediction, truth = self._checked(file, read_picture(file)), read_picture(path)
                if len(prediction.marks) > 1:
                    raise MaskError(
                        f"{file} holds {len(prediction.marks)} objects", "save one object per file"
                    )
                shapes = [(picture.areas > 0).astype(np.uint8) for picture in (prediction, truth)]
                yield Scored(int(name), *shapes)


def _check_named(path: Path, ids: MaskIds, marks: tuple[Mark, ...], white: int) -> None:
    """Refuse a white shape in a sequence of several objects."""
    if not white and not ids.names_object(marks) and ids.objects(marks, WHITE) != [0]:
        raise MaskError(
            f"{path} is white on black, and other masks of its sequence number several objects",
            "write the number of its object into each pixel",
        )


def _same_size(path: Path, picture: MaskPicture, shape: tuple[int, int] | None) -> tuple[int, int]:
    height, width = picture.areas.shape
    if shape is not None and (height, width) != shape:
        raise MaskError(
            f"{path} is {pixels((height, width))} pixels and earlier annotations of its sequence {pixels(shape)}",
            "annotate a sequence at one size",
        )
    return height, width


def _no_object(sequence: DatasetSequence) -> MaskError:
    return MaskError(
        f"no annotation of the sequence {sequence.name} shows an object", "mark one in its first frame"
    )


def _write_white(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write objects as 255 in a grey PNG."""
    with atomic_path(path) as partial:
        partial.write_bytes(cv2.imencode(".png", _whitened(ids))[1].tobytes())


def _whitened(mask: Labels) -> Labels:
    return np.where(mask > 0, WHITE, 0).astype(np.uint8)


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
