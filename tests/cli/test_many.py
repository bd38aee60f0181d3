"""``label`` and ``evaluate`` by several processes: they write what one process writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import write_davis

if TYPE_CHECKING:
    from conftest import Workspace

LENGTHS = {"long": 7, "middle": 5, "short": 4}

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from maskring.__main__ import main; main()"


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short sequences, annotated throughout."""
    return write_davis(tmp_path_factory.mktemp("davis"), LENGTHS)


def start(davis: Path, model: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which has no torch."""
    arguments = ["evaluate", "--davis", davis, "--split", "val", "--model", model, "--threads", "1"]
    arguments += ["--out", out, "--json", out / "scores.json", *more]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def evaluate(davis: Path, model: Path, out: Path, *more: str) -> str:
    process = start(davis, model, out, *more)
    stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr
    return stdout


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.png"))}


def scores(out: Path) -> Any:
    """The measures without the timings."""

    def without_fps(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: without_fps(item) for key, item in value.items() if key != "fps"}

    text = (out / "scores.json").read_text()
    return json.dumps(without_fps(json.loads(text)))  # the order of the sequences counts


def forget(out: Path, name: str) -> None:
    """Bring a finished evaluation into the state of one that was interrupted before a sequence."""
    shutil.rmtree(out / name)
    (out / "scores.json").unlink()


@pytest.fixture(scope="module")
def alone(davis: Path, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone")
    assert "all" in evaluate(davis, workspace.model, out)
    return out


def test_two_processes_find_what_one_finds(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    said = evaluate(davis, workspace.model, tmp_path, "--processes", "2")
    assert "middle" in said and "all" in said
    assert len(masks(alone)) == sum(LENGTHS.values())
    assert masks(tmp_path) == masks(alone)
    assert scores(tmp_path) == scores(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*LENGTHS, "scores.json"])


def test_an_interrupted_evaluation_goes_on(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Only with results of the same settings, of the same footage, and whose masks are there."""
    root, out = tmp_path / "davis", tmp_path / "out"
    shutil.copytree(davis, root)
    broken = root / "JPEGImages" / "480p" / "short" / "00003.jpg"
    broken.write_bytes(b"no picture")
    process = start(root, workspace.model, out)
    assert "00003.jpg" in process.communicate(timeout=1800)[1] and process.returncode == 2
    assert sorted(path.stem for path in (out / "scores.json.parts").iterdir()) == ["long", "middle"]

    shutil.copy2(davis / broken.relative_to(root), broken)
    (out / "middle" / "00003.png").unlink()
    finished = {path: path.stat().st_mtime_ns for path in sorted((out / "long").iterdir())}
    evaluate(root, workspace.model, out, "--processes", "2")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert masks(out) == masks(alone) and scores(out) == scores(alone)
    assert not (out / "scores.json.parts").exists()


@pytest.mark.parametrize("change", ["settings", "footage"])
def test_results_of_another_run_do_not_count(
    change: str, davis: Path, workspace: Workspace, tmp_path: Path
) -> None:
    root, out = tmp_path / "davis", tmp_path / "out"
    shutil.copytree(davis, root)
    broken = root / "JPEGImages" / "480p" / "short" / "00003.jpg"
    broken.write_bytes(b"no picture")
    first = start(root, workspace.model, out, *(["--kernel", "function"] if change == "settings" else []))
    assert first.communicate(timeout=1800) and first.returncode == 2
    before = (out / "long" / "00003.png").stat().st_mtime_ns
    if change == "footage":
        os.utime(root / "JPEGImages" / "480p" / "long" / "00003.jpg", (1, 1))
    again = start(root, workspace.model, out)
    assert again.communicate(timeout=1800) and again.returncode == 2
    assert (out / "long" / "00003.png").stat().st_mtime_ns != before
