"""The server refuses what does not come from its own page, and answers nonsense with one sentence."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from studio_server import FRAMES, Studio
from support import moving_square, write_frames
from typer.testing import CliRunner
from user_errors import assert_command_error, assert_sentence
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from maskring.cli import app
from maskring.commands import studio as studio_command
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import encode_mask
from maskring.studio import server as studio_server_module
from maskring.studio.app import PAGE

BOX = {"frame": 0, "tool": "box", "points": [[6, 10], [35, 39]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("server") / "square", FRAMES)


@pytest.fixture(scope="module")
def server(folder: Path, model: Path) -> Iterator[Studio]:
    started = Studio(folder, model, folder.parent / "cache")
    yield started
    code, printed = started.stop()
    assert code == 0 and "Traceback" not in printed


def test_the_page_and_its_modules_are_served(server: Studio) -> None:
    page = server.ask("")
    assert page.status == 200 and b"<title>maskring studio" in page.body
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in PAGE.iterdir():
        assert server.ask(f"page/{path.name}").body == path.read_bytes()
    assert b"http://" not in page.body.replace(b"http://www.w3.org", b"")
    assert b"https://" not in page.body


def test_frames_are_exact(server: Studio, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "frame.png").write_bytes(server.ask(f"clip/{server.clip()}/frame/3.png").body)
    np.testing.assert_array_equal(read_image(tmp_path / "frame.png"), read_image(folder / "00003.png"))


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, "wrong"),
        ({}, ""),
        ({"Host": "evil.example"}, None),
        ({"Host": "evil.example:80"}, None),
        ({"Origin": "http://evil.example"}, None),
        ({"Origin": "null"}, None),
        ({"Sec-Fetch-Site": "cross-site"}, None),
    ],
)
def test_strangers_are_refused(server: Studio, headers: dict[str, str], token: str | None) -> None:
    for path, body in (("", None), ("clips", None), (f"clip/{server.clip()}/undo", {})):
        answer = server.ask(path, body, headers, token)
        assert answer.status == 403
        assert answer.body.count(b"\n") == 1


def test_own_names_are_answered(server: Studio) -> None:
    port = urllib.parse.urlparse(server.address).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert server.ask("clips", headers={"Host": host, "Origin": f"http://{host}"}).status == 200


def test_events_need_token_and_origin(server: Studio) -> None:
    address = server.address.replace("http", "ws") + f"clip/{server.clip()}/events"
    with connect(address, origin=server.address.rstrip("/").rpartition("/")[0]) as socket:  # type: ignore[arg-type]
        server.ask(f"clip/{server.clip()}/add_object", {})
        assert json.loads(socket.recv(timeout=600))["type"] == "changed"
    for wrong, origin in ((address.replace("/clip/", "x/clip/"), None), (address, "http://evil.example")):
        with pytest.raises(InvalidHandshake), connect(wrong, origin=origin):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize(
    "path", ["page/../app.py", "page/%2e%2e/app.py", "page//etc/passwd", "page/..%2fapp.py"]
)
def test_nothing_but_the_page_is_served(server: Studio, path: str) -> None:
    assert server.ask(path).status == 404


def test_only_clips_of_the_folder_are_there(server: Studio) -> None:
    for clip in ("..", "%2e%2e", "0", "square"):
        assert server.ask(f"clip/{clip}/state").status == 404


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("stroke", b"not json"),
        ("stroke", b"[" * 60_000),
        ("stroke", b"[1, 2]"),
        ("stroke", {}),
        ("stroke", BOX),
        ("stroke", {**BOX, "object": 99}),
        ("stroke", {**BOX, "object": "1"}),
        ("stroke", {**BOX, "object": 1, "frame": "0"}),
        ("stroke", {**BOX, "object": 1, "points": [[6, 10]]}),
        ("stroke", {**BOX, "object": 1, "points": [[1, 1], [2, 2]]}),
        ("stroke", {**BOX, "object": 1, "points": [["a", None], [2, 2]]}),
        ("stroke", {**BOX, "object": 1, "points": "everywhere"}),
        ("stroke", {**BOX, "object": 1, "tool": "laser"}),
        ("stroke", {**BOX, "object": 1, "tool": "brush", "radius": 1e9}),
        ("change_object", {"id": 1, "colour": "red; background: url(x)"}),
        ("change_object", {"id": 77, "name": "x"}),
        ("remove_object", {"id": -1}),
        ("stroke", {**BOX, "object": 1, "tool": "eraser"}),
        ("accept", {"frame": 5}),
        ("see", {"frame": -1}),
        ("track", {"frame": 5, "direction": "forward"}),
        ("track", {}),
        ("export", {}),
        ("redo", {}),
        ("delete_everything", {}),
    ],
)
def test_nonsense_ends_in_one_sentence(server: Studio, action: str, body: Any) -> None:
    clip = server.clip()
    if not server.ask(f"clip/{clip}/state").json["objects"]:
        server.ask(f"clip/{clip}/add_object", {})
    before = server.ask(f"clip/{clip}/state").json | {"version": 0}
    answer = server.ask(f"clip/{clip}/{action}", body)
    assert answer.status == 400, answer.body
    assert_sentence(answer.json["error"])
    assert server.ask(f"clip/{clip}/state").json | {"version": 0} == before


def test_a_frame_that_is_not_there(server: Studio) -> None:
    clip = server.clip()
    for path in (f"frame/{FRAMES}.jpg", "frame/0.exe", "mask/0.ids"):
        answer = server.ask(f"clip/{clip}/{path}")
        assert answer.status == 404
        assert_sentence(answer.json["error"])


def test_too_large_a_request_is_refused(server: Studio) -> None:
    assert server.ask(f"clip/{server.clip()}/stroke", b"x" * 100_000).status == 413


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"PK\3\4 broken",
        encode_mask(np.ones((10, 10), np.uint8)),
        encode_mask(moving_square(0)[1])[:60],
    ],
)
def test_bad_masks_are_refused(server: Studio, data: bytes) -> None:
    answer = server.ask(f"import/{server.clip()}/0", data)
    assert answer.status == 400
    assert_sentence(answer.json["error"])


def test_a_second_server_leaves_the_project_alone(server: Studio, folder: Path, model: Path) -> None:
    server.ask(f"clip/{server.clip()}/state")
    refused(folder, model, mentions=("square.maskring",))
    second = Studio(folder.parent, model, folder.parent / "cache")  # a folder of clips: the page says so
    answer = second.ask(f"clip/{second.clip()}/state")
    assert answer.status == 400
    assert_sentence(answer.json["error"], ("square.maskring",))
    second.stop()


def refused(source: Path, model: Path, *options: str, mentions: tuple[str, ...]) -> None:
    """The command ends with one sentence, and nothing of the clip's project is left."""
    words = ["studio", str(source), "--model", str(model), "--no-browser", *options]
    done = CliRunner().invoke(app, words)
    assert_command_error(done.exit_code, done.stderr, mentions)
    assert "http://" not in done.output


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_a_bad_file_is_an_error_of_the_command(tmp_path: Path, model: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    refused(tmp_path / "bad.mp4", model, mentions=("bad.mp4",))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_a_port_that_is_taken_leaves_no_project(server: Studio, model: Path, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "other", 2)
    port = str(urllib.parse.urlparse(server.address).port)
    refused(frames, model, "--port", port, mentions=(port, "--port"))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_clip_in_a_folder_that_cannot_be_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_frames(tmp_path / "clips" / "square", 2)

    def read_only(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(frames, model, mentions=(f"{frames}.maskring", "copy the clip"))


def test_a_name_that_is_no_text(model: Path, tmp_path: Path) -> None:
    """Linux allows any bytes."""
    frames = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 #1?%"))
    try:
        write_frames(tmp_path / "plain", 2).rename(frames)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    studio = Studio(frames, model, tmp_path / "cache")
    (clip,) = studio.ask("clips").json
    assert clip["name"] == "caf\ufffd #1?%"
    state = studio.ask(f"clip/{clip['id']}/state")
    assert state.status == 200 and state.json["frames"]["count"] == 2
    code, printed = studio.stop()
    assert code == 0 and "Traceback" not in printed


def raw(server: Studio, request: bytes) -> int:
    """The status of the answer to a request that no library would send."""
    parts = urllib.parse.urlparse(server.address)
    words = {
        b"HOST": f"Host: {parts.netloc}\r\nConnection: close\r\n".encode(),
        b"TOKEN": parts.path[1:-1].encode(),
    }
    for name, value in words.items():
        request = request.replace(name, value)
    with socket.create_connection((parts.hostname, parts.port), timeout=1800) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"OPTIONS * HTTP/1.1\r\nHOST\r\n", 403),
        (b"GET /TOKEN/clip/0/frame/" + b"9" * 5000 + b".jpg HTTP/1.1\r\nHOST\r\n", 414),
        (
            b"POST /TOKEN/clip/0/undo HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\n10001\r\n"
            + b"x" * 65537
            + b"\r\n",
            404,
        ),
    ],
)
def test_strange_requests(server: Studio, request_line: bytes, status: int) -> None:
    """The fixture checks that the server printed no traceback."""
    assert raw(server, request_line) == status


def test_a_body_of_no_length_is_limited_too(server: Studio) -> None:
    clip = server.clip().encode()
    body = b"10001\r\n" + b"x" * 65537 + b"\r\n"
    head = b"POST /TOKEN/clip/" + clip + b"/undo HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server, head + body) == 413


def test_a_link_to_the_page_may_stand_on_another_site(server: Studio) -> None:
    """A terminal can be a web page; its links come from there."""
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.ask("", headers=followed).status == 200
    assert server.ask("clips", headers=followed).status == 403
    assert server.ask("", headers={**followed, "Sec-Fetch-Dest": "iframe"}).status == 403


def test_a_mask_for_a_frame_that_is_not_there(server: Studio) -> None:
    answer = server.ask(f"import/{server.clip()}/{FRAMES}", encode_mask(moving_square(0)[1]))
    assert answer.status == 404
    assert_sentence(answer.json["error"], (str(FRAMES),))


@pytest.mark.parametrize(
    ("variables", "opened"), [({}, 0), ({"DISPLAY": ":0"}, 1), ({"BROWSER": "firefox"}, 1)]
)
def test_a_browser_is_opened_where_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], opened: int
) -> None:
    pages, done = list[str](), threading.Event()
    monkeypatch.setattr(studio_command.sys, "platform", "linux")
    for name in studio_command.SCREENS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(studio_command.webbrowser, "open", lambda page: (pages.append(page), done.set()))
    studio_command.open_browser("http://localhost/")
    assert done.wait(1800) if opened else not done.is_set()
    assert len(pages) == opened


def test_a_repeated_ctrl_c_does_not_cut_the_closing_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that start others repeat what the terminal sends; who means it presses again later."""
    ended, now = list[None](), [10.0]
    monkeypatch.setattr(studio_server_module, "stop_at_once", lambda: ended.append(None))
    monkeypatch.setattr(studio_server_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    running = studio_server_module._Server(uvicorn.Config(Starlette()), lambda: None)
    running.handle_exit(signal.SIGINT, None)
    running.handle_exit(signal.SIGINT, None)
    assert running.should_exit and not running.force_exit and not ended
    now[0] += 1
    running.handle_exit(signal.SIGINT, None)
    assert ended and not running.force_exit
