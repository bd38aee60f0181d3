"""Videos whose timestamps, or whose account of their colours, are not what they should be."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from coded_frames import HEIGHT, WIDTH, coded, number_in
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.timeline import Timeline

FRAMES = 20


def encode(
    path: Path, *, start: int = 0, step: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH), **options: str
) -> Path:
    """Write frames that show their numbers, in H.264 with a keyframe every ten.

    Args:
        start: time of the first in tenths of a second.
        step: between two of them.
        size: (H, W).
        options: of x264.
    """
    with av.open(str(path), "w") as container:
        settings = {"g": "10", "crf": "12", "sc_threshold": "0", "bf": "2", **options}
        stream = container.add_stream("libx264", rate=10, options=settings)
        stream.height, stream.width = size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 10)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(coded(number), "rgb24")
            frame = frame.reformat(width=size[1], height=size[0], format="yuv420p")
            frame.pts, frame.time_base = start + step * number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[list[int], list[int], int]:
    """Index and number of each frame, and how many count as lost; times ascend."""
    with open_source(path) as source:
        frames = [(frame.index, number_in(frame.image), frame.timestamp) for frame in source]
        assert all(before[2] < after[2] for before, after in pairwise(frames))
        return [frame[0] for frame in frames], [frame[1] for frame in frames], source.undecodable


def test_recordings_that_were_joined(tmp_path: Path) -> None:
    """As by ``cat``: the clock begins anew. Packets lack at the joint, so the last frames before it are lost."""
    one = encode(tmp_path / "one.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(one + one + one)
    indices, numbers, lost = read(tmp_path / "joined.ts")
    assert len(indices) + lost == 3 * FRAMES
    assert numbers == [index % FRAMES for index in indices]
    assert lost <= 2 * 4


def test_joined_recordings_that_lack_nothing(tmp_path: Path) -> None:
    one = encode(tmp_path / "one.mkv").read_bytes()
    (tmp_path / "joined.mkv").write_bytes(one + one)
    numbers = [*range(FRAMES), *range(FRAMES)]
    assert read(tmp_path / "joined.mkv") == (list(range(2 * FRAMES)), numbers, 0)


def test_a_joined_recording_of_another_size_is_an_error(tmp_path: Path) -> None:
    joined = encode(tmp_path / "one.ts").read_bytes()
    joined += encode(tmp_path / "two.ts", size=(HEIGHT // 2, WIDTH // 2)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(joined)
    with raises_user_error(SourceError, mentions=(tmp_path / "joined.ts", f"frame {FRAMES}")):
        read(tmp_path / "joined.ts")


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_video_that_begins_late_has_lost_nothing(suffix: str, tmp_path: Path) -> None:
    path = encode(tmp_path / f"late.{suffix}", start=70)
    assert read(path) == (list(range(FRAMES)), list(range(FRAMES)), 0)


@pytest.mark.parametrize("reorder", ["0", "2"])
def test_an_avi_that_counts_fields_has_lost_nothing(reorder: str, tmp_path: Path) -> None:
    """Half of its chunks are empty."""
    path = encode(tmp_path / "fields.avi", step=2, bf=reorder)
    assert read(path) == (list(range(FRAMES)), list(range(FRAMES)), 0)


def test_timestamps_in_the_order_of_decoding_are_no_losses() -> None:
    """As MXF and ASF tell them for frames that are shown in another order."""
    timeline = Timeline(25.0, 1 / 25)
    for pts in range(12):
        timeline.packet(pts, key=pts == 0)
    shown = [0, 2, 1, 4, 3, 6, 5, 8, 7]
    places = [timeline.frame(pts, corrupt=False) for pts in shown]
    timeline.damage(None)
    places += [timeline.frame(pts, corrupt=False) for pts in (10, 9, 11)]
    assert [place.index for place in places if place is not None] == list(range(12))
    assert (timeline.end(), timeline.lost) == (0, 0)


def test_colours_of_an_unknown_matrix_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "ycgco.mp4", **{"x264-params": "colormatrix=YCgCo"})
    with raises_user_error(SourceError, mentions=(path, "matrix 8", "BT.709")):
        read(path)


def test_every_matrix_of_h264_is_read_or_refused(tmp_path: Path) -> None:
    images = []
    for matrix in ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"):
        with open_source(
            encode(tmp_path / f"{matrix}.mp4", **{"x264-params": f"colormatrix={matrix}"})
        ) as source:
            images.append(next(iter(source)).image)
    assert all(np.array_equal(image > 128, images[0] > 128) for image in images)


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_named_pipe_is_read_once(suffix: str, tmp_path: Path) -> None:
    data = encode(tmp_path / f"one.{suffix}").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True)
    writer.start()
    assert read(tmp_path / "pipe") == (list(range(FRAMES)), list(range(FRAMES)), 0)
    writer.join()
