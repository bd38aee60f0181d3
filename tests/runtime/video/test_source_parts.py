"""Sources: what decoders print, upcoming frames, and parts of a source."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from coded_frames import (
    HEIGHT,
    WIDTH,
    FakeReader,
    coded,
    damaged_avi,
    number_in,
    write_folder,
    write_video,
)

from maskring.common.errors import SourceError
from maskring.runtime.pipeline.edits import Edits
from maskring.runtime.pipeline.loop import track
from maskring.runtime.tracking.result import Result, Timings
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.source import Source


def test_decoders_keep_off_stderr(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg reads its level once."""
    damaged_avi(tmp_path / "damaged.avi", [3, 4])
    content = write_video(tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    folder = write_folder(tmp_path / "frames", ["0.png", "1.png"])
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    whole = cv2.imencode(".png", noise)[1].tobytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    script = """
import sys
from maskring.common.errors import SourceError
from maskring.runtime.video.open_source import open_source
for text in sys.argv[1:]:
    try:
        with open_source(text) as source:
            print(sum(1 for _ in source), source.undecodable)
    except SourceError:
        print("refused")
"""
    names = ["damaged.avi", "cut.mp4", "noise.mp4", "frames"]
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in names), "96"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n") == ["38 2", "refused", "refused", "refused", "refused", ""]
    assert run.stderr == ""


def test_the_upcoming_frame_is_shown_without_being_taken(tmp_path: Path) -> None:
    with open_source(write_folder(tmp_path / "frames", ["0.png", "1.png"])) as source:
        assert source.upcoming is None  # nothing is decoded before the first frame is asked for
        first = next(source)
        source._thread.join()
        upcoming = source.upcoming
        assert upcoming is not None and upcoming.index == first.index + 1
        assert next(source) is upcoming
        assert source.upcoming is None


class Recorder:
    """A tracker that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def prefetch(self, frame: np.ndarray) -> None:
        self.told.append(("prefetch", number_in(frame)))

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Result:
        self.told.append(("step", number_in(frame)))
        nothing = np.zeros(frame.shape[:2], np.uint8)
        return Result(nothing, nothing[None], (), Timings(0.0, 0.0, 0.0), len(self.told))

    def remove(self, object_id: int) -> None:
        raise AssertionError("nobody asked for that")


def test_frames_that_wait_are_named_before_the_step_they_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = list(open_source(write_folder(tmp_path / "frames", [f"{number}.png" for number in range(4)])))
    in_time = iter([frames[1], None, frames[3], None])  # which frames are decoded early is chance otherwise
    monkeypatch.setattr(Source, "upcoming", property(lambda self: next(in_time)))
    tracker = Recorder()
    with open_source(tmp_path / "frames") as source:
        track(source, tracker, [], Edits({}))
    expected = [("prefetch", 1), ("step", 0), ("step", 1), ("prefetch", 3), ("step", 2), ("step", 3)]
    assert tracker.told == expected


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_part_of_a_source_keeps_its_numbers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("clip.mp4" if kind == "video" else "clip")
    _ = write_video(path, 8) if kind == "video" else write_folder(path, [f"{n:05d}.png" for n in range(8)])
    with open_source(path, first=3, last=5) as source:
        assert source.length == 3 and source.end == 5
        part = list(source)
    assert [(frame.index, frame.name, number_in(frame.image)) for frame in part] == [
        (index, f"{index:05d}", index) for index in (3, 4, 5)
    ]
    with open_source(path, first=6, last=100) as source:
        assert source.end == (100 if kind == "video" else 7)  # videos may be longer than they claim
        assert source.length == 2 and [frame.index for frame in source] == [6, 7]


def test_a_part_of_a_stream_ends() -> None:
    def endless() -> Iterator[Frame]:
        for index in itertools.count():
            yield Frame(coded(index % 64), index, 0.0, str(index))

    with Source(FakeReader(endless), first=1, last=2) as source:
        assert source.length is None and [frame.index for frame in source] == [1, 2]


@pytest.mark.parametrize(("first", "last"), [(-1, None), (4, 3)])
def test_a_part_that_ends_before_it_begins_is_refused(tmp_path: Path, first: int, last: int | None) -> None:
    with pytest.raises(SourceError, match="there is no frame from"):
        open_source(write_video(tmp_path / "clip.mp4", 8), first=first, last=last)


def test_a_part_beyond_the_end_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", [f"{number}.png" for number in range(8)])
    with pytest.raises(SourceError, match=r"no frame 8.* 8 frames; begin earlier"):
        open_source(folder, first=8)
    with open_source(write_video(tmp_path / "clip.mp4", 8), first=8) as source:
        assert source.end is None
        with pytest.raises(SourceError, match=r"no frame 8.* 8 frames; begin earlier"):
            next(source)


def test_a_stream_that_ends_before_the_part_is_an_error() -> None:
    reader = FakeReader(lambda: iter([Frame(coded(0), 0, 0.0, "0")]))
    with (
        Source(reader, first=5) as source,
        pytest.raises(SourceError, match=r"no frame 5.* 1 frames; begin earlier"),
    ):
        next(source)
    assert reader.closed


def test_a_reader_may_begin_with_a_later_frame() -> None:
    """As where Studio tracks from a corrected frame on."""
    frames = [Frame(coded(index), index, index / 25, str(index)) for index in (3, 4)]
    with Source(FakeReader(lambda: iter(frames), endless=False)) as source:
        assert [frame.index for frame in source] == [3, 4]
