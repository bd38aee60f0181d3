"""Overlay videos: they play, place pictures by frame or time, and are whole or not there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from sink_scene import HEIGHT, WIDTH, frame_at, names_in, pictures_in, result_of, shows, write
from user_errors import raises_user_error

from maskring.common.errors import OutputError
from maskring.runtime.video import encoding
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.overlay import draw_overlay
from maskring.runtime.video.overlay_video import OverlayVideoSink


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
