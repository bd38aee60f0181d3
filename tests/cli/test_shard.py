"""``maskring evaluate --shard``: several real processes find what one finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import write_davis
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.runtime.evaluation.datasets import DatasetSequence
from maskring.runtime.pipeline.shard import Shard

if TYPE_CHECKING:
    from conftest import Workspace

LENGTHS = {"long": 7, "middle": 5, "short": 4}

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from maskring.__main__ import main; main()"


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short sequences, annotated throughout."""
    return write_davis(tmp_path_factory.mktemp("davis"), LENGTHS)


def start(davis: Path, model: Path, out: Path, *more: str, **variables: int) -> subprocess.Popen[str]:
    """The command in a process of its own, which has no torch."""
    known = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {name: str(value) for name, value in variables.items()}
    arguments = ["evaluate", "--davis", davis, "--split", "val", "--model", model, "--threads", "1"]
    arguments += ["--out", out, "--json", out / "scores.json", *more]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ends(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr
    return stdout


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.png"))}


def scores(out: Path) -> Any:
    """The measures without the timings."""

    def without_fps(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: without_fps(item) for key, item in value.items() if key != "fps"}

    text = (out / "scores.json").read_text()
    return json.dumps(without_fps(json.loads(text)))  # the order of the sequences counts


@pytest.fixture(scope="module")
def alone(davis: Path, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone")
    assert "all" in ends(start(davis, workspace.model, out))
    return out


def test_two_processes_find_what_one_finds(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    pair = [start(davis, workspace.model, tmp_path, "--shard", RANK=rank, WORLD_SIZE=2) for rank in (0, 1)]
    said = [ends(process) for process in pair]
    assert any("middle" in text and "all" in text for text in said), said
    assert len(masks(alone)) == sum(LENGTHS.values())
    assert masks(tmp_path) == masks(alone)
    assert scores(tmp_path) == scores(alone)
    assert not list(tmp_path.glob("*.parts"))


def test_the_last_one_writes_the_measures(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Whichever it is, and not with results that a run with other settings left."""
    ends(start(davis, workspace.model, tmp_path, "--shard", "--kernel", "function", RANK=0, WORLD_SIZE=2))
    said = ends(start(davis, workspace.model, tmp_path, "--shard", RANK=1, WORLD_SIZE=2))
    assert said.startswith("shard 2 of 2 is done")
    assert not (tmp_path / "scores.json").exists()
    done = ends(start(davis, workspace.model, tmp_path, "--shard", RANK=0, WORLD_SIZE=2))
    assert "all" in done
    assert masks(tmp_path) == masks(alone) and scores(tmp_path) == scores(alone)


def test_more_processes_than_sequences(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    for rank in (3, 2, 0, 1):
        ends(start(davis, workspace.model, tmp_path, "--shard", RANK=rank, WORLD_SIZE=4))
    assert masks(tmp_path) == masks(alone) and scores(tmp_path) == scores(alone)


def test_an_interrupted_process_goes_on_where_it_stopped(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Of two processes, one finished; a single one then tracks only what is missing."""
    ends(start(davis, workspace.model, tmp_path, "--shard", RANK=0, WORLD_SIZE=2))
    finished = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/*.png"))}
    assert 0 < len(finished) < sum(LENGTHS.values())
    ends(start(davis, workspace.model, tmp_path, "--shard", RANK=0, WORLD_SIZE=1))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert masks(tmp_path) == masks(alone) and scores(tmp_path) == scores(alone)


def test_a_sequence_whose_masks_are_gone_is_tracked_again(
    davis: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    ends(start(davis, workspace.model, tmp_path, "--shard", RANK=0, WORLD_SIZE=2))
    (tmp_path / "long" / "00003.png").unlink()
    ends(start(davis, workspace.model, tmp_path, "--shard", RANK=0, WORLD_SIZE=1))
    assert masks(tmp_path) == masks(alone)


def test_footage_that_changed_is_not_mixed(davis: Path, workspace: Workspace, tmp_path: Path) -> None:
    root, out = tmp_path / "davis", tmp_path / "out"
    shutil.copytree(davis, root)
    ends(start(root, workspace.model, out, "--shard", RANK=0, WORLD_SIZE=2))
    os.utime(root / "JPEGImages" / "480p" / "long" / "00003.jpg", (1, 1))
    assert "shard 2 of 2 is done" in ends(start(root, workspace.model, out, "--shard", RANK=1, WORLD_SIZE=2))


def test_without_a_launcher(davis: Path, workspace: Workspace, tmp_path: Path) -> None:
    process = start(davis, workspace.model, tmp_path / "out", "--shard")
    _, stderr = process.communicate(timeout=1800)
    assert process.returncode == 2
    assert stderr.startswith("error: --shard finds no RANK and WORLD_SIZE in its environment; start it with")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "two"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"},
    ],
)
def test_environments_that_make_no_sense(variables: dict[str, str]) -> None:
    with raises_user_error(UnavailableError, mentions=("RANK=", "torchrun")):
        Shard.of_environment(variables)


def test_shares_are_whole_and_even() -> None:
    sequences = [DatasetSequence(str(n), (Path("f"),) * (n % 7 + 1), {0: Path("m")}) for n in range(23)]
    shares = [Shard(rank, 4).deal(sequences, lambda item: (len(item.frames), item.name)) for rank in range(4)]
    assert sorted(s.name for share in shares for s in share) == sorted(s.name for s in sequences)
    frames = [sum(len(s.frames) for s in share) for share in shares]
    assert max(frames) - min(frames) <= 7


def test_the_processes_of_a_machine_share_it(tmp_path: Path) -> None:
    shard = Shard(5, 8, local_rank=1, local_world_size=4)
    assert shard.threads(16) == 4 and shard.threads(2) == 1
    assert shard.gpu(None, tmp_path / "none") is None
    (tmp_path / "0000:01:00.0").mkdir()
    assert shard.gpu(None, tmp_path) == "0"
    (tmp_path / "0000:02:00.0").mkdir()
    assert shard.gpu(None, tmp_path) == "1"
    assert shard.gpu("3, GPU-5a", tmp_path) == "GPU-5a"
    assert shard.gpu("", tmp_path) == "", "no GPU for anybody"
