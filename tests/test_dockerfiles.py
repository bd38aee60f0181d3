"""Dockerfiles: what a linter would say of them, and that they copy and install what is there."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """(keyword, rest) of each instruction, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def test_there_is_one_per_machine() -> None:
    assert [path.name for path in FILES] == ["jetson.Dockerfile", "server.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_good_practice(path: Path) -> None:
    found = instructions(path)
    arguments = dict(text.split("=", 1) for keyword, text in found if keyword == "ARG")
    assert {keyword for keyword, _ in found} <= KNOWN
    for keyword, text in found:
        if keyword == "FROM":
            image = Template(text.split()[0]).substitute(arguments)
            assert re.search(r":(?!latest)\S+$", image), f"{image} has no fixed tag"
        if keyword == "RUN" and "apt-get install" in text:
            assert "apt-get update" in text and "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists" in text, "package lists stay out of the layer"
        for call in re.findall(r"pip (?:install|wheel)[^&]*", text if keyword == "RUN" else ""):
            assert "--no-cache-dir" in call
        if keyword in ("CMD", "ENTRYPOINT"):
            assert text.startswith("["), "signals must reach the program, not a shell"
    assert [text for keyword, text in found if keyword == "USER"][-1:] == ["maskring"], "not as root"
    assert ("ENV", "ORT_DISABLE_TELEMETRY=1") in found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_exists(path: Path) -> None:
    for keyword, text in instructions(path):
        if keyword == "COPY" and "--from" not in text:
            assert all((ROOT / source).exists() for source in text.split()[:-1])
