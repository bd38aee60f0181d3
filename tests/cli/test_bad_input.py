"""Everything a user can get wrong ends in one sentence on stderr, exit code 2, and nothing half-written."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from mounts import mounted_tmpfs
from support import HEIGHT, WIDTH, kept_export, moving_square, write_video
from user_errors import assert_command_error

from maskring.runtime.video.masks import write_mask

if TYPE_CHECKING:
    from conftest import Workspace


INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from maskring.__main__ import main
main()
"""


def maskring(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "maskring", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


OF_THE_BASE_INSTALL = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnxscript")))  # as if they were not installed
from maskring.__main__ import main
main()
"""


def base_maskring(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line of an installation without ``[train]``."""
    command = [sys.executable, "-c", OF_THE_BASE_INSTALL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)


def assert_one_sentence(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert_command_error(run.returncode, run.stderr, words)


def track(
    workspace: Workspace, out: Path, *extra: str | Path, **replace: Path
) -> subprocess.CompletedProcess[str]:
    source = replace.get("source", workspace.frames)
    mask = replace.get("mask", workspace.mask)
    model = replace.get("model", workspace.model)
    return maskring("track", source, "--mask", mask, "--model", model, "--out", out, *extra)


def test_no_mask(workspace: Workspace, tmp_path: Path) -> None:
    run = maskring("track", workspace.frames, "--model", workspace.model, "--out", tmp_path / "out")
    assert_one_sentence(run, "--mask")


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ("1,2,3", "X0,Y0,X1,Y1"),
        ("1,2,3,x", "X0,Y0,X1,Y1"),
        ("-1,2,30,40", "X0,Y0,X1,Y1"),
        ("10,10,9000,40", "does not lie in the frame"),
        ("30,10,10,40", "does not lie in the frame"),
        ("0,0,64,48", "no object can be cut out"),
    ],
)
def test_box_that_is_none(workspace: Workspace, tmp_path: Path, box: str, words: str) -> None:
    out = tmp_path / "out"
    arguments = ["track", workspace.frames, "--model", workspace.model, "--out", out, "--box", box]
    assert_one_sentence(maskring(*arguments), words, box)
    assert not out.exists()


@pytest.mark.parametrize(
    ("part", "words"),
    [(["--from", "6"], "it has 6 frames"), (["--from", "4", "--to", "3"], "no frame from 4 to 3")],
)
def test_part_that_is_not_there(workspace: Workspace, tmp_path: Path, part: list[str], words: str) -> None:
    assert_one_sentence(track(workspace, tmp_path / "out", *part), words)


@pytest.mark.parametrize(
    ("part", "end"), [([], 5), (["--to", "3"], 3), (["--from", "2", "--to", "9"], 5)], ids=str
)
@pytest.mark.parametrize("option", ["--add", "--remove"])
def test_edit_behind_the_last_frame(
    workspace: Workspace, tmp_path: Path, option: str, part: list[str], end: int
) -> None:
    what = workspace.mask if option == "--add" else "1"
    mask = ("--mask", workspace.mask, "--model", workspace.model, "--out", tmp_path / "out", "--no-overlay")
    edits = [option, f"{end}={what}", option, f"{end + 1}={what}"]
    run = maskring("track", workspace.frames, *mask, *part, *edits)
    assert_one_sentence(run, f"{option} {end + 1}={what}", f"frame {end},")
    reached = maskring("track", workspace.frames, *mask, *part, *edits[:2])
    assert reached.returncode == 0, reached.stderr


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_edits_of_a_video_that_claims_too_few_frames(
    workspace: Workspace, tmp_path: Path, live: list[str]
) -> None:
    clip, out = write_video(tmp_path / "clip.avi", 6, codec="MJPG"), tmp_path / "out"
    data = bytearray(clip.read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[at : at + 4] = (3).to_bytes(4, "little")
    clip.write_bytes(data)
    reached = track(workspace, out, "--remove", "5=1", *live, source=clip)
    assert reached.returncode == 0, reached.stderr
    out = tmp_path / "beyond"  # a live run may drop other frames than the first
    beyond = track(workspace, out, "--remove", "6=1", *live, source=clip)
    assert_one_sentence(beyond, "--remove 6=1", "frame 5,")
    assert " frames, " in beyond.stdout and (out / "objects.jsonl").stat().st_size


def test_object_too_small_for_the_size(workspace: Workspace, tmp_path: Path) -> None:
    mask = moving_square(0)[1]
    mask[0, 0] = 4
    write_mask(tmp_path / "speck.png", mask)
    run = track(workspace, tmp_path / "out", "--size", "16", mask=tmp_path / "speck.png")
    assert_one_sentence(run, "nothing is left of object 4", "--size")


def test_mask_missing(workspace: Workspace, tmp_path: Path) -> None:
    assert_one_sentence(track(workspace, tmp_path / "out", mask=tmp_path / "none.png"), "none.png")
    assert not (tmp_path / "out").exists()


def test_mask_empty(workspace: Workspace, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert_one_sentence(track(workspace, tmp_path / "out", mask=tmp_path / "empty.png"), "empty.png")


def test_mask_of_another_size(workspace: Workspace, tmp_path: Path) -> None:
    write_mask(tmp_path / "large.png", np.ones((HEIGHT * 2, WIDTH), np.uint8))
    run = track(workspace, tmp_path / "out", mask=tmp_path / "large.png")
    assert_one_sentence(run, f"{WIDTH}", f"{HEIGHT * 2}", f"{HEIGHT}")
    assert not (tmp_path / "out").exists()


def test_refused_runs_leave_what_was_there(workspace: Workspace, tmp_path: Path) -> None:
    write_mask(tmp_path / "large.png", np.ones((HEIGHT * 2, WIDTH), np.uint8))
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "objects.jsonl").touch()
    run = track(workspace, tmp_path / "out", mask=tmp_path / "large.png")
    assert run.returncode == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["masks", "objects.jsonl"]


def test_more_objects_than_the_model_takes(workspace: Workspace, tmp_path: Path) -> None:
    model = kept_export(workspace.checkpoint, tmp_path / "one.onnx", num_labels=2, radius=3)
    mask = moving_square(0)[1]
    mask[0:8, 0:8] = 2
    write_mask(tmp_path / "two.png", mask)
    run = track(workspace, tmp_path / "out", mask=tmp_path / "two.png", model=model)
    assert_one_sentence(run, "mask", "2", "--objects 2")


@pytest.mark.parametrize("content", [b"", b"not a video", b"\x00" * 4096])
def test_unreadable_video(workspace: Workspace, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    assert_one_sentence(track(workspace, tmp_path / "out", source=tmp_path / "clip.mp4"), "clip.mp4")


def test_missing_video(workspace: Workspace, tmp_path: Path) -> None:
    assert_one_sentence(track(workspace, tmp_path / "out", source=tmp_path / "none.mp4"), "none.mp4")


def test_folder_without_images(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_sentence(track(workspace, tmp_path / "out", source=tmp_path / "empty"), "empty")


def test_folder_of_videos(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("b10.mp4", "b9.MP4", "notes.txt"):
        (tmp_path / name).touch()
    run = track(workspace, tmp_path / "out", source=tmp_path)
    assert_one_sentence(run, "holds no image", f"for example {tmp_path / 'b9.MP4'}", "maskring label")


def test_resolution_change(workspace: Workspace, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    shutil.copytree(workspace.frames, frames)
    cv2.imwrite(str(frames / "00003.png"), np.zeros((HEIGHT, WIDTH + 8, 3), np.uint8))
    out = tmp_path / "out"
    assert_one_sentence(track(workspace, out, source=frames), "00003", f"{WIDTH + 8}")
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09" * 100])
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_model_that_is_not_ours(workspace: Workspace, tmp_path: Path, content: bytes, suffix: str) -> None:
    model = tmp_path / f"strange{suffix}"
    model.write_bytes(content)
    assert_one_sentence(track(workspace, tmp_path / "out", model=model), model.name)


def test_model_of_another_version(workspace: Workspace, tmp_path: Path) -> None:
    model = tmp_path / "future.onnx"
    model.write_bytes(re.sub(rb'"format_version": \d', b'"format_version": 9', workspace.model.read_bytes()))
    assert_one_sentence(track(workspace, tmp_path / "out", model=model), "future.onnx", "format 9")


def test_truncated_checkpoint(workspace: Workspace, tmp_path: Path) -> None:
    checkpoint = tmp_path / "cut.safetensors"
    checkpoint.write_bytes(workspace.checkpoint.read_bytes()[:-1000])
    with_torch = ("export", checkpoint, "--out", tmp_path / "cut.onnx")
    tracked = (
        "track",
        workspace.frames,
        "--mask",
        workspace.mask,
        "--model",
        checkpoint,
        "--out",
        tmp_path / "out",
    )
    for command in (with_torch, tracked):  # without torch: the file is refused before it is imported
        assert_one_sentence(base_maskring(*command), "cut.safetensors", "truncated")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.safetensors"]


@pytest.mark.parametrize(
    ("command", "suffix"), [("export", ".onnx"), ("import", ".safetensors"), ("quantize", ".onnx")]
)
@pytest.mark.parametrize("name", ["model", "model.pt"])
def test_output_that_would_not_be_taken_for_a_model(
    workspace: Workspace, tmp_path: Path, command: str, suffix: str, name: str
) -> None:
    footage = ["--calibrate", workspace.frames] if command == "quantize" else []
    run = maskring(command, workspace.checkpoint, "--out", tmp_path / name, *footage)
    assert_one_sentence(run, name, suffix, "rename")
    assert not list(tmp_path.iterdir())


def test_output_in_the_way(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert_one_sentence(track(workspace, tmp_path / "out"), "out")


def test_output_not_writable(workspace: Workspace, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_one_sentence(track(workspace, small_disk / "out"), "out", "not writable")


@pytest.mark.parametrize("command", ["train", "export", "import", "export-refiner", "verify"])
def test_what_the_base_install_cannot_do(workspace: Workspace, tmp_path: Path, command: str) -> None:
    arguments = {
        "train": ["nano", "--data", workspace.frames, "--out", tmp_path / "run"],
        "export": [workspace.checkpoint, "--out", tmp_path / "model.onnx"],
        "import": [workspace.checkpoint, "--out", tmp_path / "imported.safetensors"],
        "export-refiner": [workspace.checkpoint, "--out", tmp_path / "refiner.onnx"],
        "verify": [workspace.model, "--checkpoint", workspace.checkpoint, "--source", workspace.frames],
    }[command]
    run = base_maskring(command, *arguments)
    assert_one_sentence(run, " is not installed", "pip install 'maskring[train]'")
    assert not list(tmp_path.iterdir())


def test_the_base_install_verifies_without_the_checkpoint(workspace: Workspace) -> None:
    run = base_maskring("verify", workspace.model, "--source", workspace.frames, "--frames", "3")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("ok") == 4


def test_disk_full(workspace: Workspace, small_disk: Path) -> None:
    """What was written before the disk filled up stays valid."""
    out = small_disk / "out"
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 24 * 1024))
    run = track(workspace, out, "--no-overlay")
    assert_one_sentence(run, "no space")
    written = list((out / "masks").glob("[0-9]*.png"))
    assert written
    for mask in written:
        assert cv2.imread(str(mask)) is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    with mounted_tmpfs(tmp_path / "disk", "size=256k") as disk:
        yield disk


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["once", "twice"]
)
def test_interrupt_keeps_what_was_written(
    signals: list[signal.Signals], workspace: Workspace, tmp_path: Path
) -> None:
    """Twice at once is one request: what starts maskring may pass on what the terminal sends to all."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(2000):
        (frames / f"{index:05d}.png").symlink_to(workspace.frames / f"{index % 6:05d}.png")
    out = tmp_path / "out"
    command = ["track", frames, "--mask", workspace.mask, "--model", workspace.model, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "masks" / "00010.png").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
    for number in signals:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert stderr.strip().startswith("interrupted") and len(stderr.strip().splitlines()) == 1
    masks = sorted((out / "masks").glob("*.png"))
    assert 10 < len(masks) < 2000
    assert all(cv2.imread(str(path)) is not None for path in masks)
    assert not list(out.rglob("*partial*"))
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert video.isOpened() and video.read()[0]
