"""Sinks: what was written is there and valid, also after an error, an interruption or a full disk."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import OutputError
from maskring.runtime.tracking.result import ObjectState, Result, Timings
from maskring.runtime.video import encoding, sinks
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.masks import read_mask
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.overlay import draw_overlay
from maskring.runtime.video.overlay_video import DISK_MARGIN, OverlayVideoSink
from maskring.runtime.video.sinks import JsonLinesSink, MaskFolderSink

HEIGHT, WIDTH = 48, 64


def frame_at(index: int, height: int = HEIGHT, width: int = WIDTH) -> Frame:
    image = np.full((height, width, 3), (40, 4 * index, 120), np.uint8)
    return Frame(image, index, index / 25, f"f{index:03d}")


def result_of(frame: Frame) -> Result:
    labels = np.zeros(frame.image.shape[:2], np.uint8)
    labels[4:20, 2 + frame.index : 22 + frame.index] = 3
    objects = (
        ObjectState(3, 320, (2 + frame.index, 4, 22 + frame.index, 20), 0.87654321),
        ObjectState(5, 0, None, None),
        ObjectState(6, 0, None, float("nan")),
    )
    probabilities = np.zeros((4, 12, 16), np.float32)
    return Result(labels, probabilities, objects, Timings(0.0123456789, 0.001, 0.02), frame.index)


def write(sink: sinks.Sink, *indices: int) -> None:
    for index in indices:
        frame = frame_at(index)
        sink.write(frame, result_of(frame))


def pictures_in(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        pictures = [frame.image for frame in source]
        assert source.undecodable == 0 and len(pictures) == source.length
    return pictures


def shows(picture: np.ndarray, index: int) -> bool:
    """Whether a picture from a video is the overlay of a frame, but for compression."""
    frame = frame_at(index)
    return float(np.abs(picture.astype(int) - draw_overlay(frame.image, result_of(frame).labels)).mean()) < 8


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Masks


def test_masks_are_named_like_their_frames(tmp_path: Path) -> None:
    with MaskFolderSink(tmp_path / "a" / "masks") as sink:
        write(sink, 0, 1, 7)
    assert names_in(tmp_path / "a" / "masks") == ["f000.png", "f001.png", "f007.png"]
    path = tmp_path / "a" / "masks" / "f007.png"
    assert np.array_equal(read_mask(path), result_of(frame_at(7)).labels)
    with Image.open(path) as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((10, 5)) == (128, 128, 0)


def test_mask_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file")
    with raises_user_error(OutputError, mentions=(tmp_path / "masks",)):
        MaskFolderSink(tmp_path / "masks")


# Overlay video


def test_overlay_video(tmp_path: Path) -> None:
    path = tmp_path / "new" / "overlay.mp4"
    with OverlayVideoSink(path, 12.5) as sink:
        write(sink, *range(10))
        assert sink.codec == "h264" and not path.exists()
    with open_source(path) as source:
        assert (source.fps, source.size, source.length) == (12.5, (HEIGHT, WIDTH), 10)
    assert all(shows(picture, index) for index, picture in enumerate(pictures_in(path)))
    assert names_in(path.parent) == ["overlay.mp4"]
    sink.close()


def test_overlay_video_plays_in_browsers(tmp_path: Path) -> None:
    """H.264 in 4:2:0 with limited range and a stated matrix, and the index before the data."""
    path = tmp_path / "overlay.mp4"
    with OverlayVideoSink(path, 25) as sink:
        write(sink, *range(10))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_range, context.colorspace) == (
            "h264",
            "yuv420p",
            1,
            1,
        )
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_without_h264_the_fallback_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoding, "ENCODERS", {"none": {}, "mpeg4": encoding.ENCODERS["mpeg4"]})
    with OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink:
        write(sink, *range(5))
        assert sink.codec == "mpeg4"
    assert "overlay.mp4 is no H.264" in caplog.text
    assert all(shows(picture, index) for index, picture in enumerate(pictures_in(tmp_path / "overlay.mp4")))


def test_without_any_encoder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ENCODERS", {"none": {}})
    with (
        raises_user_error(OutputError, mentions=("encoder", "--no-overlay")),
        OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink,
    ):
        write(sink, 0)
    assert names_in(tmp_path) == []


def test_dropped_frames_are_filled_with_the_picture_before_them(tmp_path: Path) -> None:
    with OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink:
        write(sink, 0, 1, 20)
    pictures = pictures_in(tmp_path / "overlay.mp4")
    assert len(pictures) == 21
    assert not shows(frame_at(1).image, 20)
    assert all(shows(picture, 1) for picture in pictures[1:20]) and shows(pictures[20], 20)


def timed(*seconds: float) -> list[Frame]:
    return [dataclasses.replace(frame_at(index), timestamp=second) for index, second in enumerate(seconds)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((5.0, 5.04, 5.2, 5.24), [0, 1, 1, 1, 1, 2, 3]),  # from the first that was written on
        ((0.0, 0.01, 0.02, 0.2), [0, 1, 2, 2, 2, 3]),  # faster than the video: each frame is shown
        ((0.0, 1e9, 1e9 + 0.04), [0] * 251 + [1, 2]),  # a still of years is cut to ten seconds
    ],
)
def test_pictures_placed_by_time(tmp_path: Path, seconds: Sequence[float], expected: list[int]) -> None:
    with OverlayVideoSink(tmp_path / "overlay.mp4", 25, by_time=True) as sink:
        for frame in timed(*seconds):
            sink.write(frame, result_of(frame))
    pictures = pictures_in(tmp_path / "overlay.mp4")
    frames = [frame_at(index) for index in range(len(seconds))]
    overlays = [draw_overlay(frame.image, result_of(frame).labels).astype(int) for frame in frames]
    differences = [[np.abs(picture - overlay).mean() for overlay in overlays] for picture in pictures]
    assert [int(np.argmin(row)) for row in differences] == expected


@pytest.mark.parametrize("fps", [29.97002997, 23.976, 7.3, 240])
def test_unusual_rates(tmp_path: Path, fps: float) -> None:
    with OverlayVideoSink(tmp_path / "overlay.mp4", fps) as sink:
        write(sink, *range(3))
    with open_source(tmp_path / "overlay.mp4") as source:
        assert source.fps == pytest.approx(fps, abs=1e-3) and source.length == 3


def test_frames_of_odd_size(tmp_path: Path) -> None:
    frame = frame_at(0, 47, 63)
    with OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink:
        sink.write(frame, result_of(frame))
    assert pictures_in(tmp_path / "overlay.mp4")[0].shape == (46, 62, 3)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_video_is_completed(tmp_path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption), OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink:
        write(sink, *range(5))
        raise interruption
    assert len(pictures_in(tmp_path / "overlay.mp4")) == 5
    assert names_in(tmp_path) == ["overlay.mp4"]


def test_a_run_without_frames_leaves_an_earlier_video_alone(tmp_path: Path) -> None:
    (tmp_path / "overlay.mp4").write_text("earlier")
    with OverlayVideoSink(tmp_path / "overlay.mp4", 25):
        pass
    assert (tmp_path / "overlay.mp4").read_text() == "earlier"


def test_videos_that_cannot_be_written(tmp_path: Path) -> None:
    with raises_user_error(OutputError, mentions=("overlay.avi", ".mp4")):
        OverlayVideoSink(tmp_path / "overlay.avi", 25)
    (tmp_path / "folder.mp4").mkdir()
    with raises_user_error(OutputError, mentions=(tmp_path / "folder.mp4",)):
        OverlayVideoSink(tmp_path / "folder.mp4", 25)
    for fps in (0.0, 1e-9, -25.0, 1e308, math.inf, math.nan):
        with raises_user_error(OutputError, mentions=(str(fps), "rate")):
            OverlayVideoSink(tmp_path / "overlay.mp4", fps)
    frame = frame_at(0, 1, 1)
    with (
        raises_user_error(OutputError, mentions=("--no-overlay",)),
        OverlayVideoSink(tmp_path / "overlay.mp4", 25) as sink,
    ):
        sink.write(frame, result_of(frame))
    assert names_in(tmp_path) == ["folder.mp4"]


@pytest.mark.parametrize("moment", ["append", "close"])
def test_a_video_that_lost_frames_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    sink = OverlayVideoSink(tmp_path / "overlay.mp4", 25)
    write(sink, *range(3))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoding.VideoFile, moment, fail)
    with raises_user_error(OutputError, mentions=("overlay.mp4", "No space left", "free some space")):
        if moment == "append":
            write(sink, 3)
        sink.close()
    sink.close()
    assert names_in(tmp_path) == []


# JSON lines


def records(path: Path) -> list[dict[str, Any]]:
    content = path.read_text()
    assert not content or content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "objects.jsonl"
    with JsonLinesSink(path) as sink:
        write(sink, 2)
        assert len(records(path)) == 1  # at once, not when the file is closed
        write(sink, 3, 7)
    first, second, third = records(path)
    assert first == {
        "index": 2,
        "name": "f002",
        "timestamp": 0.08,
        "dropped": 0,
        "objects": [
            {"id": 3, "area": 320, "box": [4, 4, 24, 20], "confidence": 0.8765},
            {"id": 5, "area": 0, "box": None, "confidence": None},
            {"id": 6, "area": 0, "box": None, "confidence": None},
        ],
        "timings": {"step": 0.012346, "post": 0.001, "total": 0.02},
    }
    assert [second["dropped"], third["dropped"]] == [0, 3]


def test_json_timestamps_are_those_of_the_frames(tmp_path: Path) -> None:
    frame = Frame(np.zeros((24, 32, 3), np.uint8), 1, 1 / 29.97, "f001")
    with JsonLinesSink(tmp_path / "objects.jsonl") as sink:
        sink.write(frame, result_of(frame))
    assert records(tmp_path / "objects.jsonl")[0]["timestamp"] == pytest.approx(1 / 29.97, abs=1e-6)


def test_json_lines_replace_those_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").write_text("earlier\n" * 100)
    with JsonLinesSink(tmp_path / "objects.jsonl") as sink:
        write(sink, 0)
    assert len(records(tmp_path / "objects.jsonl")) == 1


def test_json_lines_of_an_earlier_run_outlive_one_that_came_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "objects.jsonl"
    path.write_text("earlier\n")
    JsonLinesSink(path).close()
    assert path.read_text() == "earlier\n"


def test_json_lines_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").mkdir()
    with raises_user_error(OutputError, mentions=(tmp_path / "objects.jsonl",)):
        JsonLinesSink(tmp_path / "objects.jsonl")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_line_is_taken_back(tmp_path: Path, error: BaseException) -> None:
    class Failing:
        """A file whose disk is full after ten more bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.calls = file, 0

        def write(self, data: bytes) -> int:
            self.calls += 1
            if self.calls == 2:
                raise error
            return int(self.file.write(data[:10]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    path = tmp_path / "objects.jsonl"
    with JsonLinesSink(path) as sink:
        write(sink, 0)
        sink._file = Failing(sink._file)  # type: ignore[assignment]
        with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
            write(sink, 1)
    assert [record["index"] for record in records(path)] == [0]


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with one megabyte beyond the margin that videos keep."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = DISK_MARGIN + (1 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


def test_full_disk_masks(small_disk: Path) -> None:
    with MaskFolderSink(small_disk / "masks") as sink:
        fill(small_disk, 64 << 10)
        with raises_user_error(OutputError, mentions=(small_disk / "masks", "space")):
            write(sink, *range(60))
    names = names_in(small_disk / "masks")
    assert 0 < len(names) < 60
    for index, name in enumerate(names):
        labels = read_mask(small_disk / "masks" / name)
        assert np.array_equal(labels, result_of(frame_at(index)).labels)


def test_full_disk_json_lines(small_disk: Path) -> None:
    with JsonLinesSink(small_disk / "objects.jsonl") as sink:
        fill(small_disk, 4 << 10)
        with raises_user_error(OutputError, mentions=("objects.jsonl", "space")):
            write(sink, *range(60))
    written = [record["index"] for record in records(small_disk / "objects.jsonl")]
    assert written == list(range(len(written))) and 0 < len(written) < 60


def test_full_disk_overlay_video(small_disk: Path) -> None:
    path = small_disk / "overlay.mp4"
    noise = np.random.default_rng(0)
    count = 0
    with raises_user_error(OutputError, mentions=(path, "space")), OverlayVideoSink(path, 25) as sink:
        for index in range(500):
            image = noise.integers(0, 256, (240, 320, 3), dtype=np.uint8)
            frame = Frame(image, index, index / 25, str(index))
            sink.write(frame, result_of(frame_at(0, 240, 320)))
            count += 1
    assert 0 < count < 500 and len(pictures_in(path)) == count
    assert names_in(small_disk) == ["overlay.mp4"]


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.extend(sys.argv[3:])
import test_sinks as tests
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
path = Path(sys.argv[1])
kind = tests.JsonLinesSink if path.suffix == ".jsonl" else lambda path: tests.OverlayVideoSink(path, 25)
try:
    with kind(path) as sink:
        tests.write(sink, *range(200))
except tests.OutputError as error:
    print(error)
"""


def under_a_limit(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Write 200 frames in a process whose files may not grow beyond ``limit`` bytes, as under a quota."""
    tests = Path(__file__).parents[2]
    command = [sys.executable, "-c", LIMITED, path, str(limit), tests / "runtime/video", tests / "tools"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_quota_json_lines(tmp_path: Path) -> None:
    run = under_a_limit(tmp_path / "objects.jsonl", 5000)
    assert "objects.jsonl cannot be written (File too large)" in run.stdout
    written = [record["index"] for record in records(tmp_path / "objects.jsonl")]
    assert written == list(range(len(written))) and 0 < len(written) < 200


def test_quota_overlay_video(tmp_path: Path) -> None:
    """A video that does not play is never left as a result."""
    run = under_a_limit(tmp_path / "overlay.mp4", 4000)
    assert "overlay.mp4 cannot be written (File too large); free some space" in run.stdout
    assert names_in(tmp_path) == [] and run.stderr == ""
