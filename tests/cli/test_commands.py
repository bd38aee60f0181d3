"""The commands on good input, in this process: what they print, what they write, how they exit."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from pixel_model import write_pixel_model
from support import HEIGHT, WIDTH, kept_exports, moving_square
from typer.testing import CliRunner, Result

import maskring
from maskring.cli import app
from maskring.commands import console
from maskring.demo import clip as demo_clip
from maskring.demo.contact_sheet import TILE_WIDTH
from maskring.runtime.video import synthetic
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.training.network.encoder import Encoder, EncoderConfig

if TYPE_CHECKING:
    from conftest import Workspace


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_version() -> None:
    assert run("--version").stdout.strip() == f"maskring {maskring.__version__}"


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("demo", "train", "import", "export", "verify", "track", "label", "evaluate", "doctor"):
        assert command in text


def test_track_writes_masks_video_and_objects(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("track", workspace.frames, "--mask", workspace.mask, "--model", workspace.model, "--out", out)
    assert done.exit_code == 0, done.output
    assert re.match(r"6 frames, [\d.]+ fps; results in", done.stdout)
    masks = sorted((out / "masks").iterdir())
    assert [path.name for path in masks] == [f"{index:05d}.png" for index in range(6)]
    np.testing.assert_array_equal(read_mask(masks[0]), moving_square(0)[1])
    lines = [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(6))
    assert lines[0]["objects"][0]["area"] == 256
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert video.read()[1].shape == (HEIGHT, WIDTH, 3)


def test_objects_come_and_go(workspace: Workspace, tmp_path: Path) -> None:
    second = np.zeros((HEIGHT, WIDTH), np.uint8)
    second[4:12, 40:60] = 7
    write_mask(tmp_path / "second.png", second)
    out = tmp_path / "out"
    edits = ["--add", f"2={tmp_path / 'second.png'}", "--remove", "4=1", "--no-overlay"]
    done = run(
        "track", workspace.frames, "--mask", workspace.mask, "--model", workspace.model, "--out", out, *edits
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]
    followed = [[state["id"] for state in line["objects"]] for line in lines]
    assert followed == [[1], [1], [1, 7], [1, 7], [7], [7]]
    assert not (out / "overlay.mp4").exists()


def test_of_several_masks_for_a_frame_none_is_lost(workspace: Workspace, tmp_path: Path) -> None:
    for number, left in ((7, 40), (8, 50)):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[4:12, left : left + 14] = number
        write_mask(tmp_path / f"{number}.png", mask)
    out = tmp_path / "out"
    added = ["--add", f"0={tmp_path / '7.png'}", "--add", f"0={tmp_path / '8.png'}", "--to", "0"]
    done = run(
        "track", workspace.frames, "--mask", workspace.mask, "--model", workspace.model, "--out", out, *added
    )
    assert done.exit_code == 0, done.output
    (line,) = followed_in(out)
    assert [(state["id"], state["area"]) for state in line["objects"]] == [(1, 256), (7, 80), (8, 112)]


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (0, 0, 0)]


@pytest.fixture
def vanishing(tmp_path: Path) -> Path:
    """A folder with ``frames``, five of them, ``mask.png`` and ``pixel.onnx``.

    Seven bars are in view. From frame 2 on that of object 1 is gone, from frame 3 on there is only object 7.
    """
    (tmp_path / "frames").mkdir()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id in range(1, 8):
        mask[:, 8 * object_id - 4 : 8 * object_id] = object_id
    write_mask(tmp_path / "mask.png", mask)
    for index in range(5):
        image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        for object_id, colour in enumerate(COLOURS, start=1):
            if object_id == 7 or index < (2 if object_id == 1 else 3):
                image[mask == object_id] = colour
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), image)
    write_pixel_model(tmp_path / "pixel.onnx")
    return tmp_path


def track_vanishing(folder: Path, *more: str) -> list[str]:
    """Lines below the first one that ``track`` prints."""
    arguments = ["--mask", folder / "mask.png", "--model", folder / "pixel.onnx", "--out", folder / "out"]
    done = run("track", folder / "frames", *arguments, *more)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()[1:]


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_lost_objects_are_named_in_the_end(vanishing: Path, live: list[str]) -> None:
    removed = [text for object_id in (3, 4, 5, 6) for text in ("--remove", f"3={object_id}")]
    lost = track_vanishing(vanishing, *live, *removed)
    if not live:  # which drops frames
        assert lost == ["object 1 was last seen in frame 1", "object 2 was last seen in frame 2"]
    assert [line.partition(" was last seen in frame ")[0] for line in lost] == ["object 1", "object 2"]
    assert track_vanishing(vanishing, *live, "--to", "0") == []


def test_of_many_lost_objects_a_few_are_named(vanishing: Path) -> None:
    told = track_vanishing(vanishing)
    assert told[-2:] == ["object 5 was last seen in frame 2", "and 1 more"] and len(told) == 6


def test_lost_objects_of_many_videos_are_named_with_their_video(vanishing: Path) -> None:
    (vanishing / "masks").mkdir()
    (vanishing / "mask.png").rename(vanishing / "masks" / "frames.png")
    arguments = ["--masks", vanishing / "masks", "--model", vanishing / "pixel.onnx"]
    done = run("label", vanishing / "frames", *arguments, "--out", vanishing / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1] == f"{vanishing / 'frames'}: object 1 was last seen in frame 1"


def followed_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]


def test_a_box_is_enough(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("track", workspace.frames, "--box", "6,10,36,40", "--model", workspace.model, "--out", out)
    assert done.exit_code == 0, done.output
    first = read_mask(out / "masks" / "00000.png") == 1
    truth = moving_square(0)[1] == 1
    assert (first & truth).sum() / (first | truth).sum() > 0.95
    assert len(followed_in(out)) == 6


def test_a_part_of_the_video_at_a_smaller_size(workspace: Workspace, tmp_path: Path) -> None:
    out, mask = tmp_path / "out", tmp_path / "third.png"
    write_mask(mask, moving_square(2)[1])
    part = ["--from", "2", "--to", "4", "--size", "24"]
    done = run("track", workspace.frames, "--mask", mask, "--model", workspace.model, "--out", out, *part)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("3 frames")
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["00002.png", "00003.png", "00004.png"]
    np.testing.assert_array_equal(read_mask(out / "masks" / "00002.png"), moving_square(2)[1])
    last = followed_in(out)[-1]
    assert last["index"] == 4
    labels = read_mask(out / "masks" / "00004.png", allow_empty=True)
    assert labels.shape == (HEIGHT, WIDTH) and last["objects"][0]["area"] == (labels == 1).sum()


def test_masks_of_earlier_runs_are_left_and_named(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = ["track", workspace.frames, "--mask", workspace.mask, "--model", workspace.model, "--out", out]
    assert run(*whole).stderr == ""
    assert run(*whole).stderr == ""
    again = run(*whole, "--to", "1")
    assert again.exit_code == 0
    assert f"{out / 'masks'} also holds 4 masks of earlier runs" in again.stderr


def test_a_checkpoint_is_exported_to_the_cache_first(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    arguments = ["--mask", workspace.mask, "--model", workspace.checkpoint, "--out", tmp_path / "out"]
    with kept_exports():
        assert run("track", workspace.frames, *arguments).exit_code == 0
    (exported,) = (tmp_path / "cache").glob("tiny-*.onnx")
    stamp = exported.stat().st_mtime_ns
    assert run("track", workspace.frames, *arguments).exit_code == 0
    assert exported.stat().st_mtime_ns == stamp


def test_verify_says_yes_and_no(workspace: Workspace, tmp_path: Path) -> None:
    arguments = ["--checkpoint", workspace.checkpoint, "--source", workspace.frames, "--frames", "3"]
    good = run("verify", workspace.model, *arguments)
    assert good.exit_code == 0, good.output
    assert good.stdout.count("ok") == 8
    model = onnx.load(workspace.model)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, tmp_path / "changed.onnx")
    bad = run("verify", tmp_path / "changed.onnx", *arguments)
    assert bad.exit_code == 1
    assert "BEYOND" in bad.stdout


def test_narrow_terminals_show_verification_a_line_each_and_options_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "_width", 80)
    arguments = ["--checkpoint", workspace.checkpoint, "--source", workspace.frames, "--frames", "2"]
    lines = run("verify", workspace.model, *arguments).stdout.splitlines()
    rows = [line.split()[0] for line in lines if line.split()[-1:] == ["ok"]]
    assert rows == ["key", "probabilities", "labels", "value"] * 2
    assert [line.strip() for line in lines if " to torch" in line] == [
        "function body to torch",
        "operator library to torch",
    ]
    shown = CliRunner().invoke(app, ["build", "--help"], env={"COLUMNS": "80"}).stdout
    assert "--hardware-compatibility " in shown and "…" not in shown


def test_verify_renders_frames_of_the_size_that_the_model_is_fixed_to(
    workspace: Workspace, tmp_path: Path
) -> None:
    model = tmp_path / "fixed.onnx"
    size = ["--height", "64", "--width", "96", "--radius", "3"]
    with kept_exports():
        assert run("export", workspace.checkpoint, "--out", model, *size).exit_code == 0
    done = run("verify", model, "--frames", "2")
    assert done.exit_code == 0, done.output


def test_import_reads_a_published_checkpoint(tmp_path: Path) -> None:
    names = {"stem": "feature_extraction.conv1", "head": "post_convolution"}
    names |= {f"stages.{index}": f"feature_extraction.layer{index + 1}" for index in range(4)}
    state = {"module.colorizer.unused": torch.zeros(1)}
    for key, tensor in Encoder(EncoderConfig.preset("full")).state_dict().items():
        ours = next(name for name in names if key.startswith(name + "."))
        state["module." + key.replace(ours, names[ours], 1).replace(".residual.", ".left.")] = tensor
    torch.save({"state_dict": state}, tmp_path / "mast.pth")
    done = run("import", tmp_path / "mast.pth", "--out", tmp_path / "mast.safetensors")
    assert done.exit_code == 0, done.output
    assert "1 keys of mast.pth were not used" in " ".join(done.stdout.split())
    assert "module.colorizer.unused" in done.stderr
    assert (tmp_path / "mast.safetensors").is_file()


def test_doctor_finds_what_tracking_needs() -> None:
    done = run("doctor")
    assert done.exit_code == 0, done.output
    assert "…" not in done.stdout  # names are whole
    for use in (
        "track on a CPU (onnxruntime)",
        "refine masks",
        "track with your own checkpoints, train, import, export",
    ):
        assert f"{use}: ready" in done.stdout


def test_demo(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's path with a tiny model and short clips: no download, everything it promises is there."""
    clip = tmp_path / "clip"
    clip.mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 255, (360, 640, 3), dtype=np.uint8)
        cv2.imwrite(str(clip / f"{index:03d}.png"), picture)
    monkeypatch.setattr(demo_clip, "FIRST_FRAME", 1)
    monkeypatch.setattr(demo_clip, "LAST_FRAME", 2)
    short = functools.partial(synthetic.render_clip, frames=6)
    monkeypatch.setattr(synthetic, "render_clip", lambda height, width: short(height // 6, width // 6))
    done = run("demo", "--out", tmp_path / "demo", "--clip", clip, "--model", workspace.model)
    assert done.exit_code == 0, done.output
    assert re.search(r"J&F \d+\.\d \(J \d+\.\d, F \d+\.\d\)", done.stdout)
    for name in ("contact_sheet.png", "real/overlay.mp4", "rendered/overlay.mp4", "rendered/objects.jsonl"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
    assert [path.name for path in sorted((tmp_path / "demo" / "real" / "masks").iterdir())] == [
        "001.png",
        "002.png",
    ]
    assert cv2.imread(str(tmp_path / "demo" / "contact_sheet.png")).shape[1] >= 3 * TILE_WIDTH
