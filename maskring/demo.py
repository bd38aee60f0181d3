"""``maskring demo``: the whole path on a real clip and on a rendered clip whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from .console import frame_progress, out
from .models import open_tracker, resolve_model
from .plugins.files import atomic_path, make_directory
from .runtime.overlay import draw_overlay
from .runtime.pipeline import Edits, Summary, track

if TYPE_CHECKING:
    from .runtime.sources import Frame
    from .runtime.tracker import Result

Image = NDArray[np.uint8]

SHEET_COLUMNS = 5
SHEET_TILE_WIDTH = 320


@dataclass
class ContactSheet:
    """Collects a few evenly spaced overlays per clip and draws them as one picture, a row per clip."""

    rows: list[tuple[str, list[Image]]] = field(default_factory=list)

    def row(self, title: str, length: int) -> _SheetRow:
        """A collector for a clip of ``length`` frames."""
        tiles: list[Image] = []
        self.rows.append((title, tiles))
        wanted = {round(index * (length - 1) / (SHEET_COLUMNS - 1)) for index in range(SHEET_COLUMNS)}
        return _SheetRow(wanted, tiles)

    def write(self, path: Path) -> None:
        """Draw all rows into one PNG."""
        strips = [_titled(title, np.hstack(tiles)) for title, tiles in self.rows if tiles]
        width = max(strip.shape[1] for strip in strips)
        padded = [cv2.copyMakeBorder(s, 0, 0, 0, width - s.shape[1], cv2.BORDER_CONSTANT) for s in strips]
        with atomic_path(path) as partial:
            encoded = cv2.imencode(".png", np.vstack(padded)[..., ::-1])[1]
            partial.write_bytes(encoded.tobytes())


@dataclass
class _SheetRow:
    wanted: set[int]
    tiles: list[Image]

    def __call__(self, frame: Frame, result: Result) -> None:
        if frame.index not in self.wanted:
            return
        picture = draw_overlay(frame.image, result.labels)
        height = round(picture.shape[0] * SHEET_TILE_WIDTH / picture.shape[1])
        tile = cv2.resize(picture, (SHEET_TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
        label = f"frame {frame.index}"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # dark outline, then text
            cv2.putText(tile, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
        self.tiles.append(np.asarray(tile, np.uint8))


def _titled(title: str, strip: Image) -> Image:
    banner = np.full((28, strip.shape[1], 3), 32, np.uint8)
    cv2.putText(banner, title, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([banner, strip])


def run_demo(out_dir: Path, *, clip: Path | None, model: Path | None, threads: int) -> None:
    """Track both clips into ``out_dir`` and print fps, J&F and where to look.

    Args:
        out_dir: takes ``real/``, ``rendered/`` and ``contact_sheet.png``.
        clip: the real clip, None to take it from the package index.
        model: see :func:`maskring.models.resolve_model`.
        threads: CPU threads, 0 for all.
    """
    make_directory(out_dir)
    executable = resolve_model(model)
    describe_model(executable)
    sheet = ContactSheet()
    real = _track_real(executable, clip, out_dir / "real", sheet, threads)
    out.print(f"real clip:     {real.frames} frames, {real.fps:.1f} fps, {out_dir / 'real' / 'overlay.mp4'}")
    rendered, score = _track_rendered(executable, out_dir / "rendered", sheet, threads)
    out.print(
        f"rendered clip: {rendered.frames} frames, {rendered.fps:.1f} fps, "
        f"{out_dir / 'rendered' / 'overlay.mp4'}, J&F {score:.1f}"
    )
    sheet.write(out_dir / "contact_sheet.png")
    out.print(f"look at        {out_dir / 'contact_sheet.png'}")
