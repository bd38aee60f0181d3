"""A real server in a process of its own, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pixel_model import write_pixel_model
from studio_server import FRAMES, Studio
from support import write_frames

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that follows colours, and needs no time."""
    path = tmp_path_factory.mktemp("studio") / "pixels.onnx"
    write_pixel_model(path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "clips" / "square", FRAMES)


@pytest.fixture
def studio(frames: Path, model: Path, tmp_path: Path) -> Iterator[Studio]:
    """A server for one folder of frames."""
    server = Studio(frames, model, tmp_path / "cache")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no browser: chromium is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab. A script that fails makes the test fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(600_000)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    yield opened
    context.close()
    assert not problems
