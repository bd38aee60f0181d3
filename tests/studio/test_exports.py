"""What Studio's zip holds."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path

import av
import numpy as np
from support import moving_square

from maskring.runtime.pipeline.directions import Drawn
from maskring.studio.clips import clips_in
from maskring.studio.encoder import FrameEncoder
from maskring.studio.exports import export_zip
from maskring.studio.workspace import Workspace


def test_the_overlay_has_the_colours_that_the_user_chose(frames: Path, model: Path) -> None:
    (clip,) = clips_in(frames)
    decoded = threading.Event()
    workspace = Workspace(
        clip, lambda news: decoded.set() if news["type"] == "changed" else None, FrameEncoder(lambda: model)
    )
    try:
        assert decoded.wait(1800)
        item = workspace.project.items.add()
        workspace.draw("box", 0, Drawn.of(moving_square(0)[1]))
        pictures = {}
        for colour in ("#ff0000", "#0000ff"):
            workspace.change_object(item.id, colour=colour)
            export_zip(workspace, lambda done, total: None, threading.Event())
            with (
                zipfile.ZipFile(clip.project / "export.zip") as archive,
                av.open(io.BytesIO(archive.read("overlay.mp4"))) as video,
            ):
                pictures[colour] = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(np.int16)
    finally:
        workspace.close()
    inside = moving_square(0)[1] > 0
    red, blue = (pictures[colour][inside].mean(axis=0) for colour in ("#ff0000", "#0000ff"))
    assert red[0] > blue[0] + 60 and blue[2] > red[2] + 60
    assert np.abs(pictures["#ff0000"] - pictures["#0000ff"])[:8].max() < 12
