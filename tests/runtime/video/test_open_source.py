"""Sources: what a user may type."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import pytest
from coded_frames import FakeCapture, coded, number_in, write_folder, write_video
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import SourceError, UnavailableError
from maskring.runtime.video import readers
from maskring.runtime.video.open_source import open_source, without_credentials


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


@pytest.mark.parametrize("name", ["clip.png", "clip.webp", "clip.tiff"])
def test_an_image_file_of_several_pictures(name: str, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (32, 16), (value, 0, 0)) for value in (10, 90, 200)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    with raises_user_error(SourceError, (name, 3, "folder", "video")):
        open_source(tmp_path / name)


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


def test_a_camera_may_be_a_number_and_other_things_are_named() -> None:
    with raises_user_error(SourceError, mentions=("camera 987654",)):
        open_source(987654)
    for thing in (-1, b"clip.mp4", ["a.png"], None, 1.5):
        with raises_user_error(SourceError, mentions=(repr(thing), "path")):
            open_source(thing)  # type: ignore[arg-type]
