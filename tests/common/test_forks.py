"""A process that is forked while a tracker runs ends by itself, and leaves its parent's files alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from support import export_tiny_model, moving_square, write_video

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

FRAMES = 6

PROGRAM = """
import contextlib, os, signal, sys
from pathlib import Path
import maskring
from maskring.common.files import atomic_path, directory

clip, model, mask, out = map(Path, sys.argv[2:])
child = sys.argv[1]
source, tracker = maskring.open_source(clip), maskring.open_tracker(model, threads=2)
overlay = maskring.OverlayVideoSink(out / "overlay.mp4", 10.0)
masks = maskring.MaskFolderSink(out / "masks")
files = contextlib.ExitStack()
partial = files.enter_context(atomic_path(out / "whole.txt"))
partial.write_text("whole")

first = next(source)
result = tracker.step(first.image, maskring.read_mask(mask))
overlay.write(first, result)
forked = os.fork()
if not forked:
    signal.alarm(300)  # what hangs dies of it
    if child == "closes":
        for opened in (overlay, masks, tracker, source):
            opened.close()
    if child == "uses":
        for use in (lambda: tracker.step(first.image), lambda: next(source)):
            try:
                use()
            except maskring.UnavailableError as error:
                print(error)
    if child == "opens others":
        with maskring.open_source(clip) as source, maskring.open_tracker(model, threads=2) as tracker:
            for frame in source:
                result = tracker.step(frame.image, maskring.read_mask(mask) if frame.index == 0 else None)
            print(frame.index, result.objects[0].id)
    sys.exit(0)  # releases what the parent goes on to use
assert os.waitpid(forked, 0)[1] == 0, "the child was killed, or failed"
masks.write(first, result)
for frame in source:
    overlay.write(frame, tracker.step(frame.image))
for opened in (overlay, masks, tracker, source, files):
    opened.close()
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A clip, a model, the mask of the first frame."""
    root = tmp_path_factory.mktemp("inputs")
    model = export_tiny_model(root)
    clip = write_video(root / "clip.mp4", FRAMES)
    cv2.imwrite(str(root / "mask.png"), moving_square(0)[1])
    return [clip, model, root / "mask.png"]


@pytest.mark.parametrize("child", ["exits", "closes", "uses", "opens others"])
def test_the_child_ends_and_the_parent_goes_on(child: str, inputs: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, child, *map(str, inputs), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    if child == "uses":
        assert [line.split(" was")[0] for line in said] == ["the tracker", "the source"]
        assert all("forked" in line and "spawn" in line for line in said)
    else:
        assert said == ([f"{FRAMES - 1} 1"] if child == "opens others" else [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks", "overlay.mp4", "whole.txt"]
    assert len(list((tmp_path / "masks").iterdir())) == 1
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
