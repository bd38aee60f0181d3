"""``maskring studio``."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from . import options
from .console import note, say

LOCAL = ("127.0.0.1", "localhost", "::1")


def studio(
    source: options.StudioSource = Path(),
    model: options.Model = None,
    port: options.Port = 0,
    host: options.Host = LOCAL[0],
    size: options.TrackSize = None,
    first: options.StudioFirst = 0,
    last: options.StudioLast = None,
    threads: options.Threads = 0,
    browser: options.Browser = True,
) -> None:
    """Outline, follow, correct and export in a browser."""
    from ..models import open_tracker, resolve_model
    from ..studio.app import make_app
    from ..studio.encoder import FrameEncoder
    from ..studio.hub import Hub
    from ..studio.runs import Runner
    from ..studio.server import serve

    resolve_model(model)  # its errors, and the export of a checkpoint, come before the page
    runner = Runner(lambda: open_tracker(model, threads=threads), size)
    hub = Hub(source, runner, FrameEncoder(lambda: resolve_model(model), threads), first, last)

    def on_ready(address: str) -> None:
        say(f"maskring studio is at {address}")
        if host not in LOCAL:
            note(
                f"note: whoever reaches {host} and knows this address can see and change the clips in {source}"
            )
        note("stop it with Ctrl-C; projects are saved as you work")
        if browser:
            webbrowser.open(address)

    try:
        serve(make_app(hub), host, port, on_ready)
    except KeyboardInterrupt:  # how a server ends
        note("stopped; everything is saved")
