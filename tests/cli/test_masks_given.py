"""``track`` and ``label`` with masks as people have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support import HEIGHT, WIDTH, moving_square
from typer.testing import CliRunner, Result
from user_errors import assert_command_error

from maskring.cli import app
from maskring.runtime.video.masks import read_mask

if TYPE_CHECKING:
    from conftest import Workspace


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def track(workspace: Workspace, out: Path, *arguments: str | Path, frames: Path | None = None) -> Result:
    options = ["--model", workspace.model, "--out", out, "--no-overlay", "--threads", "1", *arguments]
    return run("track", frames or workspace.frames, *options)


def objects(out: Path) -> list[list[int]]:
    lines = (out / "objects.jsonl").read_text().splitlines()
    return [[state["id"] for state in json.loads(line)["objects"]] for line in lines]


@pytest.fixture
def white(tmp_path: Path) -> tuple[Path, Path]:
    """Two masks of one white object each."""
    other = np.zeros((HEIGHT, WIDTH), np.uint8)
    other[4:12, 40:60] = 255
    Image.fromarray(moving_square(0)[1] * 255).save(tmp_path / "one.png")
    Image.fromarray(other).save(tmp_path / "two.png")
    return tmp_path / "one.png", tmp_path / "two.png"


def test_a_mask_for_each_object(workspace: Workspace, white: tuple[Path, Path], tmp_path: Path) -> None:
    done = track(workspace, tmp_path / "out", "--mask", white[0], "--mask", white[1])
    assert done.exit_code == 0, done.output
    assert objects(tmp_path / "out") == [[1, 2]] * 6
    assert f"{white[1]} is object 2" in done.stderr
    assert (read_mask(tmp_path / "out/masks/00000.png")[4:12, 40:60] == 2).all()


def test_numbers_for_masks(workspace: Workspace, white: tuple[Path, Path], tmp_path: Path) -> None:
    done = track(workspace, tmp_path / "out", "--mask", f"5={white[0]}", "--add", f"2:9={white[1]}")
    assert done.exit_code == 0, done.output
    assert objects(tmp_path / "out") == [[5], [5], [5, 9], [5, 9], [5, 9], [5, 9]]


def test_an_added_shape_replaces_nothing(
    workspace: Workspace, white: tuple[Path, Path], tmp_path: Path
) -> None:
    done = track(workspace, tmp_path / "out", "--mask", white[0], "--add", f"2={white[1]}")
    assert done.exit_code == 0, done.output
    assert objects(tmp_path / "out")[2:] == [[1, 2]] * 4
    again = track(workspace, tmp_path / "again", "--mask", white[0], "--add", f"2:1={white[1]}")
    assert "redraws object 1 at frame 2" in again.stderr
    assert objects(tmp_path / "again")[2:] == [[1]] * 4


def test_masks_of_frames_before_the_first_belong_to_it(
    workspace: Workspace, white: tuple[Path, Path], tmp_path: Path
) -> None:
    done = track(workspace, tmp_path / "out", "--mask", white[0], "--add", f"1={white[1]}", "--from", "3")
    assert done.exit_code == 0, done.output
    assert objects(tmp_path / "out") == [[1, 2]] * 3


@pytest.mark.parametrize("name", ["first.png", "00000.png"])
def test_a_mask_among_the_frames_is_no_frame(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Even where its name is that of a frame."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for path in workspace.frames.iterdir():
        Image.open(path).save(frames / f"{path.stem}.bmp")
    shutil.copy(workspace.mask, frames / name)
    done = track(workspace, tmp_path / "out", "--mask", frames / name, frames=frames)
    assert done.exit_code == 0, done.output
    masks = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert masks == [f"{index:05d}.png" for index in range(6)]


@pytest.mark.parametrize(
    "words",
    [
        ("--mask", "0={one}"),
        ("--mask", "256={one}"),
        ("--mask", "{one}", "--add", "2:={two}"),
        ("--mask", "{one}", "--add", "2:x={two}"),
        ("--mask", "{one}", "--add", "x={two}"),
        ("--mask", "{one}", "--add", "9:2={two}"),
    ],
)
def test_numbers_that_are_none(
    workspace: Workspace, white: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...]
) -> None:
    arguments = [word.format(one=white[0], two=white[1]) for word in words]
    done = track(workspace, tmp_path / "out", *arguments)
    assert_command_error(done.exit_code, done.stderr, [arguments[-1].split("=")[0]])
    assert not (tmp_path / "out").exists()


def label(workspace: Workspace, root: Path) -> Result:
    options = ["--masks", root / "masks", "--out", root / "out", "--model", workspace.model, "--threads", "1"]
    return run("label", root / "videos", *options)


@pytest.fixture
def footage(workspace: Workspace, tmp_path: Path) -> Path:
    """Folders ``a`` and ``b`` of frames, and ``masks``."""
    for name in ("a", "b"):
        shutil.copytree(workspace.frames, tmp_path / "videos" / name)
    (tmp_path / "masks").mkdir()
    return tmp_path


def test_label_gives_a_colour_the_same_id_in_every_video(workspace: Workspace, footage: Path) -> None:
    square = moving_square(0)[1]
    both = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    both[square > 0], both[4:12, 40:60] = (255, 0, 0), (0, 0, 255)
    alone = np.zeros_like(both)
    alone[square > 0] = (255, 0, 0)
    Image.fromarray(both).save(footage / "masks/a.tif")
    Image.fromarray(alone).save(footage / "masks/b.png")
    done = label(workspace, footage)
    assert done.exit_code == 0, done.output
    assert objects(footage / "out/a")[0] == [1, 2] and objects(footage / "out/b")[0] == [2]


def test_label_names_masks_without_a_video(workspace: Workspace, footage: Path) -> None:
    for name in ("a", "b", "stray"):
        shutil.copy(workspace.mask, footage / "masks" / f"{name}.png")
    done = label(workspace, footage)
    assert done.exit_code == 0, done.output
    assert f"{footage / 'masks' / 'stray.png'} belongs to none of the videos" in done.stderr


def test_label_refuses_two_masks_for_a_video(workspace: Workspace, footage: Path) -> None:
    for name in ("a.png", "b.png", "b.tif"):
        Image.open(workspace.mask).save(footage / "masks" / name)
    done = label(workspace, footage)
    assert_command_error(done.exit_code, done.stderr, ["b.png", "b.tif"])


@pytest.mark.parametrize(("removed", "refused"), [("4=1", False), ("4=3", False), ("4=2", True)])
def test_what_was_never_given_cannot_be_removed(
    workspace: Workspace, white: tuple[Path, Path], tmp_path: Path, removed: str, refused: bool
) -> None:
    """Said before tracking, so that no half of a result is left."""
    masks = ("--mask", white[0], "--add", f"2:3={white[1]}")
    done = track(workspace, tmp_path / "out", *masks, "--remove", removed)
    if refused:
        assert_command_error(done.exit_code, done.stderr, ("--remove 4=2", "1, 3"))
        assert not (tmp_path / "out").exists()
    else:
        assert done.exit_code == 0, done.output


def test_objects_of_boxes_can_be_removed(
    workspace: Workspace, white: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--mask", f"1={white[1]}", "--box", "1,1,40,40", "--remove", "4=2")
    done = track(workspace, tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    assert objects(tmp_path / "out")[3:5] == [[1, 2], [1]]
