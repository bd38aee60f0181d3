"""What the page asks the server for."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..common.errors import SourceError, UserError
from . import frames
from .clips import as_text
from .exports import ZIP_NAME
from .hub import Hub
from .imports import import_masks
from .runs import Direction
from .strokes import whole_number
from .workspace import Workspace

PAGE = Path(__file__).with_name("page")

KEEP = {"Cache-Control": "private, max-age=86400"}
"""Frames of an open clip do not change; masks do, so their address holds a revision."""

FRAME_FORMATS = {
    "jpg": ("image/jpeg", frames.display_jpeg),
    "png": ("image/png", frames.exact_png),
    "thumb": ("image/jpeg", frames.thumbnail),
}

Handler = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """A value as JSON; names of files may hold what is no text."""

    def render(self, content: Any) -> bytes:
        """The bytes of the answer."""
        return as_json(content).encode()


def as_json(value: Any) -> str:
    """JSON that can be sent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()


def make_app(hub: Hub) -> Starlette:
    """The application behind the guard; its paths hold no token."""
    api = _Api(hub)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        hub.started()
        yield
        await anyio.to_thread.run_sync(hub.close)

    routes = [
        Route("/", index_page),
        Route("/clips", answered(api.clips)),
        Route("/clip/{clip}/state", answered(api.state)),
        Route("/clip/{clip}/frame/{index:int}.{format}", answered(api.frame)),
        Route("/clip/{clip}/mask/{index:int}.ids", answered(api.mask)),
        Route("/clip/{clip}/export.zip", answered(api.download)),
        Route("/clip/{clip}/{action}", answered(api.act), methods=["POST"]),
        Route("/import/{clip}/{index:int}", answered(api.take_masks), methods=["POST"]),
        WebSocketRoute("/clip/{clip}/events", api.events),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def answered(handler: Handler) -> Handler:
    """Tell the page of errors that the user can mend."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            status = 404 if isinstance(error, SourceError) else 400
            return Json({"error": str(error)}, status)

    return answer


async def json_object(request: Request) -> dict[str, Any]:
    """What a page sent.

    Raises:
        UserError: when it is no JSON object.
    """
    try:
        body = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise UserError("the request is not JSON", "reload the page") from error
    if not isinstance(body, dict):
        raise UserError("the request is not an object", "reload the page")
    return body


async def index_page(request: Request) -> Response:
    """The page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-store"})


class _Api:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def clips(self, request: Request) -> Response:
        listed = [
            {"id": clip.id, "name": clip.name, "begun": (clip.project / "project.json").is_file()}
            for clip in self._hub.clips
        ]
        return Json(listed)

    async def state(self, request: Request) -> Response:
        workspace = await self._workspace(request)
        return Json(await anyio.to_thread.run_sync(workspace.state))

    async def frame(self, request: Request) -> Response:
        workspace = await self._workspace(request)
        index, name = request.path_params["index"], request.path_params["format"]
        if name not in FRAME_FORMATS:
            raise SourceError(f"frames are not given as {name}", "ask for jpg, png or thumb")
        kind, encode = FRAME_FORMATS[name]
        data = await anyio.to_thread.run_sync(lambda: encode(workspace.store.image(index)))
        return Response(data, media_type=kind, headers=KEEP)

    async def mask(self, request: Request) -> Response:
        """The object id of each pixel, row by row, a byte each. A PNG would take longer to write, and to read."""
        workspace = await self._workspace(request)
        index = request.path_params["index"]
        labels = await anyio.to_thread.run_sync(workspace.labels, index)
        if labels is None:
            raise SourceError(f"frame {index} has no mask", "draw one")
        headers = {"Cache-Control": "no-store", "Content-Encoding": "gzip"}
        ids = gzip.compress(labels.tobytes(), compresslevel=1)
        return Response(ids, media_type="application/octet-stream", headers=headers)

    async def act(self, request: Request) -> Response:
        """Change something; answers with the new state."""
        workspace, action = await self._workspace(request), request.path_params["action"]
        if action not in ACTIONS:
            raise UserError(f"there is no action {action}", "reload the page")
        body = await json_object(request)

        def act() -> dict[str, Any]:
            return ACTIONS[action](self._hub, workspace, body) or workspace.state()

        return Json(await anyio.to_thread.run_sync(act))

    async def take_masks(self, request: Request) -> Response:
        workspace = await self._workspace(request)
        data, index = await request.body(), request.path_params["index"]
        return Json(await anyio.to_thread.run_sync(import_masks, workspace, data, index))

    async def download(self, request: Request) -> Response:
        workspace = await self._workspace(request)
        path = workspace.clip.project / ZIP_NAME
        if not path.is_file():
            raise SourceError("nothing was exported yet", "export first")
        return FileResponse(
            path, filename=f"{as_text(workspace.clip.source.stem)}.zip", headers={"Cache-Control": "no-store"}
        )

    async def events(self, socket: WebSocket) -> None:
        """The news of a clip, until the page is closed."""
        clip_id = socket.path_params["clip"]
        await socket.accept()
        queue = self._hub.subscribe(clip_id)
        gone = asyncio.ensure_future(_until_gone(socket))
        try:
            while not gone.done():
                news = asyncio.ensure_future(queue.get())
                await asyncio.wait([gone, news], return_when=asyncio.FIRST_COMPLETED)
                if not news.done():
                    news.cancel()
                    break
                await socket.send_text(as_json(news.result()))
        except (WebSocketDisconnect, RuntimeError):  # gone while something was being sent
            pass
        finally:
            gone.cancel()
            self._hub.unsubscribe(clip_id, queue)

    async def _workspace(self, request: Request) -> Workspace:
        return await anyio.to_thread.run_sync(self._hub.workspace, request.path_params["clip"])


async def _until_gone(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive_text()


def number_in(body: dict[str, Any], name: str) -> int:
    """A number that a page sent."""
    return whole_number(body.get(name), 0, 1 << 31)


def text_in(body: dict[str, Any], name: str) -> str | None:
    """A text that a page sent, None for none."""
    value = body.get(name)
    return None if value is None else str(value)


def _track(hub: Hub, workspace: Workspace, body: dict[str, Any]) -> None:
    direction: Direction = "backward" if body.get("direction") == "backward" else "forward"
    hub.runner.start(workspace, number_in(body, "frame"), direction)


def _change_object(hub: Hub, workspace: Workspace, body: dict[str, Any]) -> dict[str, Any]:
    return workspace.change_object(
        number_in(body, "id"), name=text_in(body, "name"), colour=text_in(body, "colour")
    )


ACTIONS: dict[str, Callable[[Hub, Workspace, dict[str, Any]], dict[str, Any] | None]] = {
    "stroke": lambda hub, workspace, body: workspace.stroke(body),
    "undo": lambda hub, workspace, body: workspace.undo(),
    "redo": lambda hub, workspace, body: workspace.redo(),
    "add_object": lambda hub, workspace, body: workspace.add_object(text_in(body, "name") or ""),
    "change_object": _change_object,
    "remove_object": lambda hub, workspace, body: workspace.remove_object(number_in(body, "id")),
    "accept": lambda hub, workspace, body: workspace.accept(number_in(body, "frame")),
    "see": lambda hub, workspace, body: workspace.see(number_in(body, "frame")),
    "track": _track,
    "stop": lambda hub, workspace, body: hub.runner.stop(),
    "export": lambda hub, workspace, body: hub.export(workspace, text_in(body, "page")),
}
"""Name -> what it does; None answers with the state."""
