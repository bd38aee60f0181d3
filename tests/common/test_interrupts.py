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
from support import moving_square

from maskring.common import interrupts as interruption
from maskring.common.errors import OutputError
from maskring.common.interrupts import EXIT_INTERRUPTED, ONE_REQUEST_S, defer_interrupts, handle_interrupts
from maskring.runtime.pipeline.edits import Edits
from maskring.runtime.pipeline.loop import track
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.overlay_video import OverlayVideoSink

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def no_handler_is_left() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)]
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == handlers
    signal.signal(signal.SIGINT, before[0])


@BOTH
def test_outside_of_a_frame_it_takes_effect_at_once(number: signal.Signals) -> None:
    with handle_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
        pytest.fail("went on")


@BOTH
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


@BOTH
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


def test_what_the_process_was_started_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


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
    writer = sink._writer
    assert writer is not None

    def release() -> None:
        writer.release()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sink, "_writer", SimpleNamespace(release=release))
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
