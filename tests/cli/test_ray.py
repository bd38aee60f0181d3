"""``label`` and ``evaluate`` on a Ray cluster: two nodes on this machine, of which one is killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support import write_davis

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'maskring[ray]'")

if TYPE_CHECKING:
    from conftest import Workspace

pytestmark = pytest.mark.slow

FRAMES = 120
"""Of each video: more than a worker tracks between two looks at the output folder."""

VIDEOS = ("a", "b", "c", "d", "e")

STORE = 80_000_000
"""Bytes of a node's object store; no frame goes there."""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of frames in DAVIS layout, which ``label`` takes as well."""
    return write_davis(tmp_path_factory.mktemp("davis"), dict.fromkeys(VIDEOS, FRAMES))


@pytest.fixture(scope="module")
def first_masks(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    for name in VIDEOS:
        mask = footage / "Annotations" / "480p" / name / "00000.png"
        (folder / f"{name}.png").write_bytes(mask.read_bytes())
    return folder


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A head that does no work, and two nodes with a cache of their own, so that models must reach them."""
    from ray.cluster_utils import Cluster

    node = {"include_log_monitor": False, "object_store_memory": STORE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("MASKRING_CACHE", str(tmp_path / "cache of the nodes"))
        made = Cluster(
            initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(2):
            made.add_node(num_cpus=1, **node)
    yield made
    made.shutdown()


def command(*arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "maskring", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr
    return stdout


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def test_a_node_that_is_killed_costs_no_video(
    footage: Path, first_masks: Path, workspace: Workspace, cluster: Any, tmp_path: Path
) -> None:
    words = ["label", footage / "JPEGImages" / "480p", "--masks", first_masks, "--model", workspace.model]
    ends(command(*words, "--threads", 1, "--out", tmp_path / "alone"))
    out = tmp_path / "out"
    process = command(*words, "--out", out, "--ray", cluster.address)
    worker, video = stop_in_the_middle(process, out)
    (node,) = (node for node in cluster.worker_nodes if node_of(worker) in pids(node))
    cluster.remove_node(node, allow_graceful=False)
    worker.kill()
    said = ends(process)
    assert (out / video).is_dir()
    assert said.startswith(f"{len(VIDEOS)} videos, {len(VIDEOS) * FRAMES} frames"), said
    assert sorted(path.name for path in out.iterdir()) == list(VIDEOS)
    assert masks(out) == masks(tmp_path / "alone")
    for name in VIDEOS:
        assert len((out / name / "objects.jsonl").read_text().splitlines()) == FRAMES
    assert ends(command(*words, "--out", out)).startswith("0 videos, 0 frames; 5 were labelled before")
    (model,) = (tmp_path / "cache of the nodes" / "carried").glob("*/*.onnx")
    assert model.read_bytes() == workspace.model.read_bytes()


def stop_in_the_middle(process: subprocess.Popen[str], out: Path) -> tuple[psutil.Process, str]:
    """Halt a worker that is writing the labels of a video; returns it and the video's name."""
    partial = re.compile(r"\.(.+)\.([0-9]+)-[0-9a-f]{8}\.partial")
    while process.poll() is None:
        names = [path.name for path in out.iterdir() if path.is_dir()] if out.is_dir() else []
        for found in filter(None, map(partial.fullmatch, names)):
            os.kill(int(found[2]), signal.SIGSTOP)
            if (out / found[0]).is_dir():
                return psutil.Process(int(found[2])), found[1]
            os.kill(int(found[2]), signal.SIGCONT)  # it had just finished
    pytest.fail(f"no video was seen in the making: {process.communicate()}")


def node_of(worker: psutil.Process) -> int:
    """The raylet that started a worker."""
    return next(parent.pid for parent in worker.parents() if "raylet" in parent.name())


def pids(node: Any) -> list[int]:
    return [info.process.pid for infos in node.all_processes.values() for info in infos]


def test_a_cluster_finds_what_one_process_finds(footage: Path, workspace: Workspace, tmp_path: Path) -> None:
    """One that is started for the work and ends with it."""
    before = {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"}
    said = []
    for out, more in ((tmp_path / "alone", ["--threads", 1]), (tmp_path / "ray", ["--ray", "local"])):
        words = ["evaluate", "--davis", footage, "--split", "val", "--model", workspace.model, "--out", out]
        table = ends(command(*words, "--json", out / "scores.json", *more))
        said.append([line.split()[:9] for line in table.splitlines()])  # without fps
    assert said[0] == said[1]
    assert masks(tmp_path / "ray") == masks(tmp_path / "alone")
    assert not list((tmp_path / "ray").glob("*.parts"))
    after = {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"}
    assert after <= before


def test_a_gpu_that_this_machine_lacks(
    footage: Path, first_masks: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """Ray would wait for it."""
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("this machine has an NVIDIA GPU")
    words = ["label", footage / "JPEGImages" / "480p", "--masks", first_masks, "--model", workspace.model]
    process = command(*words, "--out", tmp_path / "out", "--ray", "local", "--device", "cuda")
    stderr = process.communicate(timeout=1800)[1]
    assert process.returncode == 2 and "GPU" in stderr and "--device cpu" in stderr, stderr
    assert not (tmp_path / "out").exists()
