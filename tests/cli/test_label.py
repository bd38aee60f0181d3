"""``maskring label``: many videos, by one process and by several."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from support import HEIGHT, WIDTH, moving_square
from typer.testing import CliRunner, Result
from user_errors import assert_command_error

from maskring.cli import app
from maskring.runtime.video.masks import write_mask

if TYPE_CHECKING:
    from conftest import Workspace

LENGTHS = {"long": 7, "middle": 5, "short": 3}

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from maskring.__main__ import main; main()"


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, a folder of frames below another folder, and ``masks`` beside them."""
    root = tmp_path_factory.mktemp("footage")
    for start, (name, length) in enumerate(LENGTHS.items()):
        frames = [np.ascontiguousarray(moving_square(start + index)[0][..., ::-1]) for index in range(length)]
        if name == "short":
            (root / "more" / name).mkdir(parents=True)
            for index, frame in enumerate(frames):
                cv2.imwrite(str(root / "more" / name / f"{index}.png"), frame)
        else:
            codec = cv2.VideoWriter.fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(root / f"{name}.avi"), codec, 10.0, (WIDTH, HEIGHT))
            for frame in frames:
                writer.write(frame)
            writer.release()
        (root / "masks").mkdir(exist_ok=True)
        write_mask(root / "masks" / f"{name}.png", moving_square(start)[1])
    return root


def arguments(footage: Path, model: Path, out: Path, *more: str) -> list[str]:
    options = ["--masks", footage / "masks", "--out", out, "--model", model, "--threads", "1", *more]
    return ["label", *map(str, [footage, *options])]


def label(footage: Path, model: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, arguments(footage, model, out, *more))


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


@pytest.fixture(scope="module")
def alone(footage: Path, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone")
    done = label(footage, workspace.model, out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"3 videos, {sum(LENGTHS.values())} frames, ")
    return out


def test_each_video_gets_a_folder(footage: Path, workspace: Workspace, alone: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in alone.iterdir()) == sorted(LENGTHS)
    for name, length in LENGTHS.items():
        assert len(list((alone / name / "masks").iterdir())) == length
        assert len((alone / name / "objects.jsonl").read_text().splitlines()) == length
    one = ["track", footage / "long.avi", "--mask", footage / "masks" / "long.png", "--out", tmp_path]
    tracked = CliRunner().invoke(app, [*map(str, one), "--no-overlay", "--model", str(workspace.model)])
    assert tracked.exit_code == 0, tracked.output
    assert masks(tmp_path) == masks(alone / "long")


def test_two_processes_label_what_one_does(
    footage: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Real ones, without torch, started as torchrun starts them."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments(footage, workspace.model, tmp_path, "--shard")]
    pair = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = sorted(process.communicate(timeout=1800)[0] for process in pair)
    assert [process.returncode for process in pair] == [0, 0], said
    assert [text.split(" videos")[0] for text in said] == ["1", "2"]
    assert masks(tmp_path) == masks(alone)


def test_an_interrupted_run_goes_on(footage: Path, workspace: Workspace, alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone / "long", tmp_path / "long")
    left = tmp_path / ".short.partial" / "masks"
    left.mkdir(parents=True)
    (left / "old.png").touch()
    kept = (tmp_path / "long" / "objects.jsonl").stat().st_mtime_ns
    done = label(footage, workspace.model, tmp_path)
    assert done.exit_code == 0 and "2 videos, 8 frames" in done.output, done.output
    assert "; 1 were labelled before; labels in" in done.output
    assert masks(tmp_path) == masks(alone) and not left.exists()
    assert (tmp_path / "long" / "objects.jsonl").stat().st_mtime_ns == kept
    again = label(footage, workspace.model, tmp_path)
    assert again.exit_code == 0 and again.output.startswith("0 videos, 0 frames; 3 were"), again.output


def test_what_cannot_be_labelled_is_named_and_keeps_nothing_back(
    footage: Path, workspace: Workspace, tmp_path: Path
) -> None:
    source = tmp_path / "footage"
    shutil.copytree(footage, source)
    (source / "middle.avi").write_bytes(b"no video")
    write_mask(source / "masks" / "short.png", np.ones((8, 8), np.uint8))
    done = label(source, workspace.model, tmp_path / "out")
    assert done.exit_code == 2 and done.stdout.startswith("1 videos, 7 frames")
    reasons = sorted(done.stderr.splitlines())
    assert len(reasons) == 2, reasons
    assert f"{source / 'middle.avi'} was not labelled: " in reasons[0]
    assert f"{source / 'more' / 'short'} was not labelled: " in reasons[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["long"]


def test_where_nothing_can_be_labelled_no_folder_is_left(
    footage: Path, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "long.avi").write_bytes(b"no video")
    videos = ["label", tmp_path / "long.avi", "--masks", footage / "masks", "--model", workspace.model]
    done = CliRunner().invoke(app, [*map(str, videos), "--out", str(tmp_path / "labels" / "new")])
    assert done.exit_code == 2 and done.stdout == "0 videos, 0 frames\n"
    assert [path.name for path in tmp_path.iterdir()] == ["long.avi"]


def test_refusals_come_before_any_work(footage: Path, workspace: Workspace, tmp_path: Path) -> None:
    source, out = tmp_path / "footage", tmp_path / "out"
    shutil.copytree(footage, source)
    (source / "masks" / "long.png").unlink()
    done = label(source, workspace.model, out)
    assert_command_error(done.exit_code, done.stderr, [source / "masks", source / "long.avi", "PNG"])
    shutil.copy(source / "long.avi", source / "more" / "middle.avi")
    done = label(source, workspace.model, out)
    assert_command_error(done.exit_code, done.stderr, ["middle.avi", "rename"])
    nothing = label(source / "masks", workspace.model, out, "--masks", str(source / "masks"))
    assert_command_error(nothing.exit_code, nothing.stderr, [source / "masks", "folder"])
    alone = label(footage, workspace.model, out, "--shard")
    assert_command_error(alone.exit_code, alone.stderr, ["--shard", "RANK", "torchrun"])
    assert not out.exists()
