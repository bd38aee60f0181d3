"""Disks that take nothing, and disks that are full: one sentence, and nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from mounts import mounted_tmpfs
from support import write_davis, write_frames, write_tiny_checkpoint
from typer.testing import CliRunner

from maskring.cli import app
from maskring.common.files import PARTIAL_NAME

RECIPE = """
encoder = "nano"
steps = 1
clips = 1
frames = 2
short_side = 32
crop = 32
sheet_every = 0
"""

PROFILE = ("profile", "MODEL", "--iterations", "1", "--warm-up", "1", "--runner-iterations", "0")
MEASURES = ("--out", "DISK/masks", "--json", "DISK/scores.json")

COMMANDS = {
    "track": ("track", "FOOTAGE", "--mask", "MASK", "--model", "MODEL", "--out", "DISK/out"),
    "export": ("export", "CHECKPOINT", "--out", "DISK/model.onnx"),
    "quantize": ("quantize", "MODEL", "--calibrate", "FOOTAGE", "--frames", "1", "--out", "DISK/a.onnx"),
    "train": ("train", "RECIPE", "--data", "FOOTAGE", "--out", "DISK/run"),
    "profile": (*PROFILE, "--out", "DISK/profile"),
    "evaluate": ("evaluate", "--davis", "DAVIS", "--split", "val", "--model", "MODEL", *MEASURES),
    "label": ("label", "FOOTAGE", "--masks", "MASKS", "--model", "MODEL", "--out", "DISK/labels"),
    "the cache": ("track", "FOOTAGE", "--mask", "MASK", "--model", "CHECKPOINT", "--out", "OUT"),
}


EXPORTS = ("export", "the cache")  # take seconds
EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in EXPORTS else []) for name in COMMANDS]
)


@pytest.fixture
def places(tmp_path: Path, exported: Path) -> dict[str, str]:
    """What the words of COMMANDS stand for."""
    write_frames(tmp_path / "footage", 4)
    labels = write_davis(tmp_path / "davis", {"a": 4}) / "Annotations/480p/a"
    shutil.copy(labels / "00000.png", labels.parent / "footage.png")
    (tmp_path / "mine.toml").write_text(RECIPE)
    return {
        "FOOTAGE": str(tmp_path / "footage"),
        "DAVIS": str(tmp_path / "davis"),
        "MASK": str(shutil.copy(labels / "00000.png", tmp_path / "mask.png")),
        "MASKS": str(shutil.copytree(labels.parent, tmp_path / "masks")),
        "MODEL": str(exported),
        "RECIPE": str(tmp_path / "mine.toml"),
        "CHECKPOINT": str(write_tiny_checkpoint(tmp_path / "tiny.safetensors")),
        "OUT": str(tmp_path / "out"),
    }


def invoked(name: str, places: dict[str, str], disk: Path) -> Result:
    arguments = [places.get(word, word).replace("DISK", str(disk)) for word in COMMANDS[name]]
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that takes nothing: of root, whom permissions do not bind, a file system of its own."""
    if os.geteuid() == 0:
        with mounted_tmpfs(tmp_path / "disk", "ro") as disk:
            yield disk
    else:
        disk = tmp_path / "disk"
        disk.mkdir(mode=0o555)
        yield disk


@EACH
def test_what_takes_nothing_is_named(
    name: str, read_only: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(read_only / "cache"))
    result = invoked(name, places, read_only)
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert str(read_only) in said and "not writable" in said and said.count("error:") == 1


def test_footage_mask_and_model_may_lie_where_nothing_can_be_written(
    read_only: Path, places: dict[str, str]
) -> None:
    if os.geteuid() != 0:
        read_only.chmod(0o755)
    else:
        subprocess.run(["mount", "-o", "remount,rw", str(read_only)], check=True)
    shutil.copytree(places["FOOTAGE"], read_only / "footage")
    for word in ("MASK", "MODEL"):
        shutil.copy(places[word], read_only)
    if os.geteuid() != 0:
        read_only.chmod(0o555)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    lying = {word: str(read_only / Path(places[word]).name) for word in ("MASK", "MODEL")}
    inputs = {**places, **lying, "FOOTAGE": str(read_only / "footage")}
    result = invoked("track", inputs, Path(places["OUT"]))
    assert result.exit_code == 0, result.output


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every file is cut off there, as on a full disk. No fixture: pytest's own report may go to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@EACH
def test_no_room(name: str, tmp_path: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was whole before stays so; of what did not fit there is no part."""
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("MASKRING_CACHE", str(disk / "cache"))
    with files_of_at_most(150):
        result = invoked(name, places, disk)
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert said.count("error:") == 1
    assert "cannot be written" in said or ("File too large" in said and "free some space" in said), said
    left = [path for path in tmp_path.rglob("*") if PARTIAL_NAME.fullmatch(path.name)]
    cut = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size == 150]
    assert not left and not cut
