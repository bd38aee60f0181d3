"""``maskring train``: from footage to a checkpoint, resumed by the same command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import moving_square, write_frames
from typer.testing import CliRunner, Result

from maskring.cli import app
from maskring.commands.progress import StepMeter
from maskring.common.interrupts import stop_request
from maskring.training.checkpoint import load_checkpoint
from maskring.training.run_log import RunLog
from maskring.training.trainer import StepReport

RECIPE = """
encoder = "nano"
steps = 2
clips = 1
frames = 2
short_side = 32
crop = 32
"""


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return write_frames(tmp_path / name / "clip", 6).parent

    return make


@pytest.fixture
def footage(tmp_path: Path, make_clip: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.toml").write_text(RECIPE)
    return make_clip("footage")


def train(footage: Path, *extra: str) -> Result:
    tmp_path = footage.parent
    arguments = ["train", tmp_path / "mine.toml", "--data", footage, "--out", tmp_path / "run", *extra]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_half_of_the_pairs_show_photographs_of_the_named_folder(footage: Path) -> None:
    recipe = footage.parent / "mine.toml"
    recipe.write_text(RECIPE + "pairs = 1\npair_places = 8\n")
    absent = train(footage, "--stills", str(footage.parent / "absent"))
    assert absent.exit_code == 2 and "--stills" in absent.output
    result = train(footage, "--stills", str(footage))
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(footage.parent / "run" / "checkpoint.safetensors")
    assert checkpoint.provenance.data == "1 unlabelled clips in footage and 6 photographs"


def test_footage_becomes_a_checkpoint(footage: Path) -> None:
    first = train(footage, "--max-minutes", "0")
    assert first.exit_code == 0, first.output
    assert "step 1 of 2, 0 clips skipped" in first.output
    assert "run the same command again" in first.output
    second = train(footage)
    assert second.exit_code == 0 and "step 2 of 2" in second.output and "again" not in second.output
    assert load_checkpoint(footage.parent / "run" / "checkpoint.safetensors").provenance.steps == 2


def test_training_goes_on_from_a_shipped_checkpoint(footage: Path) -> None:
    (footage.parent / "mine.toml").write_text(RECIPE.replace('"nano"', '"nano-patch"'))
    done = train(footage, "--start", "nano", "--max-minutes", "0")
    assert done.exit_code == 0, done.output
    data = load_checkpoint(footage.parent / "run" / "checkpoint.safetensors").provenance.data
    assert "; before: nano, 2300 steps, " in data


def test_a_start_that_does_not_fit_is_one_sentence(footage: Path) -> None:
    for start, words in (("nano", "holds another encoder"), ("none", "the model none does not exist")):
        found = train(footage, "--start", start)
        assert found.exit_code == 2 and words in found.stderr and len(found.stderr.splitlines()) == 1
    assert not (footage.parent / "run" / "checkpoint.safetensors").exists()


def test_skipped_clips_are_named(footage: Path) -> None:
    broken = footage / "broken.mp4"
    broken.write_bytes(b"nothing")
    Path(footage.parent / "mine.toml").write_text(RECIPE.replace("clips = 1", "clips = 6"))
    found = train(footage)
    assert found.exit_code == 0, found.output
    assert f"skipped {broken}: " in found.output and "1 clips skipped" in found.output


def test_skipped_photographs_are_named_in_one_line(footage: Path) -> None:
    (footage.parent / "mine.toml").write_text(RECIPE + "pairs = 4\npair_places = 8\n")
    stills = footage.parent / "stills"
    shutil.copytree(footage, stills)
    for index in range(30):
        (stills / f"broken{index}.png").write_bytes(b"nothing")
    done = train(footage, "--stills", str(stills))
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if str(stills) in line]
    count = int(re.findall(r"[0-9]+", line)[0])
    assert 4 < count <= 30 and 0 < line.count("broken") <= 3 and f"{count - 3} more" in line


def test_only_maskring_speaks_of_damaged_videos(footage: Path) -> None:
    """In a process of its own: FFmpeg reads once how much it may say, and says it past Python."""
    (footage.parent / "mine.toml").write_text(RECIPE.replace("clips = 1", "clips = 6"))
    (footage / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(5000))
    arguments = ["train", footage.parent / "mine.toml", "--data", footage, "--out", footage.parent / "run"]
    command = [sys.executable, "-m", "maskring", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"skipped {footage / 'cut.mp4'}: ")


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
    arguments = ["train", "nano", "--data", tmp_path / "empty", "--out", tmp_path / "run"]
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 2 and "neither videos nor folders of images" in found.output


def test_data_is_any_number_of_paths(footage: Path, make_clip: Callable[[str], Path]) -> None:
    second, third = make_clip("second"), make_clip("third")
    done = train(footage, str(second), "--data", str(third), "--max-minutes", "0")
    assert done.exit_code == 0, done.output
    data = load_checkpoint(footage.parent / "run" / "checkpoint.safetensors").provenance.data
    assert data.startswith("3 unlabelled clips in ") and {"footage", "second", "third"} <= set(
        data.replace(",", "").split()
    )


def test_interrupt_saves_the_state(footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (footage.parent / "mine.toml").write_text(RECIPE.replace("steps = 2", "steps = 9"))
    written = RunLog.write

    def interrupted(journal: RunLog, done: StepReport) -> None:
        written(journal, done)
        if done.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunLog, "write", interrupted)
    before = signal.getsignal(signal.SIGINT)
    stopped = train(footage)
    assert stopped.exit_code == 130 and signal.getsignal(signal.SIGINT) is before
    assert "stopping after this step" in stopped.output and "step 3 of 9" in stopped.output
    assert "run the same command again" in stopped.output
    assert load_checkpoint(footage.parent / "run" / "checkpoint.safetensors").provenance.steps == 3
    assert "step 9 of 9" in train(footage).output


def test_second_interrupt_does_not_wait() -> None:
    with stop_request() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_validation_is_scored_and_logged(footage: Path, tmp_path: Path) -> None:
    for index in range(4):
        image, mask = moving_square(index)
        for kind, content in (("JPEGImages", image[..., ::-1]), ("Annotations", 255 * (mask > 0))):
            folder = tmp_path / "davis" / kind / "480p" / "square"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index:05d}.png"), content.astype(np.uint8))
    done = train(footage, "--validate", str(tmp_path / "davis"))
    assert done.exit_code == 0, done.output
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[0]["score"] is None and 0 < log[1]["score"] <= 100


def test_unlabelled_validation_is_refused_before_training(footage: Path) -> None:
    refused = train(footage, "--validate", str(footage))
    assert refused.exit_code == 2
    assert str(footage) in refused.output and "JPEGImages" in refused.output
    assert not (footage.parent / "run").exists()


def test_progress_says_rate_loss_score_skipped_and_time_left() -> None:
    meter = StepMeter(steps=100, minutes=1)
    assert meter.text(StepReport(10, 0.5, 1e-3, frames=24, seconds=2.0)) == "loss 0.5000"
    text = meter.text(StepReport(11, 0.3, 1e-3, frames=24, seconds=4.0, skipped=2, score=61.24))
    assert text == "12.0 frames/s, loss 0.4000, 0:00:56 left, score 61.2, 2 clips skipped"
    assert "0:02:58 left" in _two_reports(StepMeter(steps=100, minutes=None))


def _two_reports(meter: StepMeter) -> str:
    meter.text(StepReport(10, 0.5, 1e-3, frames=24, seconds=2.0))
    return meter.text(StepReport(11, 0.3, 1e-3, frames=24, seconds=4.0))


def test_waiting_threads_sleep() -> None:
    """Set before torch is loaded, or it has no effect."""
    program = (
        "import os, sys\n"
        "from typer.testing import CliRunner\n"
        "import maskring.cli as cli\n"
        "assert 'torch' not in sys.modules\n"
        "seen = []\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': seen.append(os.environ.get('OMP_WAIT_POLICY')); raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "CliRunner().invoke(cli.app, ['train', 'nano', '--data', 'x', '--out', 'y'])\n"
        "print(seen)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.stdout.strip() == "['passive']", done.stderr
