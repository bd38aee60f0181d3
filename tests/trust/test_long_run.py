"""Thousands of frames, objects that come and go: nothing grows, nothing stays open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from support import moving_square

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "long_run.py"

MOST_GROWTH_MB = 6.0
"""Of resident memory from a quarter of a run to its end: the short run would leak twice that in frames."""


def samples(tmp_path: Path, clip: Path, frames: int, *more: str | Path) -> list[dict[str, Any]]:
    """A run in a process of its own."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux shows a process's memory, files and threads in /proc")
    report = tmp_path / "samples.json"
    command = [sys.executable, SCRIPT, "--clip", clip, "--frames", str(frames), "--json", report, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken: list[dict[str, Any]] = json.loads(report.read_text())
    assert len(taken) > 10 and taken[-1]["frames"] == frames
    return taken


def assert_flat(taken: list[dict[str, Any]]) -> None:
    settled = taken[len(taken) // 4 :]
    assert settled[-1]["objects_seen"] > settled[0]["objects_seen"] + 20
    resident = [line["resident_mb"] for line in settled]
    assert resident[-1] - resident[0] < MOST_GROWTH_MB, taken
    for what in ("open_files", "threads"):
        assert len({line[what] for line in settled}) == 1, taken


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twenty frames of a moving square."""
    path = tmp_path / "clip.mp4"
    frames = [moving_square(index)[0] for index in range(20)]
    size = frames[0].shape[1], frames[0].shape[0]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 24.0, size)
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    return path


def test_nothing_grows(tmp_path: Path, clip: Path, exported: Path) -> None:
    """A hundred passes: what a pass forgets to close is seen a hundredfold."""
    assert_flat(samples(tmp_path, clip, 2000, "--model", exported))


@pytest.mark.slow
def test_nothing_grows_in_100_000_frames(tmp_path: Path, shared_data: Path) -> None:
    """A real clip, the shipped checkpoint."""
    real = next(shared_data.glob("unlabelled/u033_*.mp4"), None)
    if real is None:
        pytest.skip("the shared videos lack the clip u033")
    assert_flat(samples(tmp_path, real, 100_000))
