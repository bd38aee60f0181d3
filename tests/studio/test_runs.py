"""Runs in a project, without a server."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studio_server import FRAMES
from support import moving_square, write_frames, write_video
from user_errors import assert_sentence, raises_user_error

from maskring import open_tracker
from maskring.common.errors import MaskError, SourceError
from maskring.runtime.pipeline.directions import Drawn
from maskring.runtime.video.frame import Frame
from maskring.studio.clips import clips_in
from maskring.studio.encoder import FrameEncoder
from maskring.studio.frames import FrameStore
from maskring.studio.hub import Hub
from maskring.studio.project import RECORD
from maskring.studio.runs import Direction, Runner
from maskring.studio.workspace import Workspace

MASK = moving_square(0)[1]


class Opened:
    """A clip that is open, and what its pages were told."""

    def __init__(self, source: Path, model: Path, first: int = 0, last: int | None = None) -> None:
        self.news: list[dict[str, Any]] = []
        self._told = threading.Condition()
        (clip,) = clips_in(source)
        self.workspace = Workspace(clip, self._tell, FrameEncoder(lambda: model), first, last)
        self.runner = Runner(lambda: open_tracker(model, threads=1))

    def _tell(self, event: dict[str, Any]) -> None:
        with self._told:
            self.news.append(event)
            self._told.notify_all()

    def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The latest event of a kind, once there are so many."""
        with self._told:
            assert self._told.wait_for(lambda: self._count(kind) >= count, 1800)
            return [event for event in self.news if event["type"] == kind][-1]

    def _count(self, kind: str) -> int:
        return sum(event["type"] == kind for event in self.news)

    def draw(self, index: int = 0) -> None:
        if not self.workspace.project.items:
            self.workspace.project.items.add()
        self.workspace.draw("box", index, Drawn.of(moving_square(index)[1]))

    def track(self, index: int = 0, direction: Direction = "forward") -> dict[str, Any]:
        self.runner.start(self.workspace, index, direction)
        return self.wait_for("ended", self._count("ended") + 1)

    def close(self) -> None:
        self.runner.close()
        self.workspace.close()


@pytest.fixture
def opened(frames: Path, model: Path) -> Iterator[Opened]:
    made = Opened(frames, model)
    yield made
    made.close()


def test_a_full_disk_ends_a_run_and_not_the_next_one(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.draw()
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "000003" in path.name or RECORD.partition(".")[0] in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert_sentence(opened.track()["error"], ("space",))
    state = opened.workspace.state()
    assert state["run"] is None and state["undo"] == "track forward"
    assert list(state["masks"]) == [0, 1, 2]
    assert opened.track()["error"] is None
    assert len(opened.workspace.state()["masks"]) == FRAMES


def test_a_run_waits_for_frames_that_are_being_decoded(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    go_on, first = threading.Event(), threading.Event()
    add = FrameStore._add

    def held(store: FrameStore, frame: Frame) -> None:
        add(store, frame)
        first.set()
        if frame.index == 1:
            go_on.wait(1800)

    monkeypatch.setattr(FrameStore, "_add", held)
    opened = Opened(write_video(tmp_path / "clip.mp4", FRAMES), model)
    try:
        assert first.wait(1800)
        opened.draw()
        opened.runner.start(opened.workspace, 0, "forward")
        assert opened.wait_for("tracked", 1)["run"]["total"] == FRAMES
        go_on.set()
        assert opened.wait_for("ended")["frames"] == FRAMES
    finally:
        go_on.set()
        opened.close()


def test_masks_outside_of_the_part_that_is_open_begin_no_run(opened: Opened, model: Path) -> None:
    opened.draw(0)
    opened.close()
    part = Opened(opened.workspace.clip.source, model, 4)
    try:
        with raises_user_error(MaskError, ("outlined",)):
            part.runner.start(part.workspace, 5, "forward")
        part.draw(6)
        part.track(6, "backward")
        assert part.workspace.project.masked == [0, 4, 5, 6]
        np.testing.assert_array_equal(part.workspace.labels(0), MASK)
    finally:
        part.close()


def test_another_clip_of_the_same_name_is_told(opened: Opened, model: Path, tmp_path: Path) -> None:
    opened.draw()
    source = opened.workspace.clip.source
    assert opened.workspace.state()["warning"] is None
    opened.close()
    moved = source.rename(tmp_path / "moved")
    opened.workspace.clip.project.rename(tmp_path / "moved.maskring")
    for kept in (True, False):
        if not kept:
            for path in moved.iterdir():
                path.unlink()
            moved.rmdir()
            write_frames(moved, FRAMES, first=3)
        again = Opened(moved, model)
        assert (again.workspace.state()["warning"] is None) is kept
        again.close()


def test_an_export_that_fails_says_so_and_leaves_room_for_the_next(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(opened.workspace.clip.source, opened.runner, FrameEncoder(Path))
    opened.draw()
    with monkeypatch.context() as patched:
        patched.setenv("TMPDIR", str(opened.workspace.clip.source / "00000.png"))
        patched.setattr("tempfile.tempdir", str(opened.workspace.clip.source / "00000.png"))
        hub.export(opened.workspace)
        assert_sentence(opened.wait_for("exported")["error"])
    hub.export(opened.workspace, "this page")
    told = opened.wait_for("exported", 2)
    assert told["error"] is None and told["page"] == "this page"


def test_a_frame_that_is_gone_ends_a_run_in_one_sentence(opened: Opened) -> None:
    opened.draw()
    (opened.workspace.clip.source / "00004.png").unlink()
    assert_sentence(opened.track()["error"], ("00004.png",))
    assert opened.workspace.state()["run"] is None
    with pytest.raises(SourceError):
        opened.workspace.store.image(4)
