"""How a frame lies on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from ...common.types import Image

Point: TypeAlias = tuple[int, int]
"""(x, y) in pixels."""

LINE_HEIGHT, MARGIN, TEXT_SCALE = 20, 8, 0.45
FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 640, 1280, 720
"""Of the frame on the screen, in pixels."""


@dataclass(frozen=True)
class View:
    """A frame on the screen: scaled into the upper left corner of a picture, with text below it.

    Attributes:
        height, width: size of the frame in pixels.
    """

    height: int
    width: int

    @property
    def scale(self) -> float:
        """Screen pixels per frame pixel: small frames are enlarged, large ones shrunk to fit a screen."""
        enlarged = max(1.0, MIN_WIDTH / self.width)
        return min(enlarged, MAX_WIDTH / self.width, MAX_HEIGHT / self.height)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame on the screen."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def to_frame(self, x: int, y: int) -> Point:
        """The frame's pixel under a screen pixel, or the nearest one."""
        column, row = int((x + 0.5) // self.scale), int((y + 0.5) // self.scale)
        return min(max(column, 0), self.width - 1), min(max(row, 0), self.height - 1)

    def to_screen(self, point: Point) -> Point:
        """Screen pixel at the centre of a frame's pixel."""
        return int((point[0] + 0.5) * self.scale), int((point[1] + 0.5) * self.scale)

    def picture(self, image: Image, lines: tuple[str, ...]) -> Image:
        """The scaled frame with text below it.

        Args:
            image: [H, W, 3] uint8 RGB of this view's size.
            lines: ASCII text, which is all that OpenCV draws; long lines are wrapped.

        Returns:
            [H', W', 3] uint8 RGB.
        """
        height, width = self.size
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        frame = cv2.resize(image, (width, height), interpolation=interpolation)
        full_width = max(width, MIN_WIDTH)
        wrapped = [part for line in lines for part in _wrapped(line, full_width - 2 * MARGIN)]
        picture = np.zeros((height + LINE_HEIGHT * len(wrapped) + MARGIN, full_width, 3), np.uint8)
        picture[:height, :width] = frame
        for row, text in enumerate(wrapped, 1):
            origin = (MARGIN, height + LINE_HEIGHT * row - 4)
            cv2.putText(picture, text, origin, FONT, TEXT_SCALE, (230, 230, 230), 1, cv2.LINE_AA)
        return picture


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap text at spaces into lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and cv2.getTextSize(longer, FONT, TEXT_SCALE, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
