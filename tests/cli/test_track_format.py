"""``maskring track --format``: the masks in other formats, as ``maskring convert`` writes them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result
from user_errors import assert_command_error

from maskring.cli import app

if TYPE_CHECKING:
    from conftest import Workspace


def run(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_files_as_convert(workspace: Workspace, tmp_path: Path) -> None:
    formats = {"coco": "coco.json", "label-studio": "label-studio.json", "yolo-seg": "yolo-seg"}
    options = " ".join(f"--format {name}" for name in formats)
    done = run(
        f"track {workspace.frames} --mask {workspace.mask} --model {workspace.model} --out {tmp_path}/out "
        f"--no-overlay --name 1=cup {options}"
    )
    assert done.exit_code == 0, done.output
    for name, written in formats.items():
        assert f"{name} in {tmp_path}/out/{written}" in done.stdout
        frames = f"--frames {workspace.frames} --name 1=cup"
        again = run(f"convert {tmp_path}/out --to {name} --out {tmp_path}/again/{written} {frames}")
        assert again.exit_code == 0, again.output
    expected = contents(tmp_path / "again")
    assert "yolo-seg/data.yaml" in expected
    assert expected.items() <= contents(tmp_path / "out").items()


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ("--format coco --no-masks --out {out}", ("--format coco", "--no-masks")),
        ("--format cvat --show", ("--format cvat", "--out")),
        ("--name 1=cup --out {out}", ("1=cup", "--format")),
        ("--format cvat --name cup --out {out}", ("cup", "ID=NAME")),
    ],
)
def test_what_does_not_fit_is_refused_before_tracking(
    workspace: Workspace, tmp_path: Path, options: str, mentions: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    done = run(f"track {workspace.frames} --mask {workspace.mask} {options.format(out=out)}")
    assert_command_error(done.exit_code, done.stderr, mentions)
    assert not out.exists()


def test_masks_of_an_earlier_run_are_not_mixed_in(workspace: Workspace, tmp_path: Path) -> None:
    line = f"track {workspace.frames} --mask {workspace.mask} --model {workspace.model} --out {tmp_path}/out"
    assert run(f"{line} --to 2 --no-overlay").exit_code == 0
    before = contents(tmp_path)
    done = run(f"{line} --from 1 --no-overlay --format cvat")
    assert_command_error(done.exit_code, done.stderr, (tmp_path / "out", "earlier", "--out"))
    assert contents(tmp_path) == before
