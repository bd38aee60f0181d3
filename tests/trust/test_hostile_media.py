"""Images, videos, masks and split lists that are well formed and yet a trap."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image
from support import moving_square, write_video
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize("name", ["x" * 300, "..", "/", "/etc", "a/../../b", ".", "a\0b"])
def test_names_in_split_lists(tmp_path: Path, name: str) -> None:
    """A sequence's name becomes a folder of results: it must not lead anywhere else."""
    from maskring.runtime.evaluation.datasets import load_split

    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        (tmp_path / folder / "a").mkdir(parents=True)
    (tmp_path / "ImageSets" / "val.txt").write_text(f"{name}\n")
    with raises_user_error(SourceError, mentions=("val.txt",)):
        load_split(tmp_path, "val")


def giant_images() -> dict[str, bytes]:
    """Some kilobytes that claim to be 30000 x 30000 pixels."""
    tiny = np.zeros((8, 8, 3), np.uint8)
    png = bytearray(cv2.imencode(".png", tiny)[1].tobytes())
    png[16:24] = struct.pack(">II", 30000, 30000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    jpeg = bytearray(cv2.imencode(".jpg", tiny)[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 30000, 30000)
    bmp = bytearray(cv2.imencode(".bmp", tiny)[1].tobytes())
    bmp[18:26] = struct.pack("<ii", 30000, -30000)
    tiff = bytearray(cv2.imencode(".tif", tiny)[1].tobytes())
    for tag in (256, 257):  # width, height: kind, count, value
        at = tiff.index(struct.pack("<HH", tag, 3))
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 30000)
    return {"png": bytes(png), "jpg": bytes(jpeg), "bmp": bytes(bmp), "tif": bytes(tiff)}


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_giant_image(tmp_path: Path, suffix: str) -> None:
    """As a frame to track, and to learn from."""
    from maskring.runtime.video.images import read_image

    path = tmp_path / f"giant.{suffix}"
    path.write_bytes(giant_images()[suffix])
    with raises_user_error(SourceError, mentions=(path.name, "30000")):
        read_image(path)


def test_giant_video(tmp_path: Path) -> None:
    """A few bytes of GIF that FFmpeg would unpack to gigabytes."""
    from maskring.runtime.video.open_source import open_source
    from maskring.training.clips import read_frames

    image = Image.fromarray(moving_square(0)[0])
    image.save(tmp_path / "clip.gif")
    content = bytearray((tmp_path / "clip.gif").read_bytes())
    struct.pack_into("<HH", content, 6, 16000, 16000)
    (tmp_path / "clip.gif").write_bytes(content)
    with raises_user_error(SourceError, mentions=("clip.gif", "megapixels")):
        open_source(tmp_path / "clip.gif")
    assert list(read_frames(tmp_path / "clip.gif", 0, 1)) == []


def test_half_a_jpeg(tmp_path: Path) -> None:
    """The decoder fills what is missing with grey: a frame that was half copied would be tracked."""
    from maskring.runtime.video.images import read_image

    path = tmp_path / "half.jpg"
    data = cv2.imencode(".jpg", moving_square(0)[0])[1].tobytes()
    path.write_bytes(data + b"\0" * 16)  # some cameras pad
    read_image(path)
    path.write_bytes(data[: len(data) // 2])
    with raises_user_error(SourceError, mentions=("half.jpg",)):
        read_image(path)


def test_video_that_claims_two_billion_frames(tmp_path: Path) -> None:
    from maskring.runtime.video.open_source import open_source

    path = write_video(tmp_path / "clip.avi", 6, codec="MJPG")
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[at : at + 4] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    with open_source(path) as source:
        assert source.length is not None and source.length > 10**8
        assert sum(1 for _ in source) == 6
        assert source.undecodable > 10**8


def test_mask_of_a_name_too_long(tmp_path: Path) -> None:
    from maskring.runtime.video.masks import read_mask

    with pytest.raises(MaskError):
        read_mask(tmp_path / ("x" * 300 + ".png"))
