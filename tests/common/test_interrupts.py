"""Ctrl-C and SIGTERM take effect between frames; a second one does not wait."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support import export_tiny_model, moving_square

from maskring.common import interrupts as interruption
from maskring.common.errors import OutputError
from maskring.common.interrupts import (
    EXIT_INTERRUPTED,
    ONE_REQUEST_S,
    STOP_SIGNALS,
    defer_interrupts,
    handle_interrupts,
    stop_request,
)
from maskring.runtime.pipeline.edits import Edits
from maskring.runtime.pipeline.loop import track
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.overlay_video import OverlayVideoSink

EACH = pytest.mark.parametrize("number", STOP_SIGNALS)


@pytest.fixture(autouse=True)
def no_handler_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nor does a hangup close the terminal that pytest itself runs in."""
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        assert signal.signal(number, handler) is signal.default_int_handler


@EACH
def test_outside_of_a_frame_it_takes_effect_at_once(number: signal.Signals) -> None:
    with handle_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
        pytest.fail("went on")


@EACH
def test_a_frame_is_finished_first(number: signal.Signals) -> None:
    done = []
    with handle_interrupts():
        with pytest.raises(KeyboardInterrupt), defer_interrupts():
            with defer_interrupts():
                signal.raise_signal(number)
            done.append("the inner block")
        with defer_interrupts():
            done.append("the next one")
    assert done == ["the inner block", "the next one"]


@EACH
def test_an_import_is_finished_first(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes effect behind the last of them, though the program never comes to a frame."""
    inner, outer = f"inner_{number}", f"outer_{number}"
    (tmp_path / f"{inner}.py").write_text(f"import signal; signal.raise_signal({number}); whole = True")
    (tmp_path / f"{outer}.py").write_text(f"from {inner} import whole")
    monkeypatch.syspath_prepend(tmp_path)
    imported = None
    with handle_interrupts(), pytest.raises(KeyboardInterrupt):
        imported = importlib.import_module(outer).whole
        threading.Event().wait(60)
        pytest.fail("went on")
    assert imported is True


def test_a_second_one_does_not_wait_for_imports(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "import os, signal, time\n"
        "from maskring.common.interrupts import ONE_REQUEST_S\n"
        "for _ in range(2):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    now = time.monotonic()\n"
        "    while time.monotonic() < now + 1.2 * ONE_REQUEST_S: pass\n"
        "print('went on')\n"
    )
    program = (
        "from maskring.common.interrupts import handle_interrupts\nwith handle_interrupts(): import endless"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == EXIT_INTERRUPTED and done.stdout == ""
    assert done.stderr.startswith("stopped at once")


INTERRUPTED_IMPORTS = """
import signal, sys, threading
import maskring.doctor
maskring.doctor.examine = lambda: threading.Event().wait(60)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

class Signals:
    left = int(sys.argv.pop(1))

    def find_spec(self, name, *_):
        Signals.left -= 1
        if Signals.left == 0:
            signal.raise_signal(signal.SIGINT)

from maskring.__main__ import main
sys.meta_path.insert(0, Signals())
main()
"""


@pytest.mark.parametrize("count", [1, 5, 20])
def test_the_command_is_interrupted_while_it_imports(count: int) -> None:
    """Quietly; it takes effect before the command or within it."""
    command = [sys.executable, "-c", INTERRUPTED_IMPORTS, str(count), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == EXIT_INTERRUPTED and done.stdout == ""
    assert re.fullmatch(r"(interrupted.*\n)?", done.stderr)


def test_an_error_in_the_frame_is_told() -> None:
    with handle_interrupts(), pytest.raises(OutputError), defer_interrupts():
        signal.raise_signal(signal.SIGINT)
        raise OutputError("no space is left", "free some")


def test_of_two_apart_the_second_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Within a moment they are one request."""
    now, ended = [100.0], []
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "_exit", ended.append)
    with handle_interrupts(), pytest.raises(KeyboardInterrupt), defer_interrupts():
        signal.raise_signal(signal.SIGINT)
        now[0] += ONE_REQUEST_S
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        now[0] += 0.001
        signal.raise_signal(signal.SIGTERM)
        assert ended == [EXIT_INTERRUPTED]
    assert capfd.readouterr().err.startswith("stopped at once")


@EACH
def test_what_the_process_was_started_to_ignore_stays_ignored(number: signal.Signals) -> None:
    """So that ``nohup`` works."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with handle_interrupts(), stop_request() as stop:
            signal.raise_signal(number)
            assert not stop()
    finally:
        signal.signal(number, before)


FRAMES = 3000
"""So many that a run does not end by itself in the moment that it takes to close its terminal."""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo terminals")
def test_a_closed_terminal_ends_the_run_in_order(tmp_path: Path) -> None:
    """As when an SSH session breaks off: outputs are complete, though no message can be shown any more."""
    image, mask = moving_square(0)
    frames = tmp_path / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), image)
    for index in range(1, FRAMES):
        os.link(frames / "0.png", frames / f"{index}.png")
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    out, (master, slave) = tmp_path / "out", os.openpty()
    words = ["track", frames, "--mask", tmp_path / "mask.png", "--model", export_tiny_model(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *map(str, words), "--out", str(out)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    while process.poll() is None and not ((lines := out / "objects.jsonl").exists() and lines.stat().st_size):
        os.read(master, 1 << 16)  # what is shown so far; waits for more
    os.close(master)
    assert process.wait(timeout=1800) == EXIT_INTERRUPTED
    written = len((out / "objects.jsonl").read_text().splitlines())
    assert 0 < written < FRAMES
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == written
    assert not [path for path in out.iterdir() if "partial" in path.name]


IN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal controls this session, and hangs it up
from maskring.__main__ import main
main()
"""


def test_all_sinks_get_the_frame() -> None:
    """The signal comes in the middle of the tracker's step."""
    image, mask = moving_square(0)
    frames = [Frame(image, index, 0.0, str(index)) for index in range(9)]
    written: list[tuple[str, int]] = []

    class Tracker:
        def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> object:
            if len(written) == 4:
                signal.raise_signal(signal.SIGINT)
            return SimpleNamespace(objects=())

    class Sink:
        def __init__(self, name: str) -> None:
            self.name = name

        def write(self, frame: Frame, result: object) -> None:
            written.append((self.name, frame.index))

    with handle_interrupts(), pytest.raises(KeyboardInterrupt):
        track(frames, Tracker(), [Sink("a"), Sink("b")], Edits({0: mask}))  # type: ignore[arg-type, list-item]
    assert written == [(name, index) for index in range(3) for name in "ab"]


def test_the_thread_that_decodes_is_ended_wherever_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the midst of starting it: it can be joined only when it is started."""
    cv2.imwrite(str(tmp_path / "0.png"), moving_square(0)[0])
    wait = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if sys._getframe(1).f_code.co_name == "start":
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with handle_interrupts(), pytest.raises(KeyboardInterrupt), open_source(tmp_path) as source:
        next(source)
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_a_video_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when the run has ended by itself, while the video gets its index."""
    image, mask = moving_square(0)
    sink = OverlayVideoSink(tmp_path / "overlay.mp4", 25.0)
    sink.write(Frame(image, 0, 0.0, "0"), SimpleNamespace(labels=mask))  # type: ignore[arg-type]
    file = sink._file
    assert file is not None

    def close() -> None:
        file.close()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sink, "_file", SimpleNamespace(close=close))
    with handle_interrupts(), pytest.raises(KeyboardInterrupt):
        sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["overlay.mp4"]


STORM = """
import signal
import numpy as np
from maskring.runtime.video.overlay import draw_overlay

armed = False

def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
image, labels, interruptions = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.uint8), 0
while interruptions < 4000:
    try:
        armed = True
        while True:
            draw_overlay(image, labels)
    except KeyboardInterrupt:
        interruptions += 1
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_picture_is_drawn_by_calls_that_take_an_interruption() -> None:
    """Programs that use maskring have handlers of their own, which raise wherever they are called.

    OpenCV 4.14 crashes when that is where one of its overloads has refused an argument, as those of
    ``cv2.applyColorMap`` do.
    """
    storm = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, check=False)
    assert storm.returncode == 0, storm.stderr


def test_no_lock_is_left_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when the tracker has just got the lock that it shares with the decoding thread."""
    cv2.imwrite(str(tmp_path / "0.png"), moving_square(0)[0])
    enter, main = threading.Condition.__enter__, threading.get_ident()

    def interrupted(condition: threading.Condition) -> bool:
        entered = enter(condition)
        if threading.get_ident() == main and sys._getframe(1).f_code.co_name == "get":
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)
        return entered

    monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
    with handle_interrupts(), pytest.raises(KeyboardInterrupt), open_source(tmp_path) as source:
        next(source)
    free: list[bool] = []
    other = threading.Thread(target=lambda: free.append(source._handoff._changed.acquire(blocking=False)))
    other.start()
    other.join()
    assert free == [True]
