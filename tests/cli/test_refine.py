"""Refinement on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from maskring.cli import app
from maskring.runtime.refinement import offline, worker
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.video.masks import read_mask

if TYPE_CHECKING:
    from conftest import Workspace

QUICK = ("--refine-size", "32", "--refine-iterations", "2")


def track(workspace: Workspace, out: Path, *more: str | Path) -> Result:
    command = ["track", workspace.frames, "--mask", workspace.mask, "--out", out, "--model", workspace.model]
    return CliRunner().invoke(app, [str(part) for part in (*command, *more)])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_offline_writes_both_passes_and_a_comparison(workspace: Workspace, tmp_path: Path) -> None:
    refiner = tmp_path / "refiner.safetensors"
    done = track(workspace, tmp_path / "out", "--refine", "offline", *QUICK, "--save-refiner", refiner)
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison.mp4", "masks", "objects.jsonl", "overlay.mp4", "propagated"]
    for folder in ("out", "out/propagated"):
        assert len(list((tmp_path / folder / "masks").iterdir())) == 6
        assert len(lines(tmp_path / folder / "objects.jsonl")) == 6
    assert "kept" in lines(tmp_path / "out" / "objects.jsonl")[3]
    assert "kept" not in lines(tmp_path / "out" / "propagated" / "objects.jsonl")[3]

    exported = CliRunner().invoke(
        app, ["export-refiner", str(refiner), "--out", str(tmp_path / "r.onnx"), "--size", "32"]
    )
    assert exported.exit_code == 0, exported.output
    session = onnxruntime.InferenceSession(tmp_path / "r.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == [1, 2, 32, 32]
    again = track(workspace, tmp_path / "again", "--refine", "offline", *QUICK, "--refiner", refiner)
    assert again.exit_code == 0, again.output


def test_online_refines_within_the_frame_when_asked(workspace: Workspace, tmp_path: Path) -> None:
    options = ("--refine", "online", "--refine-size", "32", "--refine-steps", "1", "--refine-feedback")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        done = track(workspace, out, *options)
        assert done.exit_code == 0, done.output
    for index in range(6):
        one, two = (read_mask(out / "masks" / f"{index:05d}.png", allow_empty=True) for out in outs)
        np.testing.assert_array_equal(one, two)
    assert lines(outs[0] / "objects.jsonl")[0]["kept"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--refine-steps", "2"], "--refine-steps does nothing with --refine off; add --refine online"),
        (["--refine-size", "64"], "--refine-size does nothing with --refine off; add --refine offline or"),
        (
            ["--refine", "offline", "--refine-feedback"],
            "--refine-feedback does nothing with --refine offline",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(
    workspace: Workspace, tmp_path: Path, options: list[str], words: str
) -> None:
    done = track(workspace, tmp_path / "out", *options)
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupted_adaptation_leaves_the_propagated_masks(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(offline.OfflineRefiner, "adapt", interrupted)
    done = track(workspace, tmp_path / "out", "--refine", "offline", *QUICK)
    assert done.exit_code == 130
    assert len(list((tmp_path / "out" / "propagated" / "masks").iterdir())) == 6
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["propagated"]


def test_a_worker_that_died_without_being_missed(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream so short that it is over before: the masks are there, and so is the word on them."""

    def stillborn(settings: RefinementSettings, predictor: object) -> worker.ProcessWorker:
        dying = worker.ProcessWorker(settings)
        dying.process.kill()
        return dying

    monkeypatch.setattr(worker, "new_worker", stillborn)
    monkeypatch.setattr(worker.ProcessWorker, "newest", lambda self: None)
    done = track(workspace, tmp_path / "out", "--refine", "online", "--live", "--refine-size", "32")
    assert done.exit_code == 2 and "the U-Net has died (exit code -9)" in done.stderr
    assert not done.stdout and len(lines(tmp_path / "out" / "objects.jsonl")) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--refine", "offline", "--live"), "cannot be seen twice"),
        (("--save-refiner", "x.safetensors"), "no refiner to save"),
        (("--refine", "offline", "--refiner", "missing"), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said(
    workspace: Workspace, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = track(workspace, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
