"""Annotated masks of a sequence: which object appears when, and how predictions are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...common.errors import MaskError
from ...common.files import atomic_path
from ...common.types import Labels
from ..video.images import read_image
from ..video.masks import is_palette_png, read_mask, write_mask
from .datasets import DatasetSequence

WHITE = 255


@dataclass(frozen=True)
class Annotations:
    """The masks of a sequence, summarised.

    Attributes:
        sequence: the sequence.
        shape: (height, width) of all masks.
        white: the only object is white on black (DAVIS-2016), and its id is 255 as in other tools. Otherwise
            ids are palette indices or grey values.
        appearances: frame index -> ids of the objects that are annotated there for the first time.
    """

    sequence: DatasetSequence
    shape: tuple[int, int]
    white: bool
    appearances: dict[int, frozenset[int]]

    @classmethod
    def of(cls, sequence: DatasetSequence) -> Annotations:
        """Read all masks of a sequence.

        Raises:
            MaskError: when one is damaged or differs in size, or none shows an object.
        """
        shape, white, earlier = None, False, frozenset[int]()
        appearances = {}
        for index, path in sorted(sequence.annotations.items()):
            mask = read_mask(path, allow_empty=True)
            if shape is not None and mask.shape != shape:
                raise MaskError(
                    f"{path} is {pixels(mask.shape)} and earlier annotations of its sequence {pixels(shape)}",
                    "annotate a sequence at one size",
                )
            shape = (mask.shape[0], mask.shape[1])
            white = white or (not earlier and _is_white_on_black(path, mask))
            new = frozenset(np.unique(_whitened(mask) if white else mask).tolist()) - earlier - {0}
            if new:
                appearances[index], earlier = new, earlier | new
        if shape is None or not earlier:
            raise MaskError(
                f"no annotation of the sequence {sequence.name} shows an object",
                "mark one in its first frame",
            )
        return cls(sequence, shape, white, appearances)

    @property
    def start(self) -> int:
        """The first frame that shows an object."""
        return min(self.appearances)

    @property
    def scorable(self) -> bool:
        """Whether there are annotations beyond the masks that introduce objects."""
        return len(self.sequence.annotations) > len(self.appearances)

    def read(self, path: Path) -> Labels:
        """Object ids [H, W] of an annotation or a prediction."""
        mask = read_mask(path, allow_empty=True)
        return _whitened(mask) if self.white else mask

    def write(self, path: Path, ids: Labels) -> None:
        """Write a prediction in the form of the annotations, so that other tools read both the same way."""
        if self.white:
            with atomic_path(path) as partial:
                partial.write_bytes(cv2.imencode(".png", ids)[1].tobytes())
        else:
            write_mask(path, ids)

    def introduced(self, index: int) -> Labels | None:
        """The mask [H, W] of the objects that first appear in frame ``index``; None when there are none."""
        if index not in self.appearances:
            return None
        mask = self.read(self.sequence.annotations[index])
        return np.where(np.isin(mask, list(self.appearances[index])), mask, 0).astype(np.uint8)


def _is_white_on_black(path: Path, mask: Labels) -> bool:
    """Whether a mask that was read as object 1 is white in the file."""
    return (
        mask.max() == 1
        and not is_palette_png(path.read_bytes())
        and read_image(path).min(axis=2).max() == WHITE
    )


def _whitened(mask: Labels) -> Labels:
    return np.where(mask > 0, WHITE, 0).astype(np.uint8)


def pixels(shape: tuple[int, ...]) -> str:
    """A size [H, W, ...] as text: width by height."""
    return f"{shape[1]}x{shape[0]} pixels"
