"""Who may talk to the server: a secret in the address, the Host and Origin of a request, and sizes."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1 << 16
"""Bytes of an ordinary request; strokes are a few kilobytes."""

MAX_PATH = 1000
"""Characters of an address."""

MAX_IMPORT = 1 << 28
"""Bytes of a mask, or of a zip of masks, that is imported."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer: the page loads nothing from elsewhere, and its address, with the token, stays here."""

WRONG_TOKEN = "This is not the address that maskring studio printed; copy that one, with its token.\n"
WRONG_HOST = "This server does not answer under that name; use the address that maskring studio printed.\n"
WRONG_ORIGIN = "Requests from other sites are refused; open the address that maskring studio printed.\n"


class Guard:
    """Refuses requests before the application sees them.

    Every path begins with ``/TOKEN``, so no page that does not know the token can address anything. Host is
    checked against DNS rebinding, Origin against requests that other sites start.

    Args:
        app: the application; it sees paths without the token.
        token: the secret.
        names: names that the server answers to besides IP addresses, ``localhost`` and this machine's own.
    """

    def __init__(self, app: ASGIApp, token: str, names: frozenset[str] = frozenset()) -> None:
        self._app, self._token = app, token
        self._names = {"localhost", socket.gethostname().lower()} | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers, scope.get("method", ""))
        if refusal is not None:
            await _refuse(scope, receive, send, 403, refusal)
            return
        if scope["path"] == f"/{self._token}":  # the page's addresses are relative to a folder
            await RedirectResponse(f"/{self._token}/", headers=HEADERS)(scope, receive, send)
            return
        if len(scope["path"]) > MAX_PATH:
            await _refuse(scope, receive, send, 414, "This address is too long.\n")
            return
        inner = "/" + scope["path"].removeprefix(f"/{self._token}").lstrip("/")
        scope = {**scope, "path": inner, "raw_path": inner.encode(), "root_path": ""}
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        limit = MAX_IMPORT if inner.startswith("/import/") else MAX_BODY
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            await _refuse(scope, receive, send, 413, too_large(limit))
            return
        await self._app(scope, _limited(receive, limit), _with_headers(send))

    def _refusal(self, path: str, headers: Headers, method: str) -> str | None:
        """Why a request is refused, None when it is not."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return WRONG_HOST
        token = path.lstrip("/").partition("/")[0]  # the path of OPTIONS is *
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return WRONG_TOKEN
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return WRONG_ORIGIN
        if headers.get("sec-fetch-site") == "cross-site" and not self._is_link(path, headers, method):
            return WRONG_ORIGIN
        return None

    def _is_link(self, path: str, headers: Headers, method: str) -> bool:
        """Whether somebody follows a link to the page, for example in a terminal that is a web page itself."""
        told = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        return method == "GET" and path.strip("/") == self._token and told == ("navigate", "document")

    def _is_own(self, host: str) -> bool:
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.rsplit(":", 1)[0]
        if name.lower() in self._names:
            return True
        try:  # a name that an attacker's DNS points here is never an address
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def too_large(limit: int) -> str:
    """What the sender of too much is told."""
    return f"At most {limit} bytes are accepted here.\n"


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await PlainTextResponse(text, status, HEADERS)(scope, receive, send)


def _limited(receive: Receive, limit: int) -> Receive:
    """Receive at most ``limit`` bytes, whatever the length that a request claims."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, too_large(limit))
        return message

    return limited


def _with_headers(send: Send) -> Callable[[Message], Any]:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return with_headers
