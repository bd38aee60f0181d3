"""The server refuses what does not come from its own page, and answers nonsense with one sentence."""

from __future__ import annotations

import json
import signal
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
from user_errors import assert_sentence
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

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
        ("accept", {"frame": 5}),
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
    for path in (f"frame/{FRAMES}.jpg", "frame/0.exe", "mask/0.png"):
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
    second = Studio(folder, model, folder.parent / "cache")
    answer = second.ask(f"clip/{second.clip()}/state")
    assert answer.status == 400
    assert_sentence(answer.json["error"], ("square.maskring",))
    second.stop()


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
