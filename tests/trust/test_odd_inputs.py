"""What is unusual but sound is tracked as users expect: names, rates, codings, sizes, turned pictures."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import png_chunks as png
import pytest
from click.testing import Result
from PIL import Image
from support import HEIGHT, WIDTH, moving_square
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.errors import ModelError
from maskring.runtime.refinement.network.checkpoint import load_predictor
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.opencv import silence_opencv
from maskring.training.checkpoint import load_checkpoint


def picture(index: int) -> np.ndarray:
    """A frame of large areas, which compression leaves as they are."""
    frame = np.full((HEIGHT, WIDTH, 3), (30, 60, 90), np.uint8)
    frame[moving_square(index)[1] > 0] = (240, 200, 40)
    return frame


def write_video(path: Path, frames: int = 2) -> Path:
    silence_opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (WIDTH, HEIGHT))
    for index in range(frames):
        writer.write(np.ascontiguousarray(picture(index)[..., ::-1]))
    writer.release()
    return path


def write_grey_y4m(path: Path, luma: np.ndarray, kind: str, frames: int = 2) -> Path:
    """Uncompressed video that shows ``luma`` [H, W], of one byte or two, without colour."""
    height, width = luma.shape
    chroma = np.full(
        (height + 1) // 2 * ((width + 1) // 2) * 2, 512 if luma.itemsize == 2 else 128, luma.dtype
    )
    frame = b"FRAME\n" + luma.tobytes() + chroma.tobytes()
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C{kind}\n".encode() + frame * frames)
    return path


def write_retimed(path: Path, ticks: Sequence[int], ticks_per_second: float) -> Path:
    """A video whose frames come at given ticks of its clock, as recorders of screens and phones write it."""
    original = write_video(path.with_name("steady.mp4"), len(ticks))
    packets = cv2.VideoCapture(str(original), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_KEY_INTERVAL, 1]
    fourcc, size = cv2.VideoWriter.fourcc(*"mp4v"), (WIDTH, HEIGHT)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, ticks_per_second, size, raw)
    for tick in ticks:
        writer.set(cv2.VIDEOWRITER_PROP_PTS, tick)
        writer.write(packets.read()[1].reshape(1, -1).copy())
    writer.release()
    packets.release()
    return path


def write_frames(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode(".png", picture(index)[..., ::-1])[1].tobytes())
    return folder


def track(source: str | Path, mask: Path, model: Path, out: str | Path, *more: str) -> Result:
    return CliRunner().invoke(
        app, ["track", str(source), "--mask", str(mask), "--model", str(model), "--out", str(out), *more]
    )


def masks_in(out: Path) -> list[np.ndarray]:
    return [read_mask(path, allow_empty=True) for path in sorted((out / "masks").iterdir())]


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    write_mask(tmp_path / "mask.png", moving_square(0)[1])
    return tmp_path / "mask.png"


# Names


NAMES = [
    "100%",
    "%05d",
    "two  words",
    "-x",
    "漢字 ü 🎬",
    "10:30",
    "http:x",
    "wow ! no",
    "a#b?c=d",
    "it's [b]",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_videos_and_results(
    name: str, tmp_path: Path, mask: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative ones: in front of a folder, no name is odd to FFmpeg."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4")).rename(f"{name}.mp4")
    source = f"./{name}.mp4" if name.startswith("-") else f"{name}.mp4"
    result = track(source, mask, exported, name)
    assert result.exit_code == 0, result.output
    assert f"results in {name}" in result.output
    first, _ = masks_in(Path(name))
    assert np.array_equal(first, moving_square(0)[1])
    with open_source(Path(name) / "overlay.mp4") as video:
        assert len(list(video)) == 2


def test_an_option_that_is_none_is_named(mask: Path, exported: Path, tmp_path: Path) -> None:
    result = track("-x.mp4", mask, exported, tmp_path / "out")
    assert result.exit_code == 2 and "No such option: -x" in result.output


def test_names_of_frames(tmp_path: Path, mask: Path, exported: Path) -> None:
    names = ["%05d", "-1", "10:30", "a'b", "c d", "e[b]", "漢字 ü", os.fsdecode(b"z\xff")]
    frames = write_frames(tmp_path / "frames", [f"{name}.png" for name in names])
    result = track(frames, mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {path.stem for path in (tmp_path / "out" / "masks").iterdir()} == set(names)


NOT_UTF8 = os.fsdecode(b"x\xff")


@pytest.mark.parametrize(("video", "out"), [(NOT_UTF8, "out"), ("clip", NOT_UTF8)], ids=["video", "out"])
def test_names_that_are_not_utf8(video: str, out: str, tmp_path: Path, mask: Path, exported: Path) -> None:
    """In a process of its own, for some libraries would end it."""
    write_video(tmp_path / "clip.mp4").rename(tmp_path / f"{video}.mp4")
    arguments = ["track", f"{video}.mp4", "--mask", str(mask), "--model", str(exported), "--out", out]
    run = in_a_process(["-m", "maskring", *arguments], tmp_path)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert (tmp_path / out / "masks" / "00001.png").exists() and (tmp_path / out / "overlay.mp4").exists()


FOOTAGE = """
from pathlib import Path
from maskring.training.clips import ClipLibrary
import numpy
library = ClipLibrary([Path("footage")], 32, cache_bytes=0)
windows = [library.window(numpy.random.default_rng(seed), 2, 1) for seed in range(30)]
print({window.clip.name for window in windows}, *library.skipped.values())
"""


def test_footage_whose_names_are_not_utf8(tmp_path: Path) -> None:
    """They are read all the same, and FFmpeg takes no name for an address."""
    write_frames(tmp_path / "footage", [os.fsdecode(b"%d\xff.png" % index) for index in range(3)])
    for name in (NOT_UTF8, "10:30"):
        write_video(tmp_path / "clip.mp4", 3).rename(tmp_path / "footage" / f"{name}.mp4")
    run = in_a_process(["-c", FOOTAGE], tmp_path)
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in ("'10:30.mp4'", "'x\\udcff.mp4'", "'footage'"))
    assert run.stdout.strip().endswith("}"), "nothing is skipped"


@pytest.mark.parametrize("read", [load_checkpoint, load_predictor])
def test_weights_whose_name_is_not_utf8(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / f"{NOT_UTF8}.safetensors"
    path.write_bytes(b"anything")
    with raises_user_error(ModelError, mentions=("udcff", "UTF-8", "rename it")):
        read(path)


def test_names_that_the_terminal_cannot_show(tmp_path: Path, mask: Path, exported: Path) -> None:
    write_frames(tmp_path / "frames", ["0.png"])
    out = ["--out", NOT_UTF8, "--no-overlay"]
    arguments = ["track", "frames", "--mask", str(mask), "--model", str(exported), *out]
    run = in_a_process(["-m", "maskring", *arguments], tmp_path)
    assert run.returncode == 0, run.stderr
    assert "results in x\\udcff" in run.stdout


def in_a_process(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A terminal as most are: it takes UTF-8 and nothing else."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "MASKRING_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


# Rates


@pytest.mark.parametrize("ticks_per_second", [25.0, 1000.0])
def test_variable_frame_rate(ticks_per_second: float, tmp_path: Path, mask: Path, exported: Path) -> None:
    """A still of a second in the middle; Matroska tells no number of frames, its clock's ticks as rate."""
    seconds = [0.0, 0.04, 0.08, 0.12, 1.12, 1.16, 1.2]
    ticks = [round(second * ticks_per_second) for second in seconds]
    video = write_retimed(tmp_path / "clip.mkv", ticks, ticks_per_second)
    result = track(video, mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "7 frames, " in result.output and "undecodable" not in result.output
    with open_source(video) as source:
        assert [frame.timestamp for frame in source] == pytest.approx(seconds, abs=0.002)
        assert source.fps <= 30
    with open_source(tmp_path / "out" / "overlay.mp4") as overlay:
        assert len(list(overlay)) / overlay.fps == pytest.approx(1.24, abs=0.15)


def test_a_video_of_varying_rate_that_is_cut_off(tmp_path: Path) -> None:
    """What its end lacks is counted in time, too."""
    video = write_retimed(tmp_path / "clip.mkv", [0, 1, 2, 10, 11, 12, 20, 21, 30, 31], 25.0)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 3 // 4])
    with open_source(video) as source:
        last = list(source)[-1]
    assert 0.3 < last.timestamp < 1.2
    assert source.undecodable == round((1.24 - last.timestamp) * 25)


def test_animated_gif(tmp_path: Path, mask: Path, exported: Path) -> None:
    """Each picture is drawn over part of the one before it; the loop is not followed."""
    pictures = [Image.fromarray(picture(index)) for index in range(4)]
    path = tmp_path / "clip.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[40, 40, 200, 40], loop=0)
    with open_source(path) as source:
        frames = list(source)
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.28])
    for index, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(index)).max() < 12
    result = track(path, mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(masks_in(tmp_path / "out")) == 4


# Codings


def test_ten_bits_per_channel(tmp_path: Path, mask: Path, exported: Path) -> None:
    luma = np.where(moving_square(0)[1] > 0, 940, 64).astype("<u2")  # white and black of video's range
    path = write_grey_y4m(tmp_path / "deep.y4m", luma, "420p10")
    with open_source(path) as source:
        image = next(source).image
    assert np.abs(image.astype(int) - 255 * moving_square(0)[1][..., None]).max() <= 2
    result = track(path, mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(masks_in(tmp_path / "out")) == 2


def deep_png(samples: np.ndarray) -> bytes:
    """Of 16 bits per sample, [H, W, C] of 0 to 1; nobody writes grey with alpha."""
    height, width, channels = samples.shape
    colour = {1: png.GREY, 2: png.GREY_ALPHA, 3: png.RGB, 4: png.RGB_ALPHA}[channels]
    lines = b"".join(b"\0" + line.tobytes() for line in (samples * 65535).astype(">u2"))
    header = png.Header(width, height, 16, colour).pack()
    return png.write_chunks([(b"IHDR", header), (b"IDAT", zlib.compress(lines))])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_frames_of_16_bits_are_tracked_and_masks_of_colours_are_refused(
    channels: int, tmp_path: Path, mask: Path, exported: Path
) -> None:
    square = np.repeat(moving_square(0)[1][..., None] * 0.8, channels, 2)
    if channels in (2, 4):
        square[..., -1] = 1
    (tmp_path / "deep").mkdir()
    for index in range(2):
        (tmp_path / "deep" / f"{index}.png").write_bytes(deep_png(square))
    expected = 204 * moving_square(0)[1][..., None].astype(int)
    assert np.abs(read_image(tmp_path / "deep" / "0.png") - expected).max() <= 1
    result = track(tmp_path / "deep", mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    masked = track(tmp_path / "deep", tmp_path / "deep" / "0.png", exported, tmp_path / "masked")
    if channels == 1:  # one object, of one value
        assert masked.exit_code == 0, masked.output
        return
    assert masked.exit_code == 2
    told = " ".join(masked.stderr.split())
    assert "16 bits" in told and "palette PNG" in told


@pytest.mark.parametrize("mode", ["LA", "RGBA", "1", "P"])
def test_masks_of_every_mode_of_pillow(mode: str, tmp_path: Path, exported: Path) -> None:
    """Drawn white on black; in a palette of greys, 255 is a number like any other."""
    white = Image.fromarray(moving_square(0)[1] * 255)
    white.convert(mode).save(tmp_path / "mask.png")
    result = track(write_frames(tmp_path / "frames", ["0.png"]), tmp_path / "mask.png", exported, tmp_path)
    assert result.exit_code == 0, result.output
    assert np.array_equal(masks_in(tmp_path)[0], moving_square(0)[1] * (255 if mode == "P" else 1))


# Sizes


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 5), (17, 31), (47, 63), (5, 200)])
def test_uneven_sizes(height: int, width: int, tmp_path: Path, exported: Path) -> None:
    """The masks have them; the overlay video, whose codecs do not take them, lacks the last row or column."""
    ids = np.zeros((height, width), np.uint8)
    ids[: (height + 1) // 2, : (width + 1) // 2] = 1
    write_mask(tmp_path / "mask.png", ids)
    path = write_grey_y4m(tmp_path / "clip.y4m", 40 + 150 * ids, "420jpeg")
    result = track(path, tmp_path / "mask.png", exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    first, second = masks_in(tmp_path / "out")
    assert np.array_equal(first, ids) and second.shape == (height, width)
    with open_source(tmp_path / "out" / "overlay.mp4") as overlay:
        assert overlay.size == (height // 2 * 2, width // 2 * 2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40)])
def test_a_single_row_of_pixels(height: int, width: int, tmp_path: Path, exported: Path) -> None:
    """No video can show it, but masks can."""
    write_mask(tmp_path / "mask.png", np.ones((height, width), np.uint8))
    path = write_grey_y4m(tmp_path / "clip.y4m", np.full((height, width), 200, np.uint8), "420jpeg")
    refused = track(path, tmp_path / "mask.png", exported, tmp_path / "out")
    assert refused.exit_code == 2 and "--no-overlay" in refused.stderr
    result = track(path, tmp_path / "mask.png", exported, tmp_path / "out", "--no-overlay")
    assert result.exit_code == 0, result.output
    assert [found.shape for found in masks_in(tmp_path / "out")] == [(height, width)] * 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_of_one_frame(suffix: str, tmp_path: Path, mask: Path, exported: Path) -> None:
    result = track(write_video(tmp_path / f"clip{suffix}", 1), mask, exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 frames, " in result.output and "undecodable" not in result.output
    (only,) = masks_in(tmp_path / "out")
    assert np.array_equal(only, moving_square(0)[1])


# Turned pictures


TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""Clockwise degrees, and the first two columns of the matrix in an MP4's track header."""


@pytest.mark.parametrize("degrees", TURNS)
def test_a_turned_video_takes_an_upright_mask(degrees: int, tmp_path: Path, exported: Path) -> None:
    path = write_video(tmp_path / "phone.mp4")
    content = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in TURNS[degrees])
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    upright = np.rot90(moving_square(0)[1], -degrees // 90)
    write_mask(tmp_path / "mask.png", np.ascontiguousarray(upright))
    with open_source(path) as source:
        shown = next(source).image[..., 0] > 128
    assert (shown == (upright > 0)).mean() > 0.99
    result = track(path, tmp_path / "mask.png", exported, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert np.array_equal(masks_in(tmp_path / "out")[0], upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_turns_frames_and_masks_alike(
    suffix: str, orientation: int, tmp_path: Path, exported: Path
) -> None:
    """Both as a phone and programs that keep its tag store them, whose pixels lie as the sensor had them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "frames").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "frames" / f"0{suffix}", exif=exif, quality=95)
    Image.fromarray(moving_square(0)[1] * 255).save(tmp_path / "mask.png", exif=exif)
    result = track(tmp_path / "frames", tmp_path / "mask.png", exported, tmp_path / "out", "--no-overlay")
    assert result.exit_code == 0, result.output
    (labels,) = masks_in(tmp_path / "out")
    shown = read_image(tmp_path / "frames" / f"0{suffix}")[..., 0] > 128
    assert labels.shape == shown.shape and (shown == (labels > 0)).mean() > 0.98
    if orientation == 6:  # a quarter turn, clockwise
        assert np.array_equal(labels, np.rot90(moving_square(0)[1], -1))
