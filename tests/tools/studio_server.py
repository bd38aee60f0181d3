"""``maskring studio`` as a process, and small clips for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FRAMES = 8


@dataclass
class Answer:
    """What the server answered."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Studio:
    """``maskring studio`` as users start it."""

    def __init__(self, source: Path, model: Path, cache: Path, *options: str) -> None:
        self.folder = cache.parent
        command = [sys.executable, "-m", "maskring", "studio", str(source), "--model", str(model)]
        environment = {**os.environ, "MASKRING_CACHE": str(cache), "COLUMNS": "400"}
        self.process = subprocess.Popen(
            [*command, "--no-browser", "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if not found:
            raise AssertionError(f"no address: {line}{self.process.communicate(timeout=1800)}")
        self.address = found[0]

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, token: str | None = None
    ) -> Answer:
        """A request, with the token of the address unless another is given."""
        base = self.address
        if token is not None:
            base = f"{self.address.rstrip('/').rpartition('/')[0]}/{token}/"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=1800) as response:
                return Answer(response.status, response.read(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read(), dict(error.headers))

    def clip(self) -> str:
        """The id of the first clip."""
        return str(self.ask("clips").json[0]["id"])

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=1800)

    def stop(self) -> tuple[int, str]:
        """End it as its user would; exit code and what it printed on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        _, printed = self.process.communicate(timeout=1800)
        return self.process.returncode, printed
