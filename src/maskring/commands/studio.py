"""``maskring studio``."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .console import note, say

if TYPE_CHECKING:
    from starlette.applications import Starlette

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Environment variables that say that a browser can be seen."""

LOCAL = ("127.0.0.1", "localhost", "::1")


def studio(
    source: options.StudioSource = ".",
    model: options.Model = None,
    port: options.Port = 0,
    host: options.Host = LOCAL[0],
    size: options.TrackSize = None,
    first: options.StudioFirst = 0,
    last: options.StudioLast = None,
    threads: options.Threads = 0,
    browser: options.Browser = True,
) -> None:
    """Outline, follow, correct and export in a browser; or watch a camera there."""
    from ..models import resolve_model
    from ..studio.clips import is_stream
    from ..studio.server import serve

    resolve_model(model)  # its errors, and the export of a checkpoint, come before the page
    live = is_stream(source)

    def on_ready(address: str) -> None:
        say(f"maskring studio is at {address}")
        if host not in LOCAL:
            what = "watch and change what is tracked" if live else f"see and change the clips in {source}"
            note(f"note: whoever reaches {host} and knows this address can {what}")
        note("stop it with Ctrl-C" + ("" if live else "; projects are saved as you work"))
        if browser:
            open_browser(address)

    with ExitStack() as stack:
        if live:
            app = _live_app(stack, source, model, size, (first, last), threads)
        else:
            app = _clips_app(stack, Path(source), model, size, (first, last), threads)
        try:
            serve(app, host, port, on_ready)
        except KeyboardInterrupt:  # how a server ends
            note("stopped" if live else "stopped; everything is saved")


def open_browser(address: str) -> None:
    """Open a page where there is a screen. In a terminal, a text browser would take the place of the command."""
    screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, SCREENS))
    if screen:  # some browsers return when they are closed
        threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True).start()


def _clips_app(
    stack: ExitStack,
    source: Path,
    model: Path | None,
    size: int | None,
    part: tuple[int, int | None],
    threads: int,
) -> Starlette:
    from ..models import open_tracker, resolve_model
    from ..studio.app import make_app
    from ..studio.encoder import FrameEncoder
    from ..studio.hub import Hub
    from ..studio.runs import Runner

    runner = Runner(lambda: open_tracker(model, threads=threads), size)
    hub = Hub(source, runner, FrameEncoder(lambda: resolve_model(model), threads), *part)
    stack.callback(hub.close)
    hub.open_only()
    return make_app(hub)


def _live_app(
    stack: ExitStack,
    source: str,
    model: Path | None,
    size: int | None,
    part: tuple[int, int | None],
    threads: int,
) -> Starlette:
    """The source is open before the page is, so that its errors are the command's."""
    from ..common.errors import SourceError
    from ..models import open_tracker, resolve_model
    from ..runtime.video.open_source import open_source, without_credentials
    from ..studio.encoder import FrameEncoder
    from ..studio.live import LiveSession
    from ..studio.live_app import make_live_app

    if part != (0, None):
        raise SourceError("--from and --to open a part of a file, not of a stream", "leave them out")
    stream = stack.enter_context(open_source(source, live=True))
    name = f"Camera {source}" if source.isdecimal() else without_credentials(source)
    encoder = FrameEncoder(lambda: resolve_model(model), threads)
    session = LiveSession(name, stream, lambda: open_tracker(model, threads=threads), encoder, size)
    return make_live_app(session)
