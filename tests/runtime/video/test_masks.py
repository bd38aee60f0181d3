"""Masks: every usual coding is read as object ids, what is written is read back, damage never goes unseen."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import cv2
import numpy as np
import png_chunks as png
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import MaskError, OutputError
from maskring.runtime.video.masks import MAX_VALUES, encode_mask, read_mask, write_mask
from maskring.runtime.video.palette import PALETTE

IDS = np.array([[0, 0, 1, 1, 7], [0, 2, 2, 3, 3], [9, 0, 0, 5, 0]], np.uint8)
ANY_IDS = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=33))


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    """A PNG by Pillow: a second opinion on the format."""
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("L").copy()
        image.putpalette(PALETTE.tobytes())
    image.save(path, **options)
    return path


def crafted(header: png.Header, lines: bytes) -> bytes:
    """A PNG with right checksums, whatever its header says."""
    return png.write_chunks([(b"IHDR", header.pack()), (b"IDAT", zlib.compress(lines))])


def packed_lines(pixels: np.ndarray, depth: int) -> bytes:
    """Scan lines without filter, several pixels per byte."""
    bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - depth :].reshape(len(pixels), -1)
    return b"".join(b"\0" + line.tobytes() for line in np.packbits(bits, axis=1))


def test_files_may_be_named_by_strings(tmp_path: Path) -> None:
    name = str(tmp_path / "mask.png")
    write_mask(name, IDS)
    np.testing.assert_array_equal(read_mask(name), IDS)


def test_palette_is_that_of_davis() -> None:
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        8: (64, 0, 0),
        21: (128, 64, 128),
    }
    for index, colour in (known | {22: (0, 192, 128), 255: (224, 224, 192)}).items():
        assert tuple(PALETTE[index]) == colour
    assert len(np.unique(PALETTE, axis=0)) == 256


@given(ids=ANY_IDS)
def test_written_masks_are_read_back(ids: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    write_mask(path, ids)
    assert np.array_equal(read_mask(path, allow_empty=True), ids)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), ids)
        assert np.array_equal(np.array(image.convert("RGB")), PALETTE[ids])
    decoded = cv2.imread(str(path))  # a second opinion on the format
    assert np.array_equal(decoded[..., ::-1], PALETTE[ids])


@given(ids=ANY_IDS, depth=st.sampled_from([1, 2, 4, 8]))
def test_palettes_of_every_depth(
    ids: np.ndarray, depth: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ids = np.minimum(ids, 254) & ((1 << depth) - 1)  # 255 beside other ids is void
    path = saved(tmp_path_factory.mktemp("masks") / "mask.png", ids, "P", bits=depth)
    assert path.read_bytes()[24] == depth
    assert np.array_equal(read_mask(path, allow_empty=True), ids)


def test_transparent_palette_entries_keep_their_index(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "t.png", IDS, "P", transparency=2)), IDS)


def test_interlaced_palette(tmp_path: Path) -> None:
    ids = np.arange(1, 122, dtype=np.uint8).reshape(11, 11)
    starts_and_steps = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = (packed_lines(ids[y::dy, x::dx], 8) for y, x, dy, dx in starts_and_steps)
    path = tmp_path / "adam7.png"
    path.write_bytes(crafted(png.Header(11, 11, 8, png.INDEXED, interlace=1), b"".join(passes)))
    assert np.array_equal(read_mask(path), ids)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_every_depth(tmp_path: Path, depth: int) -> None:
    ids = IDS & ((1 << depth) - 1)
    path = tmp_path / "grey.png"
    path.write_bytes(crafted(png.Header(5, 3, depth, png.GREY), packed_lines(ids, depth)))
    assert np.array_equal(read_mask(path), ids)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_black_and_white_is_one_object(tmp_path: Path, depth: int) -> None:
    white = ((IDS > 0) * ((1 << depth) - 1)).astype(np.uint8)
    path = tmp_path / "grey.png"
    path.write_bytes(crafted(png.Header(5, 3, depth, png.GREY), packed_lines(white, depth)))
    assert np.array_equal(read_mask(path), IDS > 0)


def test_a_lone_small_id_stays(tmp_path: Path) -> None:
    five = np.where(IDS > 0, 5, 0).astype(np.uint8)
    assert np.array_equal(read_mask(saved(tmp_path / "five.png", five)), five)


def test_palette_index_255_stays(tmp_path: Path) -> None:
    """Indices are exact; only greys know a brightest value that means "object"."""
    write_mask(tmp_path / "mask.png", np.full((2, 2), 255, np.uint8))
    assert (read_mask(tmp_path / "mask.png") == 255).all()


def test_pillow_modes_1_and_la(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "1.png", IDS > 0)), IDS > 0)
    white = np.where(IDS > 0, 255, 0).astype(np.uint8)
    opaque = np.stack([white, np.full_like(white, 255)], axis=-1)
    assert np.array_equal(read_mask(saved(tmp_path / "la.png", opaque)), IDS > 0)
    small = np.stack([IDS, np.full_like(IDS, 255)], axis=-1)
    assert np.array_equal(read_mask(saved(tmp_path / "la2.png", small)), IDS)
    cut_out = np.stack([np.full_like(white, 255), white], axis=-1)
    assert np.array_equal(read_mask(saved(tmp_path / "la3.png", cut_out)), IDS > 0)


def test_colours_of_the_palette_mean_their_index(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "rgb.png", PALETTE[IDS])), IDS)


def test_other_colours_are_numbered_by_value(tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
    ids = IDS % 4
    assert np.array_equal(read_mask(saved(tmp_path / "rgb.png", colours[ids])), ids)


def test_grey_in_colour_channels_is_read_as_grey(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "ids.png", np.stack([IDS] * 3, axis=-1))), IDS)
    white = np.where(IDS > 0, 255, 0).astype(np.uint8)
    assert np.array_equal(read_mask(saved(tmp_path / "white.png", np.stack([white] * 3, axis=-1))), IDS > 0)


def painted(value: int = 255) -> np.ndarray:
    """A disc and, beside it, a bar."""
    shape = np.zeros((80, 120), np.uint8)
    cv2.circle(shape, (40, 40), 21, value, -1)
    shape[30:50, 80:110] = value
    return shape


SOFT = {
    "drawn with smoothing": cv2.circle(np.zeros((80, 120), np.uint8), (40, 40), 21, 255, -1, cv2.LINE_AA),
    "blurred": cv2.blur(painted(), (5, 5)),
    "blurred widely": cv2.GaussianBlur(painted(), (0, 0), 1),
    "scaled up": cv2.resize(painted(), None, fx=2.5, fy=2.5),
    "scaled down": cv2.resize(painted(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "one grey": cv2.resize(painted()[:, 1:], (60, 40), interpolation=cv2.INTER_LINEAR),
}


@pytest.mark.parametrize("how", SOFT)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_white_shape_with_soft_edges_is_one_object(tmp_path: Path, how: str, channels: int) -> None:
    soft = SOFT[how]
    assert len(np.unique(soft)) > 2
    pixels = soft if channels == 1 else np.stack([soft] * 3, axis=-1)
    assert np.array_equal(read_mask(saved(tmp_path / "soft.png", pixels)), soft > 127)


@pytest.mark.parametrize("how", ["grey", "coloured"])
def test_several_objects_with_soft_edges_are_refused(tmp_path: Path, how: str) -> None:
    """Between 100 and 200 lies no third object: which one an edge belongs to cannot be told."""
    two = painted(100)
    two[30:50, 80:110] = 200
    soft = cv2.blur(two if how == "grey" else PALETTE[two // 100], (3, 3))
    with raises_user_error(MaskError, mentions=("soft.png", "draw without smoothing")):
        read_mask(saved(tmp_path / "soft.png", soft))


def test_a_mask_that_went_through_jpeg_is_no_set_of_objects(tmp_path: Path) -> None:
    """Its noise is neither flat nor along edges; one object is left of it, or a sentence is."""
    for quality in (20, 50, 75, 90, 95, 100):
        noisy = cv2.imdecode(cv2.imencode(".jpg", painted(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
        try:
            found = read_mask(saved(tmp_path / "noisy.png", noisy))
        except MaskError:
            continue
        assert np.array_equal(found, noisy > 127), quality


def test_small_objects_beside_large_ones_stay(tmp_path: Path) -> None:
    ids = painted(3)
    ids[5, 5], ids[5, 8:10] = 1, 2
    for index, pixels in enumerate((ids, PALETTE[ids])):
        assert np.array_equal(read_mask(saved(tmp_path / f"{index}.png", pixels)), ids)


def test_transparent_pixels_are_background(tmp_path: Path) -> None:
    rgba = np.full((*IDS.shape, 4), 200, np.uint8)
    rgba[..., 2] = 10
    rgba[..., 3] = np.where(IDS > 0, 255, 0)
    assert np.array_equal(read_mask(saved(tmp_path / "rgba.png", rgba)), IDS > 0)


def test_empty_masks_are_refused_unless_allowed(tmp_path: Path) -> None:
    write_mask(tmp_path / "empty.png", np.zeros((4, 5), np.uint8))
    with raises_user_error(MaskError, mentions=(tmp_path / "empty.png",)):
        read_mask(tmp_path / "empty.png")
    assert read_mask(tmp_path / "empty.png", allow_empty=True).shape == (4, 5)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.arange(64, dtype=np.uint8).reshape(8, 8), "64 grey values"),
        (np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8), "81 colours"),
        (np.full((4, 4, 3), (1, 2, 3), np.uint8), "no black background"),
    ],
)
def test_pictures_that_are_no_masks(tmp_path: Path, pixels: np.ndarray, words: str) -> None:
    with raises_user_error(MaskError, mentions=("mask.png", words)) as caught:
        read_mask(saved(tmp_path / "mask.png", pixels))
    assert "mask.png" in str(caught.value)


def test_as_many_values_as_allowed(tmp_path: Path) -> None:
    ids = np.arange(MAX_VALUES + 1, dtype=np.uint8).reshape(3, 11)
    assert np.array_equal(read_mask(saved(tmp_path / "grey.png", ids)), ids)
    colours = np.zeros((3, 11, 3), np.uint8)
    colours[..., 1] = 7 * ids
    assert np.array_equal(read_mask(saved(tmp_path / "rgb.png", colours)), ids)


def test_16_bit_colour(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((3, 3, 3), 999, np.uint16))
    with raises_user_error(MaskError, mentions=("deep.png", "16 bits")):
        read_mask(tmp_path / "deep.png")


def test_paths_without_a_mask(tmp_path: Path) -> None:
    with raises_user_error(MaskError, mentions=(tmp_path / "none.png",)):
        read_mask(tmp_path / "none.png")
    with raises_user_error(MaskError, mentions=(tmp_path,)):
        read_mask(tmp_path)
    for content in (b"", b"hello", cv2.imencode(".jpg", IDS)[1].tobytes()):
        (tmp_path / "mask.png").write_bytes(content)
        with raises_user_error(MaskError, mentions=(tmp_path / "mask.png", "PNG")):
            read_mask(tmp_path / "mask.png")


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    whole = encode_mask(IDS)
    start = whole.index(b"IDAT") - 4
    # The 768 bytes of colours are one chunk like any other: a seeded sample of it is enough.
    end = whole.index(b"IEND") - 4  # damage behind it changes no pixel
    positions = [*range(60), *random.Random(0).sample(range(60, start), 40), *range(start, end)]
    path = tmp_path / "mask.png"
    for position in positions:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        cut = whole[:position]
        for damaged in (bytes(flipped), cut):
            path.write_bytes(damaged)
            with pytest.raises(MaskError):
                read_mask(path)


@settings(max_examples=200)
@given(content=st.binary(max_size=200), with_signature=st.booleans())
def test_arbitrary_bytes(
    content: bytes, with_signature: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    path.write_bytes(png.SIGNATURE + content if with_signature else content)
    with pytest.raises(MaskError):
        read_mask(path)


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        (png.Header(100_000, 100_000, 8, png.INDEXED), "palette PNG"),
        (png.Header(0, 4, 8, png.INDEXED), "copy it again"),
        (png.Header(4, 4, 3, png.INDEXED), "copy it again"),
        (png.Header(4, 4, 8, 5), "copy it again"),
        (png.Header(4, 4, 8, png.INDEXED), "copy it again"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: png.Header, remedy: str) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(crafted(header, b"\0\1\2"))
    with raises_user_error(MaskError, mentions=(path,)) as caught:
        read_mask(path)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("rows", [1, 1 << 20])
def test_rows_that_the_file_does_not_hold(tmp_path: Path, rows: int) -> None:
    """Pillow makes them black, which takes memory for all of them."""
    path = tmp_path / "mask.png"
    path.write_bytes(crafted(png.Header(5, 3 + rows, 8, png.GREY), packed_lines(IDS, 8)))
    with raises_user_error(MaskError, mentions=(path, "missing", "copy it again")):
        read_mask(path)
    path.write_bytes(crafted(png.Header(5, 3, 8, png.GREY), packed_lines(IDS, 8)))
    np.testing.assert_array_equal(read_mask(path), IDS)


@pytest.mark.parametrize("missing", [0, 1])
def test_an_interlaced_picture_is_whole_or_refused(tmp_path: Path, missing: int) -> None:
    pixels_of_lines = (
        1,
        1,
        1,
        1,
        2,
        1,
        1,
        1,
        3,
        3,
    )  # of 3 x 5 pixels, in seven passes, of which one is empty
    lines = [bytes([0, *[7] * count]) for count in pixels_of_lines]
    path = tmp_path / "mask.png"
    header = png.Header(3, 5, 8, png.GREY, interlace=1)
    path.write_bytes(crafted(header, b"".join(lines)[: 25 - missing]))
    if missing:
        with raises_user_error(MaskError, mentions=(path, "missing", "copy it again")):
            read_mask(path)
    else:
        assert (read_mask(path) == 7).all()


def test_masks_are_uint8_pictures() -> None:
    for wrong in (np.zeros((2, 2), np.int32), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            encode_mask(wrong)


def test_failed_writes_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "mask.png").mkdir()
    with raises_user_error(OutputError, mentions=(tmp_path / "mask.png",)):
        write_mask(tmp_path / "mask.png", IDS)
    with pytest.raises(OutputError):
        write_mask(tmp_path / "no" / "mask.png", IDS)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_real_annotations(shared_data: Path) -> None:
    folders = sorted((shared_data / "davis_dev" / "Annotations" / "480p").iterdir())
    assert folders
    for folder in folders:
        for path in sorted(folder.glob("*.png"))[::20]:
            with Image.open(path) as image:
                pixels = np.array(image)
                expected = pixels if image.mode == "P" else np.atleast_3d(pixels)[..., 0] > 0
            assert np.array_equal(read_mask(path, allow_empty=True), expected), path
