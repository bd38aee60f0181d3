"""The window of ``maskring track --show`` on a virtual display: real mouse, real keys, a real screenshot."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pytest
from support import export_tiny_model, moving_square
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.runtime.interaction.drawing import Drawing
from maskring.runtime.interaction.events import Key, Pointer
from maskring.runtime.interaction.window import check_windows, has_windows
from maskring.runtime.video.masks import read_mask

if TYPE_CHECKING:
    from Xlib.display import Display

DEADLINE_S = 300
PAINTED_S, STARTS = 100, 4
FRAMES = 4


class StalledError(Exception):
    """The window does not show what it should, though its process runs."""


class Desktop:
    """An X server without a screen: its pointer, its keyboard, what it shows."""

    def __init__(self, name: str) -> None:
        from Xlib.display import Display

        self.name = name
        self._display: Display = Display(name)
        self._root = self._display.screen().root

    def point(self, x: int, y: int) -> None:
        """Move the pointer; without a window manager, keys go to the window below it."""
        from Xlib import X

        self._send(X.MotionNotify, 0, x, y)

    def click(self, x: int, y: int) -> None:
        from Xlib import X

        for event, detail in ((X.MotionNotify, 0), (X.ButtonPress, 1), (X.ButtonRelease, 1)):
            self._send(event, detail, x, y)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        from Xlib import X

        self._send(X.MotionNotify, 0, *start)
        self._send(X.ButtonPress, 1, *start)
        self._send(X.MotionNotify, 0, *end)
        self._send(X.ButtonRelease, 1, *end)

    def press(self, keysym: int) -> None:
        from Xlib import X

        code = self._display.keysym_to_keycode(keysym)
        self._send(X.KeyPress, code, 0, 0)
        self._send(X.KeyRelease, code, 0, 0)

    def screenshot(self, height: int, width: int) -> np.ndarray:
        """[height, width, 3] uint8 RGB of the upper left corner, where windows open without a manager."""
        from Xlib import X

        raw = self._root.get_image(0, 0, width, height, X.ZPixmap, 0xFFFFFFFF)
        return np.frombuffer(raw.data, np.uint8).reshape(height, width, 4)[..., 2::-1]

    def shows(self, picture: np.ndarray) -> bool:
        return np.array_equal(self.screenshot(*picture.shape[:2]), picture)

    def close(self) -> None:
        self._display.close()

    def _send(self, event: int, detail: int, x: int, y: int) -> None:
        from Xlib.ext import xtest

        xtest.fake_input(self._display, event, detail, x=x, y=y)
        self._display.sync()


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Desktop]:
    pytest.importorskip("Xlib", reason="python-xlib is not installed")
    if not has_windows():
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()  # the server picks a free display and tells its number when it is ready
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with (tmp_path / "xvfb.log").open("wb") as log:
        server = subprocess.Popen(command, pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    with os.fdopen(read) as number:
        name = number.readline().strip()
    assert name, (tmp_path / "xvfb.log").read_text()
    found = Desktop(f":{name}")
    yield found
    found.close()
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class Window:
    """The window of a running ``maskring track --show``.

    Attributes:
        desktop: where it is.
        process: shows it.
        twin: what the process must make of the same events.
    """

    desktop: Desktop
    process: subprocess.Popen[str]
    twin: Drawing

    def click(self, corner: tuple[int, int]) -> None:
        x, y = self.twin.view.to_screen(corner)
        self.desktop.click(x, y)
        self.twin.handle(Pointer("press", x, y))

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        ends = self.twin.view.to_screen(start), self.twin.view.to_screen(end)
        self.desktop.drag(*ends)
        self.twin.handle(Pointer("press", *ends[0]))
        self.twin.handle(Pointer("release", *ends[1]))

    def press(self, keysym: int, key: str) -> None:
        self.desktop.press(keysym)
        self.twin.handle(Key(key))

    def wait(self, what: str) -> None:
        """Wait until the window shows the twin's picture.

        Raises:
            StalledError: when it does not.
        """
        end = time.monotonic() + PAINTED_S
        while not self.desktop.shows(self.twin.picture()):
            assert self.process.poll() is None, self.process.communicate()
            if time.monotonic() > end:
                raise StalledError(f"{what} is not shown")
            time.sleep(0.02)


class Ended(NamedTuple):
    """What the process left."""

    output: str
    drawn: np.ndarray


UseWindow = Callable[[Callable[[Window], None]], Ended]
"""Runs the command and hands its window to a user."""


@pytest.fixture
def use_window(tmp_path: Path, desktop: Desktop, model: Path) -> UseWindow:
    """Runs ``maskring track --show`` on a short clip and hands its window to a user.

    On a busy machine Qt, which draws OpenCV's windows, sometimes paints no more, though it still receives events.
    Then the user gets a new window.
    """
    (tmp_path / "frames").mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(tmp_path / "frames" / f"{index:05d}.png"), moving_square(index)[0][..., ::-1])
    image = moving_square(0)[0]

    def run(user: Callable[[Window], None]) -> Ended:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        twin = Drawing(image, np.zeros(image.shape[:2], np.uint8))
        with start_tracking(tmp_path, desktop, model) as process:
            try:
                window = Window(desktop, process, twin)
                window.wait("the first frame")
                user(window)
                output, errors = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()
        assert process.returncode == 0, errors
        return Ended(output, twin.mask)

    def use(user: Callable[[Window], None]) -> Ended:
        for _ in range(STARTS - 1):
            with contextlib.suppress(StalledError):
                return run(user)
        return run(user)

    return use


def start_tracking(folder: Path, desktop: Desktop, model: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "maskring", "track", "frames", "--show", "--model", str(model)]
    return subprocess.Popen(
        [*command, "--out", "out", "--no-overlay"],
        cwd=folder,
        env={**os.environ, "DISPLAY": desktop.name},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_object_is_drawn_with_mouse_and_keys_and_followed(use_window: UseWindow, tmp_path: Path) -> None:
    from Xlib import XK

    def draw(window: Window) -> None:
        for corner in [(12, 16), (27, 16), (27, 31), (12, 31)]:
            window.click(corner)
            window.wait(f"the corner {corner}")
        window.press(XK.XK_Return, "enter")

    ended = use_window(draw)
    assert ended.output.splitlines()[0] == f"{FRAMES} frames; results in out"
    masks = sorted((tmp_path / "out" / "masks").iterdir())
    assert len(masks) == FRAMES
    np.testing.assert_array_equal(read_mask(masks[0]), moving_square(0)[1])
    np.testing.assert_array_equal(read_mask(masks[0]), ended.drawn)


def test_a_box_is_dragged_and_the_run_is_quit(use_window: UseWindow) -> None:
    from Xlib import XK

    def draw(window: Window) -> None:
        window.desktop.point(10, 10)
        window.press(XK.XK_b, "b")
        window.wait("the tool")
        window.drag((8, 12), (31, 35))
        window.wait("the object in the box")
        window.press(XK.XK_q, "q")

    ended = use_window(draw)
    assert ended.output == "0 frames\n"
    assert (ended.drawn == moving_square(0)[1]).mean() > 0.99


def test_without_a_display_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_windows() or not sys.platform.startswith("linux"):
        pytest.skip("only windows of X11 and Wayland need a display to be named")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with raises_user_error(UnavailableError, mentions=("window", "display")):
        check_windows()


def test_without_windows_one_sentence_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "", raising=False)
    with raises_user_error(UnavailableError, mentions=("opencv-python-headless", "pip install")):
        check_windows()


@pytest.mark.parametrize(("gui", "expected"), [("QT5", True), ("GTK3", True), ("NONE", False)])
def test_versions_before_4_11_tell_their_windows_in_the_build_report(
    monkeypatch: pytest.MonkeyPatch, gui: str, expected: bool
) -> None:
    monkeypatch.delattr(cv2, "currentUIFramework", raising=False)
    report = f"""
      GUI:                           {gui}
        QT:                          YES (ver 5.15.0 )
    """
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: report)
    assert has_windows() == expected
