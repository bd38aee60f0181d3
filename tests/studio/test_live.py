"""A camera in Studio: its frames in the page, what is drawn on a frozen one, and what happens when something fails."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rtsp_server import rtsp_camera
from studio_page import button, draw
from studio_server import Studio
from support import moving_square, write_frames
from typer.testing import CliRunner
from user_errors import assert_sentence, raises_user_error
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from maskring.cli import app
from maskring.common.errors import MaskError, UserError
from maskring.common.types import Image, Labels
from maskring.models import open_tracker
from maskring.runtime.pipeline.directions import Drawn
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.studio.catch_up import CatchUp
from maskring.studio.encoder import FrameEncoder
from maskring.studio.live import LivePage, LiveSession
from maskring.studio.live_frames import MAX_MISSED, LiveFrame, MissedFrames

WAY = 8


def to_and_fro(number: int) -> Image:
    """The square goes to the right and back, three times as large."""
    step = number % (2 * WAY)
    image = moving_square(min(step, 2 * WAY - step))[0]
    return np.asarray(image.repeat(3, axis=0).repeat(3, axis=1), np.uint8)


@pytest.fixture(scope="module")
def live(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Studio on a camera; tests leave no object behind."""
    stop = threading.Event()

    def pictures() -> Iterator[Image]:
        for number in itertools.count():
            if stop.wait(0.05):
                return
            yield to_and_fro(number // 4)  # slow enough for a busy machine that drops frames

    with rtsp_camera(pictures() for _ in itertools.count()) as address:
        server = Studio(address, model, tmp_path_factory.mktemp("live") / "cache")
        yield server
        code, printed = server.stop()
        assert code == 0 and "Traceback" not in printed
        stop.set()


class Watcher:
    """A page without a browser."""

    def __init__(self, studio: Studio, socket: ClientConnection) -> None:
        self.studio, self.socket = studio, socket
        self.state: dict[str, Any] = json.loads(socket.recv(timeout=600))
        self.page = self.state["page"]

    def next_frame(self, shown: bool = True) -> tuple[dict[str, Any], Image, Labels | None]:
        """Header, picture and labels of the next frame."""
        while isinstance(message := self.socket.recv(timeout=600), str):
            self.state |= json.loads(message)
        size = int.from_bytes(message[:4], "little")
        header = json.loads(message[4 : 4 + size])
        jpeg, png = message[4 + size :][: header["jpeg"]], message[4 + size + header["jpeg"] :]
        if shown:
            self.socket.send(json.dumps([header["frame"], True]))
        return header, decoded(jpeg), decoded(png)[..., 0] if png else None

    def frame_with(
        self, wanted: Callable[[dict[str, Any], Image, Labels | None], bool]
    ) -> tuple[dict[str, Any], Image, Labels | None]:
        """The first frame of which something is true."""
        while not wanted(*(found := self.next_frame())):
            pass
        return found

    def act(self, action: str, **body: Any) -> Any:
        return self.studio.ask(f"live/{action}", {"page": self.page, **body})


def decoded(data: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def watch(studio: Studio) -> ClientConnection:
    origin: Any = studio.address.rstrip("/").rpartition("/")[0]
    return connect(studio.address.replace("http", "ws") + "live/frames", origin=origin)


def square_in(picture: Image) -> np.ndarray:
    """Where it is bright: JPEG blurs colours, brightness little."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) > 150)


def test_what_is_drawn_on_a_frozen_frame_is_found_in_the_newest(live: Studio) -> None:
    with watch(live) as socket:
        watcher = Watcher(live, socket)
        header, picture, labels = watcher.next_frame()
        assert labels is None and {"fps", "dropped", "latency"} <= header.keys()
        assert watcher.act("freeze", frame=header["frame"]).status == 200
        watcher.frame_with(lambda later, *_: later["frame"] > header["frame"] + 10)
        (item,) = watcher.act("add_object").json["objects"]
        number = item["id"]
        assert item["tracked"] is False
        rows, columns = np.nonzero(square_in(picture))
        corners = [[int(columns.min()), int(rows.min())], [int(columns.max()), int(rows.max())]]
        corners = [corners[0], [corners[1][0], corners[0][1]], corners[1], [corners[0][0], corners[1][1]]]
        assert watcher.act("stroke", object=number, tool="polygon", points=corners).json["undo"] is True
        assert watcher.act("go_on").json["frozen"] is None
        header, picture, labels = watcher.frame_with(lambda later, *_: bool(later["areas"].get(str(number))))
        for _ in range(5):
            assert labels is not None
            truth = square_in(picture)
            assert (truth & (labels == number)).sum() / (truth | (labels == number)).sum() > 0.75
            header, picture, labels = watcher.next_frame()
        assert header["latency"]["p50"] <= header["latency"]["p99"]

        assert watcher.act("remove_object", id=number).json["objects"] == []
        watcher.frame_with(lambda later, *_: not later["areas"])


@pytest.mark.slow
def test_a_slow_page_gets_the_newest_frame(live: Studio) -> None:
    with watch(live) as socket, watch(live) as other:
        slow, quick = Watcher(live, socket), Watcher(live, other)
        first, second = (slow.next_frame(shown=False)[0]["frame"] for _ in range(2))
        quick.frame_with(lambda header, *_: header["frame"] > second + 10)
        socket.send(json.dumps([first, True]))
        socket.send(json.dumps([second, True]))
        slow.next_frame()
        header, _, _ = slow.next_frame()
        assert header["frame"] > second + 9 and header["skipped"] >= 8


def test_one_page_draws_at_a_time_and_a_closed_one_lets_go(live: Studio) -> None:
    with watch(live) as other:
        second = Watcher(live, other)
        with watch(live) as socket:
            first = Watcher(live, socket)
            index = first.next_frame()[0]["frame"]
            assert first.act("freeze", frame=index).status == 200
            refused = second.act("freeze", frame=index)
            assert refused.status == 400
            assert_sentence(refused.json["error"])
            assert second.act("stroke", object=1, tool="box", points=[]).status == 400
        second.frame_with(lambda *_: second.state["frozen"] is None)
        assert second.act("freeze", frame=second.next_frame()[0]["frame"]).status == 200


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("freeze", {"frame": 1 << 30}),
        ("freeze", {}),
        ("stroke", {"object": 250, "tool": "box"}),
        ("undo", {}),
        ("go_on", {}),
        ("remove_object", {"id": 250}),
        ("change_object", {"id": 250, "name": "x"}),
        ("explode", {}),
    ],
)
def test_nonsense_ends_in_one_sentence(live: Studio, action: str, body: dict[str, Any]) -> None:
    with watch(live) as socket:
        answer = Watcher(live, socket).act(action, **body)
    assert answer.status == 400
    assert_sentence(answer.json["error"])
    assert_sentence(live.ask(f"live/{action}", body).json["error"])  # of no page


def test_strangers_see_nothing(live: Studio) -> None:
    address = live.address.replace("http", "ws") + "live/frames"
    for wrong, origin in ((address.replace("/live/", "x/live/"), None), (address, "http://evil.example")):
        with pytest.raises(InvalidHandshake), connect(wrong, origin=origin):  # type: ignore[arg-type]
            pass
    assert live.ask("live/go_on", {}, {"Origin": "http://evil.example"}).status == 403


@pytest.mark.slow
def test_outline_in_the_browser(live: Studio, page: Any) -> None:
    page.goto(live.address)
    page.wait_for_selector("#stage[data-frame]")
    page.get_by_text("latency").wait_for()
    assert "dropped" in page.inner_text("#figures")
    draw(page, "Box", (20, 30), (150, 114))
    assert button(page, "Go on").count() == 1  # the first stroke froze the picture
    page.keyboard.press("Control+z")
    page.wait_for_selector("#undo:disabled")
    draw(page, "Scribble", (90, 66), (94, 74))
    page.keyboard.press("Space")
    page.wait_for_selector("#objects li:not([data-waiting]) input[type=text]")
    button(page, "Freeze").click()
    button(page, "Go on").click()
    page.keyboard.press("Delete")
    page.get_by_text("None yet").wait_for()
    for control in page.locator("button:visible, input:visible").all():
        assert control.get_attribute("aria-label") or control.inner_text().strip()


class Page(LivePage):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.frames: list[LiveFrame] = []
        self.news: list[dict[str, Any]] = []
        self.ended = threading.Event()

    def offer(self, frame: LiveFrame) -> None:
        self.frames.append(frame)

    def tell(self, news: dict[str, Any]) -> None:
        self.news.append(news)
        if news.get("ended"):
            self.ended.set()


def session_of(folder: Path, model: Path) -> LiveSession:
    source = open_source(folder, live=True)
    encoder = FrameEncoder(lambda: model, 1)
    return LiveSession("folder", source, lambda: open_tracker(model, threads=1), encoder)


def test_the_end_of_a_stream_is_told(tmp_path: Path, model: Path) -> None:
    session, page = session_of(write_frames(tmp_path / "frames", 5), model), Page()
    session.watch(page)
    session.start()
    assert page.ended.wait(1800)
    session.close()
    assert_sentence(session.state()["ended"])
    assert page.frames


def test_a_frame_that_is_gone_cannot_be_frozen(tmp_path: Path, model: Path) -> None:
    session = session_of(write_frames(tmp_path / "frames", 5), model)
    with raises_user_error(MaskError, ("7",)):
        session.freeze(Page(), 7)
    with raises_user_error(UserError):
        session.undo(Page())
    session.source.close()


def test_what_a_stream_cannot_be_asked_for(model: Path) -> None:
    for words, mentions in (
        (["rtsp://127.0.0.1:1/live", "--from", "3"], "--from"),
        (["rtsp://user:secret@127.0.0.1:1/live"], "rtsp://127.0.0.1:1/live"),
    ):
        done = CliRunner().invoke(app, ["studio", *words, "--model", str(model), "--no-browser"])
        assert done.exit_code == 2
        assert mentions in done.output and "secret" not in done.output


def frames_of(count: int) -> list[Frame]:
    return [Frame(to_and_fro(number), number, number / 25, f"{number:05d}") for number in range(count)]


def test_missed_frames_are_thinned_evenly() -> None:
    missed = MissedFrames(frames_of(MAX_MISSED * 3))
    indices = [frame.index for frame in missed]
    assert len(indices) <= MAX_MISSED and indices[0] == 0
    assert set(np.diff(indices)) == {4}


@pytest.mark.parametrize("count", [2, 3 * MAX_MISSED])
def test_catching_up_ends_at_the_newest_frame(model: Path, count: int) -> None:
    frames = frames_of(count + 200)
    with open_tracker(model, threads=1) as tracker:
        drawn = Drawn.of(square_in(to_and_fro(0)).astype(np.uint8))
        catch_up = CatchUp(drawn, None, MissedFrames(frames[:count]), tracker)
        newest = count
        while (labels := catch_up.advance(frames[newest])) is None:
            newest += 1
    assert newest < count + MAX_MISSED
    truth = square_in(frames[newest].image)
    assert (truth & (labels == 1)).sum() / (truth | (labels == 1)).sum() > 0.75
