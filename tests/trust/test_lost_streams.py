"""Cameras that send damage, drop out and come back, from the network to the files of ``maskring track``."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from rtsp_server import as_jpeg, rtsp_camera
from support import moving_square
from typer.testing import CliRunner

from maskring.cli import app
from maskring.runtime.video import readers
from maskring.runtime.video.masks import write_mask
from maskring.runtime.video.open_source import open_source


def jpeg(index: int) -> bytes:
    return cv2.imencode(".jpg", moving_square(index)[0][..., ::-1])[1].tobytes()


def damaged(index: int) -> bytes:
    """Cut within its tables; of one cut later, FFmpeg decodes what there is."""
    return jpeg(index)[:200]


@contextmanager
def camera(connections: list[list[bytes] | None]) -> Iterator[str]:
    """The address of a camera that sends JPEGs (multipart/x-mixed-replace), as many as of each connection.

    Then it hangs up. None refuses a connection, as do those that come later.
    """
    left = iter(connections)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            pictures = next(left, None)
            if pictures is None:
                return self.send_error(503)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for picture in pictures:
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tracked(address: str, folder: Path, model: Path, *more: str) -> Result:
    write_mask(folder / "mask.png", moving_square(0)[1])
    where = ["--mask", folder / "mask.png", "--model", model, "--out", folder / "out"]
    return CliRunner().invoke(app, ["track", address, *map(str, where), *more])


def lines_in(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out/objects.jsonl").read_text().splitlines()]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "RECONNECT_DELAYS_S", (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("impatient")
def test_the_camera_comes_back(tmp_path: Path, exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The damaged frame alone is missing; masks are those of a connection that holds."""
    caplog.set_level(logging.WARNING)
    before = [jpeg(0), jpeg(1), damaged(2), jpeg(3)]
    with camera([before, None, [jpeg(4), jpeg(5)]]) as address:
        result = tracked(address, tmp_path, exported, "--to", "5")
    assert result.exit_code == 0, result.output
    assert "5 frames, 1 undecodable, reconnects: 1" in result.stdout
    assert [message.split("/camera ")[1] for message in caplog.messages[:2]] == [
        "stopped sending; opening it again",
        "is back",
    ]
    assert [line["index"] for line in lines_in(tmp_path)] == [0, 1, 3, 4, 5]
    assert [len(line["objects"]) for line in lines_in(tmp_path)] == 5 * [1]  # type: ignore[arg-type]
    (tmp_path / "steady").mkdir()
    with camera([[*before, jpeg(4), jpeg(5)]]) as address:
        steady = tracked(address, tmp_path / "steady", exported, "--to", "5")
    assert steady.exit_code == 0, steady.output
    for path in sorted((tmp_path / "steady/out/masks").iterdir()):
        assert (tmp_path / "out/masks" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("impatient")
def test_the_camera_stays_away(tmp_path: Path, exported: Path) -> None:
    """All that was tracked is there, the video too."""
    with camera([[jpeg(0), jpeg(1), jpeg(2)]]) as address:
        result = tracked(address, tmp_path, exported)
    assert result.exit_code == 2
    assert "stopped sending and did not come back in 3 attempts" in " ".join(result.stderr.split())
    assert [line["index"] for line in lines_in(tmp_path)] == [0, 1, 2]
    assert len(list((tmp_path / "out/masks").iterdir())) == 3
    video = cv2.VideoCapture(str(tmp_path / "out/overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    video.release()


def test_rtsp_frames_are_those_that_were_sent() -> None:
    sent = [moving_square(index)[0] for index in range(4)]
    with rtsp_camera([sent]) as address, open_source(address) as source:
        assert source.size == sent[0].shape[:2]
        found = [frame.image for _, frame in zip(sent, source, strict=False)]
    for image, original in zip(found, sent, strict=True):
        decoded = cv2.imdecode(np.frombuffer(as_jpeg(original), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        # Two decoders: FFmpeg's chroma is not smoothed between its samples, OpenCV's is.
        assert np.abs(image.astype(int) - decoded).mean() < 8 < np.abs(image[:, ::-1] - decoded).mean()


@pytest.mark.usefixtures("impatient")
def test_rtsp_camera_comes_back(tmp_path: Path, exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    frames = [moving_square(index)[0] for index in range(6)]
    with rtsp_camera([frames[:4], frames[4:]]) as address:
        result = tracked(address, tmp_path, exported, "--to", "5")
    assert result.exit_code == 0, result.output
    assert "6 frames, reconnects: 1" in result.stdout
    assert [message.split("/live ")[1] for message in caplog.messages[:2]] == [
        "stopped sending; opening it again",
        "is back",
    ]
    assert [line["index"] for line in lines_in(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_rtsp_address_that_is_not_served(tmp_path: Path, exported: Path) -> None:
    """The sentence names the address, not the password in it."""
    with rtsp_camera([[]]) as address:
        wrong = address.replace("//", "//me:secret@").replace("live", "other")
        result = tracked(wrong, tmp_path, exported)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "/other cannot be opened (" in said and "check the address, the network and the password" in said
    assert "secret" not in said and not list((tmp_path / "out").rglob("*.*"))
