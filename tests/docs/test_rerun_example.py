"""The Rerun example writes a recording that Rerun reads back."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from pixel_model import write_pixel_model
from support import moving_square, write_frames

import maskring
from maskring.runtime.video.masks import write_mask

rerun = pytest.importorskip("rerun", reason="rerun-sdk is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "rerun_viewer.py"


def test_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "frames", 4)
    write_mask(tmp_path / "first.png", moving_square(0)[1])
    write_pixel_model(tmp_path / "pixels.onnx")
    tracker = maskring.open_tracker(tmp_path / "pixels.onnx")
    monkeypatch.setattr(maskring, "open_tracker", lambda: tracker)
    main = runpy.run_path(str(EXAMPLE))["main"]
    recording = tmp_path / "out.rrd"
    main(str(tmp_path / "frames"), str(tmp_path / "first.png"), str(recording))
    rerun.disconnect()
    data = recording.read_bytes()
    for entity in (b"/video/masks", b"/video/boxes", b"/video/image", b"/confidence/1"):
        assert entity in data
