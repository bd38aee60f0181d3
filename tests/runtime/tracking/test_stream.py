"""A really exported model, tracked with both kernels, and through a long stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import export_tiny_model, moving_square

from maskring.runtime.backends import open_backend
from maskring.runtime.tracking.tracker import Tracker

TOOLS = Path(__file__).resolve().parents[2] / "tools"

STREAM = """
import gc, json, sys
from pathlib import Path
import numpy as np, psutil
from support import moving_square
from maskring.runtime.backends import open_backend
from maskring.runtime.tracking.tracker import Tracker

def usage():
    gc.collect()
    return {"rss": psutil.Process().memory_info().rss, "objects": len(gc.get_objects()),
            "blocks": sys.getallocatedblocks(), "threads": psutil.Process().num_threads(),
            "files": psutil.Process().num_fds()}

scene = [moving_square(index) for index in range(8)]
second = np.zeros_like(scene[0][1])
second[36:46, 4:20] = 2
snapshots, frames = [], 0
with Tracker(open_backend(Path(sys.argv[1]), threads=2)) as tracker:
    for index in range(3000):
        frame, truth = scene[abs(index % 14 - 7)]
        mask = truth if index == 0 else second if index % 100 == 50 else None
        result = tracker.step(frame, mask)
        frames += result.labels.shape == truth.shape
        if index % 100 == 90:
            tracker.remove(2)
        if index % 400 == 199:  # 200 frames in, and at the very end
            snapshots.append(usage())
print(json.dumps({"frames": frames, "snapshots": snapshots}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_model(tmp_path_factory.mktemp("stream"))


def test_both_kernels_track_alike(model: Path) -> None:
    """The graph cut at its memory read, around the native kernel, is the graph as it was exported."""
    trackers = [Tracker(open_backend(model, kernel=kernel)) for kernel in ("native", "function")]
    for index in range(12):
        frame, mask = moving_square(index)
        native, function = (tracker.step(frame, mask if index == 0 else None) for tracker in trackers)
        np.testing.assert_allclose(native.probabilities, function.probabilities, atol=1e-5)
    assert 0 < native.probabilities[1].max() < 1


def test_memory_is_flat_over_3000_frames(model: Path) -> None:
    """Objects come and go all the while; a process of its own, so that nothing else moves its memory."""
    stream = subprocess.run(
        [sys.executable, "-c", STREAM, str(model)],
        cwd=TOOLS,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert stream.returncode == 0, stream.stderr
    report = json.loads(stream.stdout)
    assert report["frames"] == 3000
    early, *_, last = report["snapshots"]
    assert last["rss"] - early["rss"] < 5e6
    assert last["objects"] - early["objects"] < 20
    assert last["blocks"] - early["blocks"] < 200
    assert (last["threads"], last["files"]) == (early["threads"], early["files"])
