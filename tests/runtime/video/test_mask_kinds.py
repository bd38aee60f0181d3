"""Masks as editors and annotation tools write them: each kind is read rightly, or refused in one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.video.mask_ids import MaskIds
from maskring.runtime.video.masks import read_mask, read_picture, write_mask
from maskring.runtime.video.palette import PALETTE

TWO = np.zeros((60, 90), np.uint8)
cv2.circle(TWO, (25, 30), 14, 1, -1)
TWO[10:40, 55:80] = 2
ONE = (TWO > 0).astype(np.uint8)

BLACK, RED, BLUE, WHITE, GREY = (0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255), (90, 90, 90)
RGB = np.array([BLACK, RED, BLUE], np.uint8)[TWO]
SOFT_WHITE = cv2.GaussianBlur(ONE * 255, (5, 5), 0)
HALF = (SOFT_WHITE > 127).astype(np.uint8)
SOFT_RGB = cv2.GaussianBlur(RGB, (5, 5), 0)
PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (*TWO.shape, 3), np.uint8)


def palette(indices: np.ndarray, *colours: tuple[int, ...]) -> Image.Image:
    height, width = indices.shape
    image = Image.frombytes("P", (width, height), indices.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def with_alpha(colours: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha.astype(np.uint8)]))


def quantized(colours: np.ndarray, count: int, method: Image.Quantize) -> Image.Image:
    return Image.fromarray(colours).quantize(count, method=method)


def deep(*values: int) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint16)[TWO])


REVERSED = np.array([2, 1, 0])[TWO]
"""TWO by an editor that puts the background last."""

READ: dict[str, tuple[Image.Image, str, dict[str, Any], np.ndarray]] = {
    # palettes of editors
    "black at 2": (palette(REVERSED, BLUE, RED, BLACK), "png", {}, TWO),
    "median cut": (quantized(RGB, 4, Image.Quantize.MEDIANCUT), "png", {}, TWO),
    "maximum coverage": (quantized(RGB, 4, Image.Quantize.MAXCOVERAGE), "png", {}, TWO),
    "octree": (quantized(RGB, 8, Image.Quantize.FASTOCTREE), "png", {}, TWO),
    "web palette": (Image.fromarray(RGB).convert("P"), "png", {}, TWO),
    "white at 0": (palette(TWO, WHITE, RED, BLUE), "png", {}, TWO),
    "white at 1": (palette(np.array([1, 0, 2])[TWO], RED, WHITE, BLUE), "png", {}, TWO),
    "transparent at 1": (
        palette(np.array([1, 0, 2])[TWO], RED, GREY, BLUE),
        "png",
        {"transparency": 1},
        TWO,
    ),
    "transparent at 0": (palette(TWO, GREY, RED, BLUE), "png", {"transparency": 0}, TWO),
    "unused entries": (
        palette(np.array([0, 3, 5])[TWO], BLACK, GREY, GREY, RED, WHITE, BLUE),
        "png",
        {},
        TWO,
    ),
    "black at 0 unused and at 3": (
        palette(np.array([3, 1, 2])[TWO], BLACK, RED, BLUE, BLACK),
        "png",
        {},
        TWO,
    ),
    "all entries black": (palette(TWO, *[BLACK] * 256), "png", {}, TWO),
    "4 bits": (palette(TWO, BLACK, RED, BLUE), "png", {"bits": 4}, TWO),
    "2 bits reversed": (palette(REVERSED, BLUE, RED, BLACK), "png", {"bits": 2}, TWO),
    "1 bit reversed": (palette(1 - ONE, RED, BLACK), "png", {"bits": 1}, ONE),
    "GIF": (Image.fromarray(RGB), "gif", {}, TWO),
    "BMP": (Image.fromarray(RGB), "bmp", {}, TWO),
    "BMP with a palette": (palette(REVERSED, BLUE, RED, BLACK), "bmp", {}, TWO),
    "WebP": (Image.fromarray(RGB), "webp", {"lossless": True}, TWO),
    # greys and colours
    "thin beside white": (Image.fromarray(np.array([0, 255, 100], np.uint8)[TWO]), "png", {}, TWO),
    "white background": (Image.fromarray(np.array([WHITE, RED, BLUE], np.uint8)[TWO]), "png", {}, TWO),
    "white background, greys": (Image.fromarray(np.array([255, 90, 170], np.uint8)[TWO]), "png", {}, TWO),
    "0 and 1": (Image.fromarray(ONE), "png", {}, ONE),
    "0 and 255": (Image.fromarray(ONE * 255), "png", {}, ONE),
    # edges and compression
    "soft white": (Image.fromarray(SOFT_WHITE), "png", {}, HALF),
    "soft white, 64 colours": (
        quantized(np.dstack([SOFT_WHITE] * 3), 64, Image.Quantize.MEDIANCUT),
        "png",
        {},
        HALF,
    ),
    "soft red": (
        Image.fromarray(cv2.GaussianBlur(np.array([BLACK, RED], np.uint8)[ONE], (5, 5), 0)),
        "png",
        {},
        HALF,
    ),
    "JPEG": (Image.fromarray(ONE * 255), "jpg", {"quality": 85}, ONE),
    "JPEG in colour": (Image.fromarray(ONE * 255).convert("RGB"), "jpg", {"quality": 75}, ONE),
    # transparency
    "cut-out": (with_alpha(PHOTOGRAPH, ONE * 255), "png", {}, ONE),
    "soft cut-out": (with_alpha(PHOTOGRAPH, SOFT_WHITE), "png", {}, HALF),
    "black cut-out": (with_alpha(np.zeros_like(RGB), ONE * 255), "png", {}, ONE),
    "colours, half transparent": (with_alpha(RGB, ONE * 120), "png", {}, TWO),
    "colours on transparent": (with_alpha(RGB, ONE * 255), "webp", {"lossless": True}, TWO),
    "opaque": (with_alpha(RGB, np.full_like(ONE, 255)), "png", {}, TWO),
    # integers of more than 8 bits
    "16 bits": (deep(0, 1, 2), "png", {}, TWO),
    "16 bits above 255": (deep(0, 300, 70), "png", {}, np.array([0, 2, 1])[TWO]),
    "16 bits, white": (deep(0, 65535, 65535), "png", {}, ONE),
    "16 bits, spread": (deep(0, 127 * 257, 255 * 257), "png", {}, TWO),
    "TIFF": (Image.fromarray(TWO), "tif", {}, TWO),
    "TIFF, LZW": (deep(0, 1, 2), "tif", {"compression": "tiff_lzw"}, TWO),
    "TIFF, deflate": (deep(0, 1, 2), "tif", {"compression": "tiff_adobe_deflate"}, TWO),
    "TIFF, colours": (Image.fromarray(RGB), "tif", {"compression": "tiff_lzw"}, TWO),
    "TIFF, 1 bit": (Image.fromarray(ONE > 0), "tif", {"compression": "group4"}, ONE),
    "TIFF, 32 bits": (Image.fromarray(TWO.astype(np.int32)), "tif", {}, TWO),
    "TIFF, floats": (Image.fromarray(TWO.astype(np.float32)), "tif", {}, TWO),
}


def read_quietly(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_mask(path)


def assert_same_objects(labels: np.ndarray, expected: np.ndarray) -> None:
    """The same pixels are background, and the same pixels belong to one object each."""
    pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert (0, 0) in pairs
    assert len(pairs) == len(np.unique(labels)) == len(np.unique(expected)), sorted(pairs)


@pytest.mark.parametrize("kind", READ)
def test_kinds_that_are_read(kind: str, tmp_path: Path) -> None:
    image, suffix, options, expected = READ[kind]
    path = tmp_path / f"mask.{suffix}"
    image.save(path, **options)
    assert_same_objects(read_quietly(path), expected)


def test_a_tiled_and_a_big_tiff(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="Pillow writes no tiles")
    for name, options in {
        "tiles": {"tile": (16, 16), "compression": "zlib"},
        "big": {"bigtiff": True},
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", TWO.astype(np.uint16), **options)
        assert np.array_equal(read_mask(tmp_path / f"{name}.tif"), TWO)


DISCS = np.zeros((200, 300, 3), np.uint8)
for colour, centre in ((RED, (60, 60)), (BLUE, (150, 100)), ((0, 255, 0), (240, 150))):
    cv2.circle(DISCS, centre, 40, colour, -1, cv2.LINE_AA)
NOISE = np.random.default_rng(1).integers(-3, 4, TWO.shape)

REFUSED: dict[str, tuple[Image.Image, str, dict[str, Any], str]] = {
    "soft palette": (Image.fromarray(SOFT_RGB).convert("P"), "png", {}, "edges"),
    "soft palette of 16": (quantized(SOFT_RGB, 16, Image.Quantize.MEDIANCUT), "png", {}, "edges"),
    "soft palette of 4": (quantized(SOFT_RGB, 4, Image.Quantize.MEDIANCUT), "png", {}, "edges"),
    "soft palette of 5": (quantized(DISCS, 5, Image.Quantize.MEDIANCUT), "png", {}, "edges"),
    "soft palette of 5, octree": (quantized(DISCS, 5, Image.Quantize.FASTOCTREE), "png", {}, "edges"),
    "soft palette of the web": (
        Image.fromarray(DISCS).convert("P", dither=Image.Dither.NONE),
        "png",
        {},
        "edges",
    ),
    "noise": (Image.fromarray((TWO * 80 + 5 + NOISE).astype(np.uint8)), "png", {}, "values"),
    "soft colours": (Image.fromarray(SOFT_RGB), "png", {}, "colours"),
    "scaled ids": (
        Image.fromarray(cv2.resize(TWO, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)),
        "png",
        {},
        "edges",
    ),
    "JPEG of ids": (Image.fromarray(np.array([0, 127, 255], np.uint8)[TWO]), "jpg", {}, "palette PNG"),
    "JPEG of colours": (Image.fromarray(RGB), "jpg", {}, "palette PNG"),
    "lossy WebP of colours": (Image.fromarray(RGB), "webp", {"quality": 80}, "palette PNG"),
    "no background in a palette": (palette(TWO, GREY, RED, BLUE), "png", {}, "background"),
    "transparent and black": (palette(TWO, GREY, BLACK, BLUE), "png", {"transparency": 0}, "transparent"),
    "nothing visible": (with_alpha(RGB, np.zeros_like(ONE)), "png", {}, "no object"),
    "several pages": (
        Image.fromarray(ONE),
        "tif",
        {"save_all": True, "append_images": [Image.fromarray(TWO)]},
        "2 pictures",
    ),
    "animation": (
        Image.fromarray(RGB),
        "gif",
        {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]},
        "2 pictures",
    ),
    "fractions": (Image.fromarray(TWO * np.float32(0.5)), "tif", {}, "fractions"),
    "negative": (Image.fromarray(TWO.astype(np.int32) - 1), "tif", {}, "negative"),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), "tif", {}, "CMYK"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_are_refused(kind: str, tmp_path: Path) -> None:
    image, suffix, options, word = REFUSED[kind]
    path = tmp_path / f"mask.{suffix}"
    image.save(path, **options)
    with raises_user_error(MaskError, mentions=(path, word)):
        read_quietly(path)


def test_a_thin_object_beside_a_white_one(tmp_path: Path) -> None:
    """No white touches it, so it is no soft edge."""
    mask = np.zeros((96, 128), np.uint8)
    mask[20:60, 20:70], mask[30:90, 100:102] = 255, 100
    Image.fromarray(mask).save(tmp_path / "thin.png")
    assert np.array_equal(read_mask(tmp_path / "thin.png"), mask)


def test_thin_objects_in_a_palette_stay(tmp_path: Path) -> None:
    """As in YouTube-VOS, whose palette is not that of DAVIS: one large object and slivers of four."""
    ids = np.where(TWO == 2, 1, 0)
    for number, column in ((2, 5), (3, 20), (4, 54), (5, 85)):
        ids[5:50, column] = number
    palette(ids, BLACK, (236, 95, 103), (249, 145, 87), (250, 200, 99), (153, 199, 148), (98, 179, 178)).save(
        tmp_path / "thin.png"
    )
    assert np.array_equal(read_mask(tmp_path / "thin.png"), ids)


def test_many_thin_objects_stay(tmp_path: Path) -> None:
    """Slivers beside one area, in greys that lie between black and white and in colours."""
    ids = np.where(TWO == 2, 5, 0).astype(np.uint8)
    for number, column in ((1, 3), (2, 12), (3, 30), (4, 86)):
        ids[5:55, column : column + 2] = number
    greys = np.array([0, 50, 100, 150, 200, 255], np.uint8)[ids]
    Image.fromarray(greys).save(tmp_path / "grey.png")
    colours = np.array([BLACK, (0, 255, 0), (255, 255, 0), WHITE, (0, 255, 255), RED], np.uint8)
    Image.fromarray(colours[ids]).save(tmp_path / "colour.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png"), greys)
    assert_same_objects(read_mask(tmp_path / "colour.png"), ids)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_like_frames(suffix: str, orientation: int, tmp_path: Path) -> None:
    from maskring.runtime.video.images import read_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(ONE * 255).convert("RGB").save(tmp_path / f"turned.{suffix}", exif=exif, **options)
    assert np.array_equal(
        read_mask(tmp_path / f"turned.{suffix}") > 0,
        read_image(tmp_path / f"turned.{suffix}")[..., 0] > 127,
    )


def test_numpy_files(tmp_path: Path) -> None:
    for array, expected in (
        (TWO, TWO),
        (TWO.astype(np.int64), TWO),
        (ONE > 0, ONE),
        (TWO[None].astype(np.float32), TWO),
    ):
        np.save(tmp_path / "mask.npy", array)
        assert np.array_equal(read_mask(tmp_path / "mask.npy"), expected)
    for array in (np.stack([ONE, ONE]) > 0, TWO * 0.3, np.array([{}]), TWO.astype("datetime64[s]")):
        np.save(tmp_path / "mask.npy", array)
        with raises_user_error(MaskError, mentions=(tmp_path / "mask.npy",)):
            read_mask(tmp_path / "mask.npy")
    (tmp_path / "mask.npy").write_bytes((tmp_path / "mask.npy").read_bytes()[:70])
    with raises_user_error(MaskError, mentions=(tmp_path / "mask.npy", "copy")):
        read_mask(tmp_path / "mask.npy")


def test_255_beside_other_ids_is_void(tmp_path: Path) -> None:
    void = TWO.copy()
    void[cv2.dilate(ONE, np.ones((3, 3), np.uint8)) > ONE] = 255
    colours = PALETTE.copy()
    colours[3:255] = 0
    palette(void, *map(tuple, colours)).save(tmp_path / "palette.png")
    Image.fromarray(void).save(tmp_path / "grey.png")
    Image.fromarray(np.where(void == 255, np.uint16(65535), void)).save(tmp_path / "deep.png")
    for name in ("palette", "grey", "deep"):
        with pytest.warns(UserWarning, match="void"):
            assert np.array_equal(read_mask(tmp_path / f"{name}.png"), TWO), name
        picture = read_picture(tmp_path / f"{name}.png")
        assert np.array_equal(MaskIds([picture.marks]).void(picture), void == 255)


def test_an_object_255_of_ones_own_stays(tmp_path: Path) -> None:
    ids = np.where(TWO == 2, 255, TWO).astype(np.uint8)
    write_mask(tmp_path / "own.png", ids)
    assert np.array_equal(read_mask(tmp_path / "own.png"), ids)


def test_what_is_decided_by_a_rule_is_said(tmp_path: Path) -> None:
    Image.fromarray(np.array([WHITE, RED, BLUE], np.uint8)[TWO]).save(tmp_path / "white.png")
    Image.fromarray(255 - ONE * 255).save(tmp_path / "inverted.png")
    Image.fromarray(TWO.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    for name, word in (("white", "background"), ("inverted", "corners"), ("deep", "255")):
        with pytest.warns(UserWarning, match=word):
            read_mask(tmp_path / f"{name}.png")


def test_images_that_pillow_has_opened() -> None:
    assert np.array_equal(read_mask(palette(REVERSED, BLUE, RED, BLACK)), np.array([0, 2, 1])[TWO])
    with raises_user_error(MaskError, mentions=("soft",)):
        read_mask(Image.fromarray(SOFT_RGB).quantize(16))


def ids_in_run(folder: Path, *images: Image.Image) -> list[np.ndarray]:
    """Labels of several masks of one run."""
    pictures = []
    for index, image in enumerate(images):
        image.save(folder / f"{index}.png")
        pictures.append(read_picture(folder / f"{index}.png"))
    ids = MaskIds(picture.marks for picture in pictures)
    return [ids.labels(picture) for picture in pictures]


Form = Callable[[np.ndarray], Image.Image]

FORMS: dict[str, Form] = {
    "greys": lambda ids: Image.fromarray(np.array([0, 127, 255], np.uint8)[ids]),
    "grey in colour channels": lambda ids: Image.fromarray(
        np.stack([np.array([0, 128, 255], np.uint8)[ids]] * 3, axis=-1)
    ),
    "colours": lambda ids: Image.fromarray(np.array([BLACK, BLUE, RED], np.uint8)[ids]),
    "palette of an editor": lambda ids: Image.fromarray(np.array([BLACK, BLUE, RED], np.uint8)[ids]).quantize(
        4
    ),
    "palette of greys": lambda ids: (
        Image.fromarray(np.array([0, 127, 255], np.uint8)[ids]).convert("RGB").quantize(4)
    ),
    "16 bits": lambda ids: Image.fromarray(np.array([0, 40000, 700], np.uint16)[ids]),
    "DAVIS palette": lambda ids: palette(ids, *map(tuple, PALETTE)),
    "colours of DAVIS": lambda ids: Image.fromarray(PALETTE[ids]),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_object_keeps_its_id_where_another_is_missing(form: str, tmp_path: Path) -> None:
    whole, only_2, only_1 = ids_in_run(
        tmp_path, *(FORMS[form](ids) for ids in (TWO, np.where(TWO == 2, 2, 0), np.where(TWO == 1, 1, 0)))
    )
    assert_same_objects(whole, TWO)
    assert np.array_equal(only_2, np.where(TWO == 2, whole, 0))
    assert np.array_equal(only_1, np.where(TWO == 1, whole, 0))


def test_a_mask_in_colours_means_the_objects_of_a_palette(tmp_path: Path) -> None:
    ids = np.array([0, 4, 9])[TWO]
    first = palette(ids, BLACK, *[GREY] * 3, RED, *[GREY] * 4, BLUE)
    labels, later, new = ids_in_run(
        tmp_path,
        first,
        Image.fromarray(np.where((TWO == 2)[..., None], RGB, 0)),
        Image.fromarray(np.array([BLACK, (1, 200, 3)], np.uint8)[ONE]),
    )
    assert np.array_equal(labels, ids)
    assert set(np.unique(later)) == {0, 9}
    assert set(np.unique(new)) == {0, 1}


def test_a_mask_of_ones_own_means_the_same_as_the_index_of_an_editor(tmp_path: Path) -> None:
    first, corrected = ids_in_run(
        tmp_path, palette(TWO, BLACK, RED, BLUE), palette(TWO, *map(tuple, PALETTE))
    )
    assert np.array_equal(first, TWO) and np.array_equal(corrected, TWO)
