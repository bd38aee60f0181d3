"""Masks that a program spoilt, or whose file says less than it seems: each is read rightly, or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff_files import grey_tiff
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.video.mask_ids import MaskIds
from maskring.runtime.video.masks import read_mask, read_picture, write_mask

TWO = np.zeros((120, 180), np.uint8)
cv2.circle(TWO, (50, 60), 28, 1, -1)
TWO[20:80, 110:160] = 2
ONE = (TWO == 1).astype(np.uint8)
BLACK, RED, BLUE, WHITE = (0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255)
RGB = np.array([BLACK, RED, BLUE], np.uint8)[TWO]
WAVES = (np.indices((120, 180)).sum(axis=0)[..., None] * np.array([2, 3, 5]) % 200 + 20).astype(np.uint8)
"""Colours that no mask has, as in a photograph."""


def palette(indices: np.ndarray, *colours: tuple[int, ...]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def with_alpha(colours: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colours.astype(np.uint8), alpha.astype(np.uint8)]))


def outlined(line: tuple[int, ...], *colours: tuple[int, ...]) -> Image.Image:
    """TWO in these colours, with a line of one pixel around each object."""
    inside = (TWO > 0).astype(np.uint8)
    rim = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside
    return Image.fromarray(np.where(rim[..., None], np.uint8(line), np.array(colours, np.uint8)[TWO]))


Kind = tuple[Image.Image, str, dict[str, Any]]

REFUSED: dict[str, tuple[Kind, str]] = {
    "lossy WebP of colours on transparent": (
        (with_alpha(RGB, ONE * 255 + (TWO == 2) * 255), "webp", {}),
        "loss",
    ),
    "the same as PNG": (
        (with_alpha(np.clip(RGB.astype(int) + WAVES % 8, 0, 255), (TWO > 0) * 255), "png", {}),
        "colours",
    ),
    "lossy WebP of ids": ((Image.fromarray(TWO), "webp", {}), "loss"),
    "TIFF with JPEG of ids": ((Image.fromarray(TWO), "tif", {"compression": "jpeg"}), "loss"),
    "TIFF with JPEG of colours": ((Image.fromarray(RGB), "tif", {"compression": "jpeg"}), "loss"),
    "JPEG of two bright greys": (
        (Image.fromarray(np.array([0, 210, 255], np.uint8)[TWO]), "jpg", {}),
        "loss",
    ),
    "JPEG of a dark and a white object": (
        (Image.fromarray(np.array([0, 40, 255], np.uint8)[TWO]), "jpg", {}),
        "loss",
    ),
    "ids in the alpha of white": ((with_alpha(np.full_like(RGB, 255), TWO), "png", {}), "levels"),
    "ids in the alpha of a photograph": ((with_alpha(WAVES, TWO * 100), "png", {}), "levels"),
    "dithered colours": (
        (Image.fromarray(np.array([BLACK, (128, 0, 0), (0, 128, 0)], np.uint8)[TWO]).convert("P"), "png", {}),
        "dither",
    ),
    "dithered grey": ((Image.fromarray(ONE * 128).convert("1"), "png", {}), "dither"),
    "white outlines": ((outlined(WHITE, BLACK, RED, BLUE), "png", {}), "outline"),
    "palette indices between two": (
        (
            palette(
                cv2.resize(
                    np.where(np.arange(90) < 45, 1, 3).astype(np.uint8)[None].repeat(60, 0), (180, 120)
                ),
                *(BLACK, RED, BLUE, (0, 255, 0)),
            ),
            "png",
            {},
        ),
        "outline",
    ),
    "white amid a dark ground": (
        (Image.fromarray(np.array([(11, 0, 0), RED, WHITE], np.uint8)[TWO]), "png", {}),
        "background",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_doubtful_masks_are_refused(kind: str, tmp_path: Path) -> None:
    (image, suffix, options), word = REFUSED[kind]
    path = tmp_path / f"mask.{suffix}"
    image.save(path, **options)
    with raises_user_error(MaskError, mentions=(path, word)):
        read_mask(path)


FAINT = {"transparency": bytes([0, 90, 200])}

READ: dict[str, tuple[Kind, np.ndarray]] = {
    "lossy WebP of one white object": ((Image.fromarray(ONE * 255), "webp", {}), ONE),
    "lossy WebP cut out": ((with_alpha(WAVES, ONE * 255), "webp", {}), ONE),
    "lossy WebP of one colour": ((with_alpha(np.full_like(RGB, 90), ONE * 255), "webp", {}), ONE),
    "TIFF with JPEG of one white object": ((Image.fromarray(ONE * 255), "tif", {"compression": "jpeg"}), ONE),
    "faint palette entries": ((palette(TWO, BLACK, RED, BLUE), "png", FAINT), TWO),
    "a palette that holds a colour twice": ((palette(TWO, BLACK, RED, RED), "png", {}), TWO),
    "16 bits, transparent white": (
        (Image.fromarray(np.array([65535, 1, 2], np.uint16)[TWO]), "png", {"transparency": 65535}),
        TWO,
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_unusual_masks_are_read(kind: str, tmp_path: Path) -> None:
    (image, suffix, options), expected = READ[kind]
    image.save(tmp_path / f"mask.{suffix}", **options)
    labels = read_mask(tmp_path / f"mask.{suffix}")
    assert np.count_nonzero((labels > 0) != (expected > 0)) <= 12  # where an edge was blurred
    if "one" not in kind and "cut" not in kind:
        assert np.array_equal(labels, expected)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (TWO.astype(np.int16), {"order": ">"}),
        (TWO.astype(np.int32), {"order": ">"}),
        (TWO.astype(np.float32), {"order": ">"}),
        (TWO, {"bits": 2}),
        (TWO, {"bits": 4}),
        (TWO.astype(np.int8), {}),
        (65535 - TWO.astype(np.uint16), {"white_is_zero": True}),
        (TWO.astype(np.int32), {}),
        (TWO.astype(np.float32), {}),
    ],
    ids=[
        "int16, other order",
        "int32, other order",
        "float32, other order",
        "2 bits",
        "4 bits",
        "int8",
        "white is zero",
        "int32",
        "float32",
    ],
)
def test_values_of_a_tiff_are_ids(pixels: np.ndarray, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mask.tif").write_bytes(grey_tiff(pixels, **options))
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), TWO)


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.float16])
def test_a_tiff_of_pixels_that_pillow_does_not_know_is_not_called_damaged_alone(
    kind: type, tmp_path: Path
) -> None:
    (tmp_path / "mask.tif").write_bytes(grey_tiff(TWO.astype(kind)))
    with raises_user_error(MaskError, mentions=(tmp_path / "mask.tif", "Pillow", "16 bits")):
        read_mask(tmp_path / "mask.tif")


def test_signed_bytes_are_negative(tmp_path: Path) -> None:
    (tmp_path / "mask.tif").write_bytes(grey_tiff(TWO.astype(np.int8) - 1))
    with raises_user_error(MaskError, mentions=(tmp_path / "mask.tif", "negative")):
        read_mask(tmp_path / "mask.tif")


def test_a_void_outline_belongs_to_no_object(tmp_path: Path) -> None:
    outlined((224, 224, 192), BLACK, (128, 0, 0), (0, 128, 0)).save(tmp_path / "void.png")
    with pytest.warns(UserWarning, match="void"):
        labels = read_mask(tmp_path / "void.png")
    assert set(np.unique(labels)) == {0, 1, 2}


def test_a_mask_of_the_whole_picture_is_said(tmp_path: Path) -> None:
    Image.fromarray(np.full_like(ONE, 255)).save(tmp_path / "whole.png")
    with pytest.warns(UserWarning, match="whole"):
        read_mask(tmp_path / "whole.png")


def test_palettes_that_hold_a_colour_twice_agree_within_a_run(tmp_path: Path) -> None:
    """Index 1 is red in one mask, index 2 is red in the other: only a third one with both says that they differ."""
    for name, indices in (("first", TWO), ("second", np.where(TWO == 1, 0, TWO))):
        palette(indices, BLACK, RED, RED).save(tmp_path / f"{name}.png")
    pictures = [read_picture(tmp_path / f"{name}.png") for name in ("first", "second")]
    ids = MaskIds(picture.marks for picture in pictures)
    assert [sorted(set(np.unique(ids.labels(picture)))) for picture in pictures] == [[0, 1, 2], [0, 2]]
    assert not ids.notes


def test_soft_brushes_and_small_objects_stay(tmp_path: Path) -> None:
    """Neither many levels of alpha nor objects of a few pixels are taken for what they are not."""
    soft = cv2.GaussianBlur(ONE * 255, (9, 9), 0)
    with_alpha(np.zeros_like(RGB), soft).save(tmp_path / "soft.png")
    specks = ONE.copy()
    specks[100, [10, 20, 30]] = specks[5:7, 5:7] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_mask(tmp_path / "soft.png") > 0, soft > 127)
        palette(specks, BLACK, RED, BLUE).save(tmp_path / "specks.png")
        assert np.array_equal(read_mask(tmp_path / "specks.png"), specks)


def test_what_a_tracker_predicted_is_read_whatever_it_shows(tmp_path: Path) -> None:
    """Specks, and an object that lines another: scores and `convert` take them as they are."""
    poor = ONE.copy()
    poor[100:110:2, 10:40:2] = 3
    inside = cv2.erode(ONE, np.ones((3, 3), np.uint8))
    poor[(inside < ONE)] = 2
    Image.fromarray(poor).save(tmp_path / "poor.png")
    assert np.array_equal(read_mask(tmp_path / "poor.png", allow_empty=True), poor)
    picture = read_picture(tmp_path / "poor.png")
    assert np.array_equal(MaskIds([picture.marks]).labels(picture), poor)
    with raises_user_error(MaskError, mentions=(tmp_path / "poor.png", "alone")):
        read_mask(tmp_path / "poor.png")
    write_mask(tmp_path / "written.png", poor)
    assert np.array_equal(read_mask(tmp_path / "written.png"), poor)
