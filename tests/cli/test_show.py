"""``maskring track --show`` where it cannot work: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from maskring.cli import app
from maskring.runtime.interaction.window import has_windows

if TYPE_CHECKING:
    from conftest import Workspace


def test_no_display(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_windows() or not sys.platform.startswith("linux"):
        pytest.skip("only windows of X11 and Wayland need a display to be named")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(
        app, ["track", str(workspace.frames), "--show", "--model", str(workspace.model)]
    )
    assert done.exit_code == 2 and done.exception.__class__ is SystemExit
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no window can be opened: there is no display; ")


def test_offline_refinement_cannot_be_watched(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["track", str(workspace.frames), "--show", "--refine", "offline", "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "--refine online or drop --show" in done.stderr
    assert not out.exists()


def test_without_a_mask_drawing_is_offered(workspace: Workspace, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["track", str(workspace.frames), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--show" in done.stderr
