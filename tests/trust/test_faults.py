"""kill -9, full disks, clocks that jump: runs go on, and nothing half-written counts."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from support import moving_square

from maskring.common.errors import OutputError
from maskring.runtime.video.masks import read_mask, write_mask

RECIPE = """
encoder = "nano"
steps = 12
clips = 1
frames = 2
short_side = 32
crop = 32
save_every = 1
sheet_every = 0
"""


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """A folder of frames, the mask of the first one beside it, and a recipe."""
    folder = tmp_path / "footage"
    folder.mkdir()
    for index in range(200):
        image, mask = moving_square(index % 6)
        cv2.imwrite(str(folder / f"{index:05d}.png"), image)
        if index == 0:
            write_mask(tmp_path / "mask.png", mask)
    (tmp_path / "mine.toml").write_text(RECIPE)
    return folder


def started(arguments: list[str | Path], cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "maskring", *map(str, arguments)],
        env={**os.environ, "MASKRING_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_when(process: subprocess.Popen[str], reached: Path, count: int) -> None:
    """SIGKILL as soon as a folder holds ``count`` files, or a file so many lines."""
    while True:
        if reached.is_dir() and sum(1 for _ in reached.iterdir()) >= count:
            break
        if reached.is_file() and reached.read_bytes().count(b"\n") >= count:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen[str]) -> str:
    out, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return out


def test_train_goes_on_after_kill(footage: Path, tmp_path: Path) -> None:
    from maskring.training.checkpoint import load_checkpoint

    run = tmp_path / "run"
    command = ["train", tmp_path / "mine.toml", "--data", footage, "--out", run]
    killed_when(started(command, tmp_path / "cache"), run / "log.jsonl", 3)
    finished(started(command, tmp_path / "cache"))
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    assert load_checkpoint(run / "checkpoint.safetensors").provenance.steps == 12


def test_track_starts_clean_after_kill(footage: Path, tmp_path: Path, exported: Path) -> None:
    out = tmp_path / "out"
    command = ["track", footage, "--mask", tmp_path / "mask.png", "--model", exported, "--out", out]
    killed_when(started(command, tmp_path / "cache"), out / "masks", 20)
    whole = [path for path in (out / "masks").iterdir() if not path.name.startswith(".")]
    assert 15 < len(whole) < 200
    for path in whole:
        read_mask(path, allow_empty=True)
    assert not (out / "overlay.mp4").exists()  # it is no video before it is complete
    for line in (out / "objects.jsonl").read_text().splitlines():
        json.loads(line)
    finished(started(command, tmp_path / "cache"))
    assert len(list((out / "masks").glob("[0-9]*.png"))) == 200
    assert len((out / "objects.jsonl").read_text().splitlines()) == 200


@contextmanager
def files_of_1000_bytes() -> Iterator[None]:
    """Every file is cut off there, as on a full disk. No fixture: pytest's own report may go to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_for_a_training_state(tmp_path: Path) -> None:
    """torch reports it as a RuntimeError."""
    import torch

    from maskring.training.distributed import DistributedContext
    from maskring.training.recipe import Recipe
    from maskring.training.trainer import Trainer

    trainer = Trainer(Recipe("tiny", encoder="nano"), DistributedContext(0, 1, torch.device("cpu")))
    (tmp_path / "state.pt").write_bytes(b"before")
    with files_of_1000_bytes(), pytest.raises(OutputError):
        trainer.save(tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_no_room_for_a_line_of_the_log(tmp_path: Path) -> None:
    from maskring.training.run_log import RunLog
    from maskring.training.trainer import StepReport

    journal = RunLog(tmp_path, 0, tensorboard=False)
    with files_of_1000_bytes(), pytest.raises(OutputError):
        for step in range(1, 100):
            journal.write(StepReport(step, 1.0, 0.1))
    journal.close()


WALL_CLOCK = {
    "common/files.py": "the age of files that others left",
    "src/maskring/studio/frames.py": "how long folders of frames have not been used",
    "training/frame_cache.py": "which files were used since",
}
"""Who may ask for the time of day, and for what: it can jump."""


def test_nothing_else_depends_on_the_time_of_day() -> None:
    root, found = Path(__file__).resolve().parents[2], set()
    for folder in ("src", "common", "plugins", "training", "export", "runtime"):
        for path in (root / folder).rglob("*.py"):
            if re.search(r"\btime\.time\(|\bdatetime\.(now|utcnow)\(|\.today\(", path.read_text()):
                found.add(path.relative_to(root).as_posix())
    assert found == set(WALL_CLOCK)


@pytest.mark.parametrize("jump", [-1e9, 1e9], ids=["back", "forth"])
def test_the_cache_of_frames_when_the_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """What was stored is found again, and the budget holds."""
    from maskring.training.frame_cache import FrameCache, Segment

    segments = {name: Segment((name.encode() * 1000,), (0,)) for name in "abcd"}
    size = len(segments["a"].to_bytes())
    cache = FrameCache(tmp_path, 3 * size)
    cache.store("a", segments["a"])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    later = FrameCache(tmp_path, 3 * size)
    for name in "bcd":
        later.store(name, segments[name])
        cache.load(name)
    kept = [name for name in "abcd" if later.load(name) == segments[name]]
    assert len(kept) == 3 and sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * size
