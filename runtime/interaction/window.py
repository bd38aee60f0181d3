"""A window of OpenCV's HighGUI. It does as little as possible, because testing it needs a display."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2

from ...common.errors import UnavailableError
from ...common.types import Image
from .events import BACKSPACE, ENTER, ESCAPE, SPACE, Event, Key, Pointer

PROBE = "import cv2; cv2.namedWindow('maskring'); cv2.waitKey(1)"
PROBE_SECONDS = 60

KEYS = {8: BACKSPACE, 127: BACKSPACE, 10: ENTER, 13: ENTER, 141: ENTER, 27: ESCAPE, 32: SPACE}
"""Codes of ``waitKey``; Backspace and the Enter of the number pad have several, depending on the system."""


class OpenCVWindow:
    """A :class:`.session.Screen` in a window of OpenCV. Only the main thread may use it.

    Args:
        title: of the window, ASCII.

    Raises:
        UnavailableError: when this OpenCV has no windows, or there is no display.
    """

    def __init__(self, title: str) -> None:
        check_windows()
        self._title = title
        self._pointed: list[Event] = []
        self._open = True
        # One pixel of the picture is one pixel of the screen: view.View does the scaling.
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        cv2.setMouseCallback(title, self._on_mouse)

    def show(self, picture: Image) -> None:
        """Show a picture [H, W, 3] uint8 RGB instead of the last one."""
        if self._open:
            cv2.imshow(self._title, picture[..., ::-1])

    def events(self, wait_ms: int) -> list[Event]:
        """Events since the last call, after waiting up to ``wait_ms`` milliseconds for a key.

        HighGUI keeps one key between two calls: if several were pressed, the last one counts.
        """
        code = cv2.waitKey(wait_ms)
        happened, self._pointed = self._pointed, []
        if code >= 0:
            happened.append(Key(KEYS.get(code & 0xFF, chr(code & 0xFF).lower())))
        if not self._open or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            self._open = False
            happened.append(Key("q"))
        return happened

    def close(self) -> None:
        """Close the window. Closing twice does nothing."""
        if self._open:
            self._open = False
            cv2.destroyWindow(self._title)

    def _on_mouse(self, event: int, x: int, y: int, flags: int, parameter: Any) -> None:
        kinds: dict[int, Any] = {
            cv2.EVENT_LBUTTONDOWN: "press",
            cv2.EVENT_LBUTTONUP: "release",
            cv2.EVENT_MOUSEMOVE: "move",
            cv2.EVENT_RBUTTONDOWN: "close",
        }
        if event in kinds:
            self._pointed.append(Pointer(kinds[event], x, y))


def check_windows() -> None:
    """Check that a window can be opened.

    Without a display, the toolkit behind HighGUI may exit the process instead of raising an error, so another
    process tries first.

    Raises:
        UnavailableError: when this OpenCV was built without windows, or there is no display.
    """
    if not has_windows():
        raise UnavailableError(
            "this OpenCV has no windows (opencv-python-headless), which --show needs",
            "run pip uninstall opencv-python-headless, then pip install --force-reinstall opencv-python",
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], check=False, capture_output=True, timeout=PROBE_SECONDS
        )
        works = done.returncode == 0
    except subprocess.TimeoutExpired:
        works = False
    if not works:
        raise UnavailableError(
            "no window can be opened: there is no display",
            "run on a desktop or over ssh -X, or give the objects as --mask or --box and leave --show out",
        )


def has_windows() -> bool:
    """Whether OpenCV was built with a toolkit for windows; versions before 4.11 only say so in their build report."""
    if hasattr(cv2, "currentUIFramework"):
        return bool(cv2.currentUIFramework())
    lines = (line.strip() for line in cv2.getBuildInformation().splitlines())
    return next((line.split()[1] for line in lines if line.startswith("GUI:")), "NONE") != "NONE"
