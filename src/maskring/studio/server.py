"""Start the server, and say under which address."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ..common.errors import UnavailableError
from ..common.interrupts import ONE_REQUEST_S, stop_at_once
from .guard import Guard

CLOSING_S = 3
"""How long pages may hold the server up when it is stopped."""


def serve(app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: the application.
        host: name or address to listen on.
        port: 0 for any that is free.
        on_ready: called with the address, which holds a secret token, once it answers.

    Raises:
        UnavailableError: when the port is taken, or the host is not this machine's.
    """
    token = secrets.token_urlsafe(24)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/{token}/"
    config = uvicorn.Config(
        Guard(app, token, frozenset({host})),
        log_level="warning",
        access_log=False,  # it would write the token
        ws="websockets-sansio",
        ws_max_size=1 << 16,
        timeout_graceful_shutdown=CLOSING_S,
        server_header=False,
        proxy_headers=False,
    )
    server = _Server(config, lambda: on_ready(address))
    with listening:
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal closes the server and the application, a later one ends the process at once.

        After a second Ctrl-C, uvicorn itself would leave the application open and print what that breaks.
        """
        if not self.should_exit:
            self._requested_at = time.monotonic()
            super().handle_exit(sig, frame)
        elif time.monotonic() - self._requested_at > ONE_REQUEST_S:
            stop_at_once()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(target)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"maskring studio cannot listen on {host}, port {port} ({error.strerror or error})",
            "choose another --port or --host, or leave --port out for any that is free",
        ) from error
    return listening
