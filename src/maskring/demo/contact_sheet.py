"""A picture of a run for people: a few overlays of each clip, a row per clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..common.files import atomic_path
from ..common.types import Image
from ..runtime.video.overlay import draw_overlay

if TYPE_CHECKING:
    from ..runtime.tracking.result import Result
    from ..runtime.video.frame import Frame

COLUMNS = 5
TILE_WIDTH = 320


@dataclass
class ContactSheet:
    """Collects a few evenly spaced overlays of each clip and draws them as one picture."""

    rows: list[tuple[str, list[Image]]] = field(default_factory=list)

    def row(self, title: str, length: int) -> SheetRow:
        """A collector for a clip of ``length`` frames."""
        tiles: list[Image] = []
        self.rows.append((title, tiles))
        positions = {round(index * (length - 1) / (COLUMNS - 1)) for index in range(COLUMNS)}
        return SheetRow(positions, tiles)

    def write(self, path: Path) -> None:
        """Draw all rows into one PNG."""
        strips = [_titled(title, np.hstack(tiles)) for title, tiles in self.rows if tiles]
        width = max(strip.shape[1] for strip in strips)
        padded = [cv2.copyMakeBorder(s, 0, 0, 0, width - s.shape[1], cv2.BORDER_CONSTANT) for s in strips]
        with atomic_path(path) as partial:
            encoded = cv2.imencode(".png", np.vstack(padded)[..., ::-1])[1]
            partial.write_bytes(encoded.tobytes())


@dataclass
class SheetRow:
    """Keeps the overlays of some frames; called with each frame and its result.

    Attributes:
        positions: of the frames that are kept, 0 for the first frame that is given.
        tiles: their overlays [H, W, 3] uint8 RGB, all of one width.
        seen: frames that were given.
    """

    positions: set[int]
    tiles: list[Image]
    seen: int = 0

    def __call__(self, frame: Frame, result: Result) -> None:
        position, self.seen = self.seen, self.seen + 1
        if position not in self.positions:
            return
        picture = draw_overlay(frame.image, result.labels)
        height = round(picture.shape[0] * TILE_WIDTH / picture.shape[1])
        tile = cv2.resize(picture, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
        label = f"frame {frame.index}"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # dark outline, then text
            cv2.putText(tile, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
        self.tiles.append(np.asarray(tile, np.uint8))


def _titled(title: str, strip: Image) -> Image:
    banner = np.full((28, strip.shape[1], 3), 32, np.uint8)
    cv2.putText(banner, title, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([banner, strip])
