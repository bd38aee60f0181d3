"""One frame of a stream, and the largest that is accepted."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.errors import SourceError
from ...common.types import Image

MAX_PIXELS = 1 << 27
"""134 megapixels are four 8K frames. A small file may claim more, and would fill the memory once unpacked."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        image: [H, W, 3] uint8 RGB, upright; the receiver owns it.
        index: position in the source from 0; dropped and undecodable frames leave gaps.
        timestamp: seconds since the first frame; for cameras and endless streams, the time of arrival.
        name: file name without suffix for image files, otherwise the index with leading zeros.
    """

    image: Image
    index: int
    timestamp: float
    name: str


def check_pixel_limit(name: object, height: float, width: float) -> None:
    """Refuse a picture by the size that its header claims, before it is unpacked.

    Raises:
        SourceError: when it has more than :data:`MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise SourceError(f"{name} claims to hold {width:.0f} x {height:.0f} pixels", "use smaller frames")


def pixels(shape: tuple[int, ...]) -> str:
    """A size (H, W, ...) as text: width by height."""
    return f"{shape[1]}x{shape[0]}"
