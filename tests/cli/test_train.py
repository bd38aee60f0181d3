"""``maskring train``: from footage to a checkpoint, resumed by the same command."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from support import moving_square
from typer.testing import CliRunner, Result

from maskring.cli import app
from maskring.training.checkpoint import load_checkpoint

RECIPE = """
encoder = "nano"
steps = 2
clips = 1
frames = 2
short_side = 32
crop = 32
"""


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage" / "clip"
    folder.mkdir(parents=True)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), moving_square(index)[0])
    (tmp_path / "mine.toml").write_text(RECIPE)
    return folder.parent


def train(footage: Path, *extra: str) -> Result:
    tmp_path = footage.parent
    arguments = ["train", footage, "--out", tmp_path / "run", "--recipe", tmp_path / "mine.toml", *extra]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_footage_becomes_a_checkpoint(footage: Path) -> None:
    first = train(footage, "--max-minutes", "0")
    assert first.exit_code == 0, first.output
    assert "step 1 of 2, 0 clips skipped" in first.output
    assert "run the same command again to go on" in first.output
    second = train(footage)
    assert second.exit_code == 0 and "step 2 of 2" in second.output and "again" not in second.output
    assert load_checkpoint(footage.parent / "run" / "checkpoint.safetensors").provenance.steps == 2


def test_skipped_clips_are_named(footage: Path) -> None:
    broken = footage / "broken.mp4"
    broken.write_bytes(b"nothing")
    Path(footage.parent / "mine.toml").write_text(RECIPE.replace("clips = 1", "clips = 6"))
    found = train(footage)
    assert found.exit_code == 0, found.output
    assert f"skipped {broken}: " in found.output and "1 clips skipped" in found.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("steps = 0", "steps = 0, which must be at least 1"), ("stepz = 1", "unknown setting stepz")],
)
def test_bad_recipe_is_one_sentence(footage: Path, text: str, sentence: str) -> None:
    (footage.parent / "mine.toml").write_text(text)
    found = train(footage)
    assert found.exit_code == 2 and sentence in found.output and "Traceback" not in found.output
    assert not (footage.parent / "run").exists()


def test_no_footage_is_one_sentence(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["train", tmp_path / "empty", "--out", tmp_path / "run"]
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 2 and "neither videos nor folders of images" in found.output
