"""Videos as people have them: damaged, cut, interlaced, turned, of varying rate. Index, time and picture are true."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.runtime.video.conversion import turned
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.timeline import Timeline
from maskring.training.clips import read_frames

HEIGHT, WIDTH, FRAMES, KEY_EVERY = 96, 128, 30, 10


def picture(index: int) -> np.ndarray:
    """[H, W, 3] RGB: a bright disc on a textured ground that moves with the index."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(40, 140, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (20 + 3 * index, 48), 14, (230, 60, 40), -1)
    return np.asarray(image, np.uint8)


def encode(path: Path, codec: str = "libx264", *, times: list[int] | None = None, **options: str) -> Path:
    """Write the pictures at ten frames a second, or at the given times in tenths of a second."""
    settings = {"crf": "12", "g": str(KEY_EVERY), "sc_threshold": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={**settings, **options})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(index), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index if times is None else times[index], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damage(path: Path, begin: float, end: float) -> Path:
    """Overwrite a part of a file, given as shares of its length, by zeros."""
    data = bytearray(path.read_bytes())
    first, last = int(begin * len(data)), int(end * len(data))
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    return path


def nearest(image: np.ndarray) -> int:
    differences = [np.abs(image.astype(int) - picture(index)).mean() for index in range(FRAMES)]
    return int(np.argmin(differences))


@pytest.mark.parametrize("suffix", ["avi", "mkv", "ts", "mp4", "flv"])
def test_whole_files_lose_nothing(tmp_path: Path, suffix: str) -> None:
    options = {"bf": "0"} if suffix in ("avi", "flv") else {}
    with open_source(encode(tmp_path / f"clip.{suffix}", **options)) as source:
        frames = list(source)
    assert (
        [frame.index for frame in frames] == [nearest(frame.image) for frame in frames] == list(range(FRAMES))
    )
    assert [frame.timestamp for frame in frames] == pytest.approx([index / 10 for index in range(FRAMES)])
    assert source.undecodable == 0


WITH_SOUND = {"mpg": "mpeg2video", "wmv": "msmpeg4v3", "mkv": "libx264", "avi": "mpeg4"}


@pytest.mark.parametrize(("suffix", "codec"), WITH_SOUND.items())
def test_whole_files_with_sound_lose_nothing(tmp_path: Path, suffix: str, codec: str) -> None:
    """Some containers leave space between packets. The picture stands still, so its packets are short."""
    path = tmp_path / f"clip.{suffix}"
    sound = np.random.default_rng(1).integers(-9000, 9000, (1, 1920 * FRAMES)).astype(np.int16)
    with av.open(str(path), "w") as container:
        heard = container.add_stream("mp2" if suffix in ("mpg", "wmv") else "pcm_s16le", 48000, layout="mono")
        shown = container.add_stream(codec, rate=25)  # the second stream
        shown.width, shown.height, shown.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(0), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(shown.encode(frame))
            samples = sound[:, 1920 * index : 1920 * (index + 1)]
            noise = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16", "mono")
            noise.sample_rate, noise.pts, noise.time_base = 48000, 1920 * index, Fraction(1, 48000)
            container.mux(heard.encode(noise))
        container.mux(shown.encode(None))
        container.mux(heard.encode(None))
    with open_source(path) as source:
        assert [frame.index for frame in source] == list(range(FRAMES))
    assert source.undecodable == 0


def test_other_chunks_between_the_frames_of_an_avi_are_no_loss(tmp_path: Path) -> None:
    """Large ones hold an index at each gigabyte; here it is a chunk of nothing."""
    path = encode(tmp_path / "clip.avi", bf="0")
    data, nothing = bytearray(path.read_bytes()), b"JUNK" + struct.pack("<I", 9000) + bytes(9000)
    movi, index = data.index(b"movi"), data.rindex(b"idx1")
    entries = range(index + 8, index + 8 + 16 * FRAMES, 16)
    (place,) = struct.unpack_from("<I", data, entries[15] + 8)
    for entry in entries[15:]:
        (offset,) = struct.unpack_from("<I", data, entry + 8)
        struct.pack_into("<I", data, entry + 8, offset + len(nothing))
    for size_of_list in (4, movi - 4):
        (size,) = struct.unpack_from("<I", data, size_of_list)
        struct.pack_into("<I", data, size_of_list, size + len(nothing))
    path.write_bytes(data[: movi + place] + nothing + data[movi + place :])
    with open_source(path) as source:
        assert [frame.index for frame in source] == list(range(FRAMES)) and source.undecodable == 0


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_frames_that_build_upon_a_damaged_one_are_left_out(tmp_path: Path, share: float) -> None:
    """Also those that are shown before it."""
    path = encode(tmp_path / "clip.mp4", bf="3", refs="3")
    with open_source(path) as source:
        truth = [frame.image for frame in source]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    reordered = [
        before
        for before, after in pairwise(packets)
        if not before.is_keyframe and after.pts is not None and before.pts > after.pts
    ]
    assert len(reordered) > 3
    for packet in reordered[::3]:
        data = bytearray(path.read_bytes())
        begin = packet.pos + int(share * packet.size)
        data[begin : begin + packet.size // 4] = bytes(packet.size // 4)
        (tmp_path / "damaged.mp4").write_bytes(data)
        with open_source(tmp_path / "damaged.mp4") as source:
            frames = list(source)
        assert all(np.array_equal(frame.image, truth[frame.index]) for frame in frames)
        assert 0 < source.undecodable == FRAMES - len(frames)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "ts", "mp4"])
def test_after_damage_frames_have_their_true_index(tmp_path: Path, suffix: str) -> None:
    options = {"bf": "0"} if suffix == "avi" else {}
    with open_source(damage(encode(tmp_path / f"clip.{suffix}", **options), 0.4, 0.55)) as source:
        frames = list(source)
    indices = [frame.index for frame in frames]
    assert indices[0] == 0 and indices[-1] == FRAMES - 1 and len(indices) < FRAMES
    assert source.undecodable == FRAMES - len(frames)
    later = [frame for frame in frames if frame.index >= 20]
    assert later and all(nearest(frame.image) == frame.index for frame in later)
    assert [frame.timestamp for frame in later] == pytest.approx([frame.index / 10 for frame in later])


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_damaged_first_frame_names_the_remedy(tmp_path: Path, suffix: str) -> None:
    path = damage(encode(tmp_path / f"clip.{suffix}"), 0.08, 0.2)
    with (
        open_source(path) as source,
        raises_user_error(SourceError, mentions=("frame 0", "damaged", "--from 10", "mask")),
    ):
        next(source)
    with open_source(path, first=10) as source:
        frames = list(source)
    assert (
        [frame.index for frame in frames] == [nearest(frame.image) for frame in frames] == list(range(10, 30))
    )


def test_a_file_that_was_cut_off_counts_what_it_announces(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_source(path) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [nearest(frame.image) for frame in frames]
    assert len(frames) + source.undecodable == FRAMES


def test_a_file_that_was_cut_without_encoding(tmp_path: Path) -> None:
    """Its edit list leaves out the frames between the keyframe before the cut and the cut."""
    with (
        av.open(str(encode(tmp_path / "whole.mp4"))) as whole,
        av.open(str(tmp_path / "cut.mp4"), "w") as cut,
    ):
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size and packet.pts * packet.time_base >= 1:  # the second keyframe
                packet.pts -= round(1.4 / packet.time_base)
                packet.dts -= round(1.4 / packet.time_base)
                packet.stream = stream
                cut.mux(packet)
    with open_source(tmp_path / "cut.mp4") as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES - 14))
    assert [nearest(frame.image) for frame in frames] == list(range(14, FRAMES))
    assert source.undecodable == 0


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_gaps_of_a_varying_rate_are_no_losses(tmp_path: Path, suffix: str) -> None:
    times = [index + index // 3 * 2 for index in range(FRAMES)]
    with open_source(encode(tmp_path / f"clip.{suffix}", times=times)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES)) and source.undecodable == 0
    assert [frame.timestamp for frame in frames] == pytest.approx([time / 10 for time in times])


def interlaced(path: Path, codec: str, flags: str) -> Path:
    """One field of a picture and the other of the next, flagged as interlaced."""
    graph = av.filter.Graph()
    with av.open(str(path), "w") as container:
        options = {"flags": "+ilme+ildct", "crf": "8", "b": "20M"}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        source = graph.add_buffer(
            width=WIDTH, height=HEIGHT, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25)
        )
        graph.link_nodes(source, graph.add("setfield", flags), graph.add("buffersink")).configure()
        for index in range(FRAMES):
            fields = picture(index)
            fields[1::2] = picture(min(index + 1, FRAMES - 1))[1::2]
            frame = av.VideoFrame.from_ndarray(fields, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("MTS", "libx264"), ("mkv", "ffv1"), ("mpg", "mpeg2video")])
def test_interlaced_frames_become_whole_pictures(tmp_path: Path, suffix: str, codec: str) -> None:
    """For tracking and training alike; a comb of two fields would differ from line to line."""
    path = tmp_path / f"clip.{suffix}"
    made = (
        interlaced(path, codec, "tff") if suffix != "MTS" else interlaced(tmp_path / "clip.ts", codec, "tff")
    )
    with open_source(made) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    for frame, learnt in zip(frames, read_frames(made, 0, FRAMES), strict=True):
        assert np.array_equal(frame.image, learnt)
        assert np.abs(frame.image.astype(int) - picture(frame.index)).mean() < 6
        comb = np.abs(np.diff(frame.image[:, :, 0].astype(int), axis=0))
        assert comb.mean() < 1.6 * np.abs(np.diff(picture(frame.index)[:, :, 0].astype(int), axis=0)).mean()


MATRICES = {
    "mirrored": (-1, 0, 0, 1),
    "upside down": (-1, 0, 0, -1),
    "quarter": (0, 1, -1, 0),
    "mirrored quarter": (0, 1, 1, 0),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_the_display_matrix_turns_and_mirrors(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = encode(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    with open_source(path) as source:
        image = next(source).image
    shown = np.zeros_like(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            to_x, to_y = matrix[0] * x + matrix[2] * y, matrix[1] * x + matrix[3] * y
            shown[to_y % shown.shape[0], to_x % shown.shape[1]] = picture(0)[y, x]
    roll = [(value < 0) for value in (matrix[1] + matrix[3], matrix[0] + matrix[2])]
    shown = np.roll(shown, [-1 if turned_over else 0 for turned_over in roll], (0, 1))
    assert image.shape == turned(picture(0), matrix).shape
    assert np.abs(image.astype(int) - shown).mean() < 4


def test_a_change_of_size_is_an_error(tmp_path: Path) -> None:
    pictures = [picture(0), picture(1), picture(2)[:32, :48]]
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(b"".join(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes() for image in pictures))
    with open_source(path) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with raises_user_error(SourceError, mentions=("clip.mjpeg", "128x96", "48x32", "frame 2")):
            next(source)


def test_files_without_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with raises_user_error(SourceError, mentions=("sound.mp4", "no video")):
        open_source(tmp_path / "sound.mp4")


def test_a_frame_that_comes_late_after_damage_is_lost_once() -> None:
    timeline = Timeline(10, 0.1)
    for pts in range(8):
        timeline.packet(pts, key=pts in (0, 6))
    assert timeline.frame(0, corrupt=False) is not None
    timeline.damage(1)
    for pts in (4, 2, 5):  # a decoder that recovers hands out of order
        assert timeline.frame(pts, corrupt=False) is None
    place = timeline.frame(6, corrupt=False)
    assert place is not None and (place.index, place.lost, timeline.lost) == (6, 5, 5)
