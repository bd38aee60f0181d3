"""What the pages say is so: commands are the command line's own, those of seconds run, code compiles."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomllib
import typer
from support import HEIGHT, WIDTH, export_tiny_model, kept_exports, moving_square, write_davis, write_video
from typer.testing import CliRunner

from maskring.cli import app
from maskring.runtime.video.masks import write_mask

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", flags=re.DOTALL | re.MULTILINE)

FRAMES = 6

LONG = 220
"""Frames of the clip that is profiled."""

NOT_RUN_HERE = {
    r"--box": "names pixels of a larger frame: tests/cli/test_commands.py",
    r"--from|--to": "names frames of a longer video: tests/cli/test_commands.py",
    r"maskring studio": "serves until it is stopped: tests/studio",
    r"--show": "needs a display: tests/runtime/test_window.py",
    r"maskring track (0 |\"|rtsp)": "needs a camera",
    r"maskring train|--validate": "tests/cli/test_train.py",
    r"maskring demo": "downloads its clip: tests/cli/test_commands.py",
    r"maskring import": "needs a published checkpoint: tests/cli/test_commands.py",
    r"maskring build|\.engine": "needs NVIDIA's libraries: tests/export/test_engine.py",
    r"--refine|refiner": "adapts for minutes: tests/cli/test_refine.py",
    r"maskring doctor": "its exit depends on the machine: tests/cli/test_commands.py",
    r"training/weights/": "runs from the root of the checkout, at full size: tests/export/test_export.py",
    r"--add 120|--source frames": "names frames of a longer video: tests/cli/test_masks_given.py",
    r"--device cuda": "needs a GPU: tests/runtime/backends/test_cuda_backend.py",
    r"--ray|--processes": "starts processes: tests/cli/test_many.py, test_ray.py",
    r"--budget": "its exit depends on the machine: tests/runtime/profiling/test_profiling.py",
}
"""Commands that are parsed only, and why."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, body) of the fenced blocks of a page."""
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield match["language"], match["body"]


def shell_lines(page: Path) -> list[str]:
    """The lines of shell blocks, continued ones joined."""
    shell = "\n".join(body for language, body in blocks(page) if language == "sh").replace("\\\n", " ")
    return [line.strip() for line in shell.splitlines() if line.strip()]


def commands(page: Path) -> list[str]:
    """Those that begin with ``maskring``."""
    return [line for line in shell_lines(page) if line.startswith("maskring ")]


def started_by_others(page: Path) -> list[str]:
    """The ``maskring ...`` within lines of which torchrun or docker starts it, but for abbreviated ones."""
    starter = re.compile(r"^(?:torchrun|docker run) .*\bmaskring(?:-jetson)? (?=[a-z])")
    lines = [line for line in shell_lines(page) if starter.search(line) and " ... " not in line]
    return [starter.sub("maskring ", line) for line in lines]


def words(line: str) -> list[str]:
    """Arguments after ``maskring``, patterns of files filled in as a shell does."""
    found: list[str] = []
    for word in shlex.split(line, comments=True)[1:]:
        matches = sorted(map(str, Path().glob(word))) if "*" in word else []
        found += matches or [word]
    return found


def reason_not_to_run(line: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN_HERE.items() if re.search(pattern, line)), None)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in commands(page) + started_by_others(page):
        name, *arguments = words(line)
        assert name in known, line
        known[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_command_hides_from_these_tests(page: Path) -> None:
    """Commands stand in blocks marked ``sh``; a synopsis, which no shell takes, in one marked ``text``."""
    for language, body in blocks(page):
        if language not in ("sh", "text"):
            assert not re.search(r"^\s*maskring ", body, flags=re.MULTILINE), (
                f"in a block marked {language!r}"
            )


TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
PRESETS = {each["name"] for each in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_other_commands_name_what_is_there(page: Path) -> None:
    """Scripts and their options, targets of make, presets of CMake, Dockerfiles, what pip is to install."""
    shell = "\n".join(shell_lines(page))
    for script, arguments in re.findall(r"\bpython (bench/\S+\.py)(.*)", shell):
        for option in re.findall(r" (--[a-z0-9-]+)", arguments):
            assert f'"{option}"' in (ROOT / script).read_text(), f"{script} knows no {option}"
    assert set(re.findall(r"^make ([a-z-]+)", shell, flags=re.MULTILINE)) <= set(TARGETS)
    assert set(re.findall(r"--preset (\S+)", shell)) <= PRESETS
    for path in re.findall(r"(?:pytest|docker build -f|install -r|-c) ([\w/.-]+)", shell):
        assert (ROOT / path).exists(), path
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"pip install .*\.\[(\w+)\]", shell)) <= set(extras)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_compiles(page: Path) -> None:
    for number, (language, body) in enumerate(blocks(page)):
        if language == "python":
            compile(body, f"{page.name}, block {number}", "exec")


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages' commands name, small."""
    root = tmp_path_factory.mktemp("desk")
    for folder in ("videos", "run", "runs/mine", "tuned"):
        (root / folder).mkdir(parents=True)
    for name in ("DAVIS", "ROOT", "cells"):
        write_davis(root / name, {"square": 4}, splits=("val", "dev", "dev20"))
    write_video(root / "video.mp4", FRAMES)
    shutil.copy(root / "video.mp4", root / "videos" / "one.mp4")
    write_video(root / "clip.mp4", LONG)
    write_mask(root / "first.png", moving_square(0)[1])
    second = np.zeros((HEIGHT, WIDTH), np.uint8)
    second[4:12, 40:60] = 2
    write_mask(root / "second.png", second)
    for name, mask in (("person.png", moving_square(0)[1]), ("cup.png", second // 2), ("x.png", second // 2)):
        write_mask(root / name, mask)
    (root / "masks").mkdir()
    shutil.copy(root / "first.png", root / "masks" / "one.png")
    export_tiny_model(root).rename(root / "model.onnx")
    (root / "tiny.safetensors").rename(root / "checkpoint.safetensors")
    shutil.copy(root / "checkpoint.safetensors", root / "nano.safetensors")
    for name in ("run", "runs/mine", "tuned"):
        shutil.copy(root / "checkpoint.safetensors", root / name)
    shutil.copy(
        root / "checkpoint.safetensors", root / "nano"
    )  # a file of that name goes before the shipped one
    shutil.copy(root / "model.onnx", root / "model-int8.onnx")  # any second model will do
    return root


def run_commands(page: Path, desk: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a page's commands in a fresh copy of the desk; returns how many."""
    shutil.copytree(desk, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MASKRING_CACHE", str(desk / "cache"))
    count = 0
    for line in commands(page):
        if reason_not_to_run(line) is None:
            with kept_exports():
                done = CliRunner().invoke(app, words(line))
            assert done.exit_code == 0, f"{line}\n{done.output}"
            count += 1
    return count


def test_get_started_works_as_written(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "get_started.md"
    assert run_commands(page, desk, tmp_path, monkeypatch) >= 5
    written = tmp_path / "out"
    assert len(list((written / "masks").iterdir())) == FRAMES
    assert (written / "overlay.mp4").stat().st_size and (written / "objects.jsonl").stat().st_size
    (code,) = (body for language, body in blocks(page) if language == "python")
    exec(compile(code, page.name, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "get_started.md"], ids=str)
def test_commands_that_take_seconds_run(
    page: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(reason_not_to_run(line) is None for line in commands(page)):
        pytest.skip("no command of this page runs without a camera, a GPU, data or minutes")
    run_commands(page, desk, tmp_path, monkeypatch)


def test_pictures_are_those_of_their_script(tmp_path: Path) -> None:
    """Every drawn picture is shown, and every picture shown is drawn."""
    namespace: dict[str, object] = {"__name__": "draw"}
    script = ROOT / "docs" / "pictures" / "draw.py"
    exec(compile(script.read_text(), str(script), "exec"), namespace)
    namespace["main"](tmp_path)  # type: ignore[operator]
    drawn = {path.name: path.read_text().count("<path") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text().count("<path") for path in script.parent.glob("*.svg")}
    assert drawn == committed
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"!\[[^]]*\]\(pictures/([^)]*\.svg)\)", page.read_text())
    }
    assert shown == set(committed)
