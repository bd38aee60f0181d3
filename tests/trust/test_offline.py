"""Nothing that works on files asks for a network: not maskring, not a library, not a process it starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
from support import moving_square, write_davis, write_tiny_checkpoint, write_video
from trust.offline import UNAVAILABLE

TOOLS = Path(__file__).resolve().parents[1] / "tools"

SHORT_DEMO = """
import functools, sys
from maskring.cli import app
from maskring.demo import clip
from maskring.runtime.video import synthetic
clip.FIRST_FRAME, clip.LAST_FRAME = 0, 2
whole = synthetic.render_clip
synthetic.render_clip = lambda height, width: whole(height // 6, width // 6, frames=6)
app(sys.argv[1:])
"""
"""Of the rendered clip the demo draws as little as its test in tests/cli does."""

ASKS = """
import socket, subprocess, sys
socket.socketpair()  # local, and allowed
child = "import socket; socket.create_connection(('127.0.0.1', 9))"
subprocess.run([sys.executable, "-c", child], stderr=subprocess.DEVNULL)
"""


def offline(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] = os.environ
) -> list[dict[str, Any]]:
    """Run a command to its end; returns who asked for a network."""
    report = folder / "asked.json"
    done = subprocess.run(
        [sys.executable, "-m", "trust.offline", report, sys.executable, *map(str, command)],
        cwd=TOOLS,
        env={**environment, "MASKRING_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(f"the kernel does not report system calls here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    asked: list[dict[str, Any]] = json.loads(report.read_text())
    return asked


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> dict[str, Path]:
    """A dataset in DAVIS layout, one sequence of it as a video, the mask of its first frame."""
    root = tmp_path_factory.mktemp("desk")
    davis = write_davis(root / "davis", {"a": 5})
    images, mask = davis / "JPEGImages/480p/a", davis / "Annotations/480p/a/00000.png"
    clip = write_video(root / "clip.mp4", 5)
    (root / "masks").mkdir()
    shutil.copy(mask, root / "masks" / "clip.png")
    return {
        "CHECKPOINT": write_tiny_checkpoint(root / "tiny.safetensors"),
        **{"MODEL": exported, "DAVIS": davis, "FRAMES": images, "CLIP": clip},
        "MASK": mask,
        "MASKS": root / "masks",
    }


def test_who_asks_is_seen(tmp_path: Path) -> None:
    (asked,) = offline(["-c", ASKS], tmp_path)
    assert asked["call"] == "socket" and "create_connection" in asked["process"]


COMMANDS = {
    "a video": "track CLIP --mask MASK --model MODEL --out OUT",
    "frames and a shipped checkpoint": "track FRAMES --mask MASK --model pico --out OUT",
    "frames and a checkpoint, exported first": "track FRAMES --mask MASK --model CHECKPOINT --out OUT",
    "many videos": "label CLIP --masks MASKS --model MODEL --out OUT",
    "evaluate": "evaluate --davis DAVIS --split val --model MODEL --out OUT --json OUT/scores.json",
}


EXPORTS = "frames and a checkpoint, exported first"
"""Takes seconds; what is exported for a shipped checkpoint is filled, not made."""


@pytest.mark.parametrize(
    "command",
    [pytest.param(COMMANDS[name], marks=[pytest.mark.slow] if name == EXPORTS else []) for name in COMMANDS],
    ids=COMMANDS,
)
def test_a_command_on_files(desk: dict[str, Path], tmp_path: Path, command: str) -> None:
    (tmp_path / "out").mkdir()
    words = [word.replace("OUT", str(tmp_path / "out")) for word in command.split()]
    assert offline(["-m", "maskring", *(desk.get(word, word) for word in words)], tmp_path) == []
    assert any((tmp_path / "out").iterdir())


LOAD_AND_WAIT = """
import sys, time
from maskring import open_tracker
open_tracker(sys.argv[1]).close()
time.sleep(40)
"""
"""onnxruntime 1.32 asks for its vendor's host about nine seconds after its import, and again and again."""


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [False, True], ids=["as it is", "allowed by the user"])
def test_onnxruntime_reports_nothing_to_its_vendor(tmp_path: Path, exported: Path, allowed: bool) -> None:
    """Without the variables of CI services, which silence it; in its home it would leave an identity."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    if allowed:
        environment["ORT_DISABLE_TELEMETRY"] = "0"
    asked = offline(["-c", LOAD_AND_WAIT, exported], tmp_path, environment)
    left = [path for path in home.rglob("*") if path.is_file()]
    if allowed and not asked and not left:
        pytest.skip("this onnxruntime reports nothing in any case, so that the other test proves nothing")
    assert (bool(asked), bool(left)) == (allowed, allowed), (asked, left)


def test_importing_maskring_silences_onnxruntime_unless_the_user_allows_it() -> None:
    code = "import maskring, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        environment = {**os.environ, **given} if given else without(os.environ, "ORT_DISABLE_TELEMETRY")
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert done.stdout.decode().strip() == expected


def without(environment: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key != name}


def test_the_demo_with_a_clip_at_hand(tmp_path: Path, exported: Path) -> None:
    """Without one it asks pip, and says so."""
    clip = tmp_path / "clip"
    clip.mkdir()
    for index in range(3):
        frame, _ = moving_square(index)
        cv2.imwrite(str(clip / f"{index}.png"), cv2.resize(frame, (640, 360)))
    command = ["-c", SHORT_DEMO, "demo", "--out", tmp_path / "demo", "--clip", clip, "--model", exported]
    assert offline(command, tmp_path) == []
    assert (tmp_path / "demo" / "contact_sheet.png").stat().st_size > 0
