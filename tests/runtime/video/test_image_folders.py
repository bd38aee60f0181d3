"""Sources: image folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from coded_frames import HEIGHT, WIDTH, coded, number_in, write_folder
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.runtime.video.folders import find_clips
from maskring.runtime.video.open_source import open_source


def test_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["a2.jpg", "a10.JPG", "b1.png", "b01x.bmp", "b2.webp", "b10.jpeg"]
    folder = write_folder(tmp_path / "frames", names)
    for other in (".hidden.jpg", "notes.txt", "._a2.jpg"):
        (folder / other).write_text("no image")
    (folder / "folder.jpg.d").mkdir()
    with open_source(folder) as source:
        assert (source.size, source.length) == ((HEIGHT, WIDTH), 6)
        frames = list(source)
    assert [frame.name for frame in frames] == ["a2", "a10", "b1", "b01x", "b2", "b10"]
    assert [number_in(frame.image) for frame in frames] == list(range(6))
    assert [frame.timestamp for frame in frames] == pytest.approx([index / source.fps for index in range(6)])


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = 200, 100
    grey = np.full((4, 6), 77, np.uint8)
    deep = np.full((4, 6), 77 << 8 | 3, np.uint16)
    kinds = {
        "1.png": (rgb, rgb),
        "2.png": (np.dstack([rgb, grey]), rgb),
        "3.png": (grey, np.dstack([grey] * 3)),
        "4.png": (deep, np.dstack([grey] * 3)),
        "5.png": (np.dstack([grey, grey]), np.dstack([grey] * 3)),
    }
    for name, (pixels, _) in kinds.items():
        Image.fromarray(pixels).save(tmp_path / name)
    with open_source(tmp_path) as source:
        for frame, (_, expected) in zip(source, kinds.values(), strict=True):
            assert np.array_equal(frame.image, expected), frame.name


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_frames_that_would_be_black_are_refused(bits: int, tmp_path: Path) -> None:
    """As microscopes and thermal cameras save them: few bits at the lower end of 16."""
    Image.fromarray(coded(5)[..., 0].astype(np.uint16) << (bits - 8)).save(tmp_path / "0.png")
    factor = 1 << (16 - bits)
    with raises_user_error(SourceError, mentions=(tmp_path / "0.png", f"{bits} are used", f"by {factor}")):
        open_source(tmp_path)
    Image.fromarray(coded(5)[..., 0].astype(np.uint16) << 8).save(tmp_path / "0.png")
    with open_source(tmp_path) as source:
        assert number_in(next(source).image) == 5


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_frame_of_several_pictures_is_refused(suffix: str, tmp_path: Path) -> None:
    first, second = Image.fromarray(coded(1)), Image.fromarray(coded(2))
    first.save(tmp_path / f"0.{suffix}", save_all=True, append_images=[second])
    with raises_user_error(SourceError, mentions=(tmp_path / f"0.{suffix}", "2 pictures")):
        open_source(tmp_path)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by a quarter
    Image.fromarray(np.rot90(coded(5))).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    with open_source(tmp_path) as source:
        image = next(source).image
    assert image.shape == (HEIGHT, WIDTH, 3) and number_in(image) == 5


def test_folder_with_frames_of_two_sizes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", ["0.png", "1.png", "2.png"])
    cv2.imwrite(str(folder / "2.png"), coded(2)[:32])
    with open_source(folder) as source:
        assert [next(source).name, next(source).name] == ["0", "1"]
        with pytest.raises(SourceError, match=r"2\.png is 96x32 pixels, 0\.png is 96x64"):
            next(source)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_folder_with_a_damaged_frame(tmp_path: Path, suffix: str) -> None:
    folder = write_folder(tmp_path / "frames", [f"0.{suffix}", f"1.{suffix}", f"2.{suffix}"])
    content = (folder / f"1.{suffix}").read_bytes()
    for damage in (content[: len(content) // 2], b"", b"hello"):
        (folder / f"1.{suffix}").write_bytes(damage)
        with open_source(folder) as source:
            assert next(source).index == 0
            with pytest.raises(SourceError, match=rf"1\.{suffix} cannot be decoded as an image"):
                next(source)


def test_folder_with_two_images_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"both 0\.(jpg|png) and 0\.(jpg|png)"):
        open_source(write_folder(tmp_path / "frames", ["0.jpg", "0.png"]))


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path)
    (tmp_path / "JPEGImages" / "480p").mkdir(parents=True)
    inner = write_folder(tmp_path / "JPEGImages" / "480p" / "bear", ["00000.jpg"])
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert f"for example {inner}" in caught.value.remedy


def test_davis_sequence(shared_data: Path) -> None:
    folder = shared_data / "davis_dev" / "JPEGImages" / "480p" / "surf"
    with open_source(folder) as source:
        frame = next(source)
    assert frame.name == "00000" and source.length == len(list(folder.iterdir()))
    with Image.open(folder / "00000.jpg") as image:
        difference = np.abs(frame.image.astype(int) - np.array(image))
    assert difference.mean() < 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("left_%03d.png", ["left_002", "left_010", "left_1000"]),
        ("left_%d.png", ["left_002", "left_3", "left_010", "left_1000"]),
        ("%05d.jpg", ["00007"]),
    ],
)
def test_a_pattern_takes_the_images_it_names(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    names = ["left_1000.png", "left_002.png", "left_3.png", "right_001.png", "left_010.png", "00007.jpg"]
    folder = write_folder(tmp_path / "frames", [*names, "left_002.png.png", "other.png"])
    with open_source(folder / pattern) as source:
        assert source.length == len(expected)
        assert [frame.name for frame in source] == expected


def test_a_pattern_that_names_no_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", ["left_1.png"])
    with raises_user_error(SourceError, mentions=(folder, "left_%04d.png", "%d")):
        open_source(folder / "left_%04d.png")
    with raises_user_error(SourceError, mentions=("none",)):
        open_source(tmp_path / "none" / "%d.png")


def test_a_file_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    write_folder(tmp_path / "%d.png", ["1.png", "2.png"])
    with open_source(tmp_path / "%d.png") as source:
        assert source.length == 2


@pytest.mark.parametrize("suffix", ["ts", "MTS", "m2ts", "mpg", "wmv", "mxf", "flv"])
def test_videos_of_every_container_are_found(tmp_path: Path, suffix: str) -> None:
    """Programs in TypeScript are no videos."""
    (tmp_path / f"clip.{suffix}").write_bytes(b"G\0" * 94)
    (tmp_path / "program.ts").write_text("export const answer = 42;\n" * 99)
    assert [path.name for path in find_clips(tmp_path)] == [f"clip.{suffix}"]
