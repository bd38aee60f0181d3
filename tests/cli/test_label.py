"""``maskring label``: many videos, by one process and by several."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import moving_square, write_frames, write_video
from typer.testing import CliRunner, Result
from user_errors import assert_command_error, raises_user_error

from maskring.cli import app
from maskring.common.errors import UnavailableError
from maskring.runtime.pipeline import ray_cluster
from maskring.runtime.pipeline.label_many import _appears_complete
from maskring.runtime.video.masks import write_mask

if TYPE_CHECKING:
    from conftest import Workspace

LENGTHS = {"long": 7, "middle": 5, "short": 3}

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from maskring.__main__ import main; main()"


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, a folder of frames below another folder, and ``masks`` beside them."""
    root = tmp_path_factory.mktemp("footage")
    for start, (name, length) in enumerate(LENGTHS.items()):
        if name == "short":
            write_frames(root / "more" / name, length, first=start)
        else:
            write_video(root / f"{name}.avi", length, first=start, codec="MJPG")
        (root / "masks").mkdir(exist_ok=True)
        write_mask(root / "masks" / f"{name}.png", moving_square(start)[1])
    return root


def arguments(footage: Path, model: Path, out: Path, *more: str) -> list[str]:
    options = ["--masks", footage / "masks", "--out", out, "--model", model, "--threads", "1", *more]
    return ["label", *map(str, [footage, *options])]


def label(footage: Path, model: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, arguments(footage, model, out, *more))


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


@pytest.fixture(scope="module")
def alone(footage: Path, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone")
    done = label(footage, workspace.model, out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"3 videos, {sum(LENGTHS.values())} frames, ")
    return out


def test_each_video_gets_a_folder(footage: Path, workspace: Workspace, alone: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in alone.iterdir()) == sorted(LENGTHS)
    for name, length in LENGTHS.items():
        assert len(list((alone / name / "masks").iterdir())) == length
        assert len((alone / name / "objects.jsonl").read_text().splitlines()) == length
    one = ["track", footage / "long.avi", "--mask", footage / "masks" / "long.png", "--out", tmp_path]
    tracked = CliRunner().invoke(app, [*map(str, one), "--no-overlay", "--model", str(workspace.model)])
    assert tracked.exit_code == 0, tracked.output
    assert masks(tmp_path) == masks(alone / "long")


def test_two_processes_label_what_one_does(
    footage: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Real ones, without torch; their progress goes to a log, which is no terminal."""
    more = arguments(footage, workspace.model, tmp_path, "--processes", "2")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *more], check=True, capture_output=True, text=True, timeout=1800
    )
    assert done.stdout.startswith(f"3 videos, {sum(LENGTHS.values())} frames, ")
    assert "videos: 1 of 3" in done.stderr and "left" in done.stderr
    assert masks(tmp_path) == masks(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(LENGTHS)


@pytest.mark.parametrize("address", ["there", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there(
    address: str, footage: Path, workspace: Workspace, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'maskring[ray]'")
    done = label(footage, workspace.model, tmp_path / "out", "--ray", address)
    assert_command_error(done.exit_code, done.stderr, [address, "ray start"])
    assert not (tmp_path / "out").exists()


def test_a_ray_that_does_not_start_here() -> None:
    """As on a machine that other programs keep busy."""

    class Ray:
        def init(self, address: str, **settings: Any) -> None:
            raise Exception("The current node timed out during startup.")

    with raises_user_error(UnavailableError, ("timed out during startup", "--processes"), ("ray start",)):
        ray_cluster._connect(Ray(), ray_cluster.LOCAL)


def test_object_storage_gets_a_zip_for_each_video(
    footage: Path, workspace: Workspace, alone: Path, tmp_path: Path
) -> None:
    """Files by address stand for it: fsspec reads them by the same calls."""
    pytest.importorskip("fsspec", reason="needs the extra: pip install 'maskring[ray]'")
    shutil.copytree(footage, tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "more")
    (tmp_path / "out").mkdir()
    place = f"file://{tmp_path}"
    words = ["label", f"{place}/in", "--masks", f"{place}/in/masks", "--out", f"{place}/out"]
    words += ["--model", str(workspace.model), "--threads", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and done.stdout.startswith("2 videos, 12 frames"), done.output
    assert "short.png belongs to none" in done.stderr
    for name in ("long", "middle"):
        with zipfile.ZipFile(tmp_path / "out" / f"{name}.zip") as archive:
            archive.extractall(tmp_path / "unpacked" / name)
        lines = (tmp_path / "unpacked" / name / "objects.jsonl").read_text().splitlines()
        assert len(lines) == LENGTHS[name]
    expected = {name: data for name, data in masks(alone).items() if not name.startswith("short")}
    assert masks(tmp_path / "unpacked") == expected

    (tmp_path / "out" / "middle.zip").unlink()
    again = CliRunner().invoke(app, [*words, "--processes", "2"])
    assert again.exit_code == 0 and again.stdout.startswith("1 videos, 5 frames"), again.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["long.zip", "middle.zip"]


def test_storage_that_cannot_be_read(footage: Path, workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra: pip install 'maskring[ray]'")
    more = ["--masks", str(footage / "masks"), "--out", str(tmp_path / "out")]
    unknown = CliRunner().invoke(app, ["label", "nowhere://bucket/videos", *more])
    assert_command_error(unknown.exit_code, unknown.stderr, ["nowhere://", "s3://"])
    nothing = CliRunner().invoke(app, ["label", f"file://{tmp_path}/missing", *more])
    assert_command_error(nothing.exit_code, nothing.stderr, [f"file://{tmp_path}/missing", "folder"])


def test_the_first_to_finish_a_video_gives_its_folder_the_name(tmp_path: Path) -> None:
    """A node that lost its connection may finish a video after the one that took over."""
    with _appears_complete(tmp_path / "clip") as slow:
        slow.mkdir()
        (slow / "objects.jsonl").write_text("slow")
        with _appears_complete(tmp_path / "clip") as fast:
            fast.mkdir()
            (fast / "objects.jsonl").write_text("fast")
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]
    assert (tmp_path / "clip" / "objects.jsonl").read_text() == "fast"


def test_an_interrupted_run_goes_on(footage: Path, workspace: Workspace, alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone / "long", tmp_path / "long")
    left = tmp_path / ".short.partial" / "masks"
    left.mkdir(parents=True)
    (left / "old.png").touch()
    kept = (tmp_path / "long" / "objects.jsonl").stat().st_mtime_ns
    done = label(footage, workspace.model, tmp_path)
    assert done.exit_code == 0 and "2 videos, 8 frames" in done.output, done.output
    assert "; 1 were labelled before; labels in" in done.output
    assert masks(tmp_path) == masks(alone) and not left.exists()
    assert (tmp_path / "long" / "objects.jsonl").stat().st_mtime_ns == kept
    again = label(footage, workspace.model, tmp_path)
    assert again.exit_code == 0 and again.output.startswith("0 videos, 0 frames; 3 were"), again.output


def test_what_cannot_be_labelled_is_named_and_keeps_nothing_back(
    footage: Path, workspace: Workspace, tmp_path: Path
) -> None:
    source = tmp_path / "footage"
    shutil.copytree(footage, source)
    (source / "middle.avi").write_bytes(b"no video")
    write_mask(source / "masks" / "short.png", np.ones((8, 8), np.uint8))
    done = label(source, workspace.model, tmp_path / "out")
    assert done.exit_code == 2 and done.stdout.startswith("1 videos, 7 frames")
    reasons = sorted(done.stderr.splitlines())
    assert len(reasons) == 2, reasons
    assert f"{source / 'middle.avi'} was not labelled: " in reasons[0]
    assert f"{source / 'more' / 'short'} was not labelled: " in reasons[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["long"]


def test_where_nothing_can_be_labelled_no_folder_is_left(
    footage: Path, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "long.avi").write_bytes(b"no video")
    videos = ["label", tmp_path / "long.avi", "--masks", footage / "masks", "--model", workspace.model]
    done = CliRunner().invoke(app, [*map(str, videos), "--out", str(tmp_path / "labels" / "new")])
    assert done.exit_code == 2 and done.stdout == "0 videos, 0 frames\n"
    assert [path.name for path in tmp_path.iterdir()] == ["long.avi"]


def test_a_folder_of_masks_that_is_not_there(footage: Path, workspace: Workspace, tmp_path: Path) -> None:
    words = ["label", str(footage), "--masks", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--model", str(workspace.model)])
    assert_command_error(done.exit_code, done.stderr, (tmp_path / "none", "does not exist", "path"))
    assert not (tmp_path / "out").exists()


def test_refusals_come_before_any_work(footage: Path, workspace: Workspace, tmp_path: Path) -> None:
    source, out = tmp_path / "footage", tmp_path / "out"
    shutil.copytree(footage, source)
    (source / "masks" / "long.png").unlink()
    done = label(source, workspace.model, out)
    assert_command_error(done.exit_code, done.stderr, [source / "masks", source / "long.avi", "PNG"])
    shutil.copy(source / "long.avi", source / "more" / "middle.avi")
    done = label(source, workspace.model, out)
    assert_command_error(done.exit_code, done.stderr, ["middle.avi", "rename"])
    nothing = label(source / "masks", workspace.model, out, "--masks", str(source / "masks"))
    assert_command_error(nothing.exit_code, nothing.stderr, [source / "masks", "folder"])
    both = label(footage, workspace.model, out, "--processes", "2", "--ray", "local")
    assert_command_error(both.exit_code, both.stderr, ["--processes", "--ray"])
    assert not out.exists()
