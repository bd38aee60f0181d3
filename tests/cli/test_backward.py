"""``maskring track --backward``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pixel_model import write_pixel_model
from support import moving_square, write_video
from typer.testing import CliRunner
from user_errors import assert_command_error

from maskring.cli import app
from maskring.runtime.video.masks import read_mask, write_mask

if TYPE_CHECKING:
    from conftest import Workspace


def test_a_mask_in_the_middle_of_a_video(tmp_path: Path) -> None:
    write_pixel_model(tmp_path / "pixels.onnx")
    video = write_video(tmp_path / "clip.mp4", 8)
    write_mask(tmp_path / "middle.png", moving_square(5)[1])
    words = [
        "track",
        str(video),
        "--add",
        f"5={tmp_path / 'middle.png'}",
        "--model",
        str(tmp_path / "pixels.onnx"),
    ]
    done = CliRunner().invoke(app, [*words, "--backward", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    masks = [read_mask(path) for path in sorted((tmp_path / "out" / "masks").iterdir())]
    assert len(masks) == 8
    np.testing.assert_array_equal(masks[5], moving_square(5)[1])
    for index in (0, 7):
        truth = moving_square(index)[1] > 0
        assert (masks[index][truth] == 1).mean() > 0.7
    lines = (tmp_path / "out" / "objects.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(8))


@pytest.mark.parametrize("option", ["--live", "--show", "--refine online"])
def test_what_cannot_be_followed_backwards(workspace: Workspace, tmp_path: Path, option: str) -> None:
    out = tmp_path / "out"
    words = ["track", str(workspace.frames), "--mask", str(workspace.mask), "--backward", *option.split()]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert_command_error(done.exit_code, done.stderr, ("--backward", option))
    assert not out.exists()
