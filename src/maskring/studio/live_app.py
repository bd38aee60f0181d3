"""What a page that watches a stream asks the server for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..common.errors import UserError
from .app import PAGE, answered, index_page, json_object, number_in, text_in
from .frames import mask_png
from .live import LivePage, LiveSession
from .live_frames import LiveFrame

MAX_IN_FLIGHT = 2
"""Frames that a page was sent and has not shown yet."""

MAX_NEWS = 100


def make_live_app(session: LiveSession) -> Starlette:
    """The application behind the guard; its paths hold no token."""
    api = _Api(session)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        session.start()
        yield
        await anyio.to_thread.run_sync(session.close)

    routes = [
        Route("/", index_page),
        Route("/clips", answered(api.clips)),
        Route("/live/drawing.png", answered(api.drawing)),
        Route("/live/{action}", answered(api.act), methods=["POST"]),
        WebSocketRoute("/live/frames", api.frames),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class _Api:
    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._links: dict[str, _Link] = {}

    async def clips(self, request: Request) -> Response:
        return JSONResponse([{"id": "live", "name": self._session.name, "begun": False, "live": True}])

    async def drawing(self, request: Request) -> Response:
        """What the frozen frame shows: object ids as grey values."""
        labels = await anyio.to_thread.run_sync(self._session.drawing)
        return Response(mask_png(labels), media_type="image/png", headers={"Cache-Control": "no-store"})

    async def act(self, request: Request) -> Response:
        """Change something; answers with the new state."""
        action, body = request.path_params["action"], await json_object(request)
        if action not in ACTIONS:
            raise UserError(f"there is no action {action}", "reload the page")
        page = self._links.get(str(body.get("page")))
        if page is None:
            raise UserError(
                "the connection to this page was lost", "wait until it is back, or reload the page"
            )

        def act() -> dict[str, Any]:
            ACTIONS[action](self._session, page, body)
            return self._session.state()

        return JSONResponse(await anyio.to_thread.run_sync(act))

    async def frames(self, socket: WebSocket) -> None:
        """The newest frames and what changes, until the page is closed."""
        await socket.accept()
        name, link = secrets.token_urlsafe(9), _Link(self._session, asyncio.get_running_loop())
        self._links[name] = link
        self._session.watch(link)
        listening = asyncio.ensure_future(link.listen(socket))
        try:
            await socket.send_json({"type": "state", "page": name, **self._session.state()})
            sending = asyncio.ensure_future(link.send(socket))
            await asyncio.wait([listening, sending], return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()
        except (WebSocketDisconnect, RuntimeError):  # gone while something was being sent
            pass
        finally:
            listening.cancel()
            del self._links[name]
            await anyio.to_thread.run_sync(self._session.leave, link)


class _Link(LivePage):
    """One page: it gets the newest frame whenever it has shown the ones before."""

    def __init__(self, session: LiveSession, loop: asyncio.AbstractEventLoop) -> None:
        self._session, self._loop = session, loop
        self._newest: LiveFrame | None = None
        self._news: deque[dict[str, Any]] = deque(maxlen=MAX_NEWS)
        self._in_flight: dict[int, float] = {}
        self._skipped = 0
        self._wake = asyncio.Event()

    def offer(self, frame: LiveFrame) -> None:
        """A newer frame replaces one that the page had no time for."""
        self._later(self._take, frame)

    def tell(self, news: dict[str, Any]) -> None:
        """Something changed."""
        self._later(self._note, news)

    async def listen(self, socket: WebSocket) -> None:
        """Note which frames the page has shown, or given up because it holds another one."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, ValueError, TypeError):
            while True:
                index, shown = json.loads(await socket.receive_text())
                arrived = self._in_flight.pop(int(index), None)
                if arrived is not None and shown:
                    self._session.latency.add(time.monotonic() - arrived)
                self._wake.set()

    async def send(self, socket: WebSocket) -> None:
        """Send what there is, without end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._news:
                await socket.send_json(self._news.popleft())
            frame = self._newest
            if frame is None or len(self._in_flight) >= MAX_IN_FLIGHT:
                continue
            self._newest = None
            jpeg, png = await anyio.to_thread.run_sync(frame.encoded)
            self._in_flight[frame.frame.index] = frame.arrived
            header = json.dumps(self._header(frame, len(jpeg))).encode()
            await socket.send_bytes(len(header).to_bytes(4, "little") + header + jpeg + png)

    def _header(self, frame: LiveFrame, jpeg_bytes: int) -> dict[str, Any]:
        return {
            "frame": frame.frame.index,
            "jpeg": jpeg_bytes,
            "skipped": self._skipped,
            "areas": {state.id: state.area for state in frame.objects},
            **self._session.figures(),
        }

    def _take(self, frame: LiveFrame) -> None:
        self._skipped += self._newest is not None
        self._newest = frame
        self._wake.set()

    def _note(self, news: dict[str, Any]) -> None:
        self._news.append(news)
        self._wake.set()

    def _later(self, call: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(call, value)


ACTIONS: dict[str, Callable[[LiveSession, LivePage, dict[str, Any]], None]] = {
    "freeze": lambda session, page, body: session.freeze(page, number_in(body, "frame")),
    "stroke": lambda session, page, body: session.stroke(page, body),
    "undo": lambda session, page, body: session.undo(page),
    "go_on": lambda session, page, body: session.go_on(page),
    "add_object": lambda session, page, body: session.add_object(text_in(body, "name") or ""),
    "change_object": lambda session, page, body: session.change_object(
        number_in(body, "id"), name=text_in(body, "name"), colour=text_in(body, "colour")
    ),
    "remove_object": lambda session, page, body: session.remove_object(number_in(body, "id")),
}
