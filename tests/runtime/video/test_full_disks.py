"""Sinks on a full disk or under a quota: what was written stays valid."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mounts import mounted_tmpfs
from sink_scene import frame_at, names_in, pictures_in, records, result_of, write
from user_errors import raises_user_error

from maskring.common.errors import OutputError
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.masks import read_mask
from maskring.runtime.video.overlay_video import DISK_MARGIN, OverlayVideoSink
from maskring.runtime.video.sinks import JsonLinesSink, MaskFolderSink


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with one megabyte beyond the margin that videos keep."""
    with mounted_tmpfs(tmp_path / "disk", f"size={DISK_MARGIN + (1 << 20)}") as disk:
        yield disk


def fill(disk: Path, leave: int) -> None:
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


def test_full_disk_masks(small_disk: Path) -> None:
    with MaskFolderSink(small_disk / "masks") as sink:
        fill(small_disk, 64 << 10)
        with raises_user_error(OutputError, mentions=(small_disk / "masks", "space")):
            write(sink, *range(60))
    names = names_in(small_disk / "masks")
    assert 0 < len(names) < 60
    for index, name in enumerate(names):
        labels = read_mask(small_disk / "masks" / name)
        assert np.array_equal(labels, result_of(frame_at(index)).labels)


def test_full_disk_json_lines(small_disk: Path) -> None:
    with JsonLinesSink(small_disk / "objects.jsonl") as sink:
        fill(small_disk, 4 << 10)
        with raises_user_error(OutputError, mentions=("objects.jsonl", "space")):
            write(sink, *range(60))
    written = [record["index"] for record in records(small_disk / "objects.jsonl")]
    assert written == list(range(len(written))) and 0 < len(written) < 60


def test_full_disk_overlay_video(small_disk: Path) -> None:
    path = small_disk / "overlay.mp4"
    noise = np.random.default_rng(0)
    count = 0
    with raises_user_error(OutputError, mentions=(path, "space")), OverlayVideoSink(path, 25) as sink:
        for index in range(500):
            image = noise.integers(0, 256, (240, 320, 3), dtype=np.uint8)
            frame = Frame(image, index, index / 25, str(index))
            sink.write(frame, result_of(frame_at(0, 240, 320)))
            count += 1
    assert 0 < count < 500 and len(pictures_in(path)) == count
    assert names_in(small_disk) == ["overlay.mp4"]


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.append(sys.argv[3])
from sink_scene import write
from maskring.common.errors import OutputError
from maskring.runtime.video.overlay_video import OverlayVideoSink
from maskring.runtime.video.sinks import JsonLinesSink
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
path = Path(sys.argv[1])
kind = JsonLinesSink if path.suffix == ".jsonl" else lambda path: OverlayVideoSink(path, 25)
try:
    with kind(path) as sink:
        write(sink, *range(200))
except OutputError as error:
    print(error)
"""


def under_a_limit(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Write 200 frames in a process whose files may not grow beyond ``limit`` bytes, as under a quota."""
    tools = Path(__file__).parents[2] / "tools"
    command = [sys.executable, "-c", LIMITED, path, str(limit), tools]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_quota_json_lines(tmp_path: Path) -> None:
    run = under_a_limit(tmp_path / "objects.jsonl", 5000)
    assert "objects.jsonl cannot be written (File too large)" in run.stdout
    written = [record["index"] for record in records(tmp_path / "objects.jsonl")]
    assert written == list(range(len(written))) and 0 < len(written) < 200


def test_quota_overlay_video(tmp_path: Path) -> None:
    """A video that does not play is never left as a result."""
    run = under_a_limit(tmp_path / "overlay.mp4", 4000)
    assert "overlay.mp4 cannot be written (File too large); free some space" in run.stdout
    assert names_in(tmp_path) == [] and run.stderr == ""
