"""A video with alpha, decoded by libvpx: opaque exactly where objects are, at the times of the frames."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.runtime.conversion.result import TrackedMasks
from maskring.runtime.conversion.webm import write_webm
from maskring.runtime.pipeline.progress import no_progress
from maskring.runtime.video.masks import write_mask
from maskring.runtime.video.palette import PALETTE

HEIGHT, WIDTH = 51, 73
TIMES = (0.5, 0.54, 0.7, 0.701)


def labels(index: int) -> np.ndarray:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    if index != 2:
        cv2.circle(ids, (25 + 4 * index, 25), 15, 1, -1)
        cv2.circle(ids, (25 + 4 * index, 25), 5, 0, -1)
        ids[3, 70] = 2
    return ids


def photograph(index: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.dstack([x * 3, y * 4, (x + y + index) * 2]).astype(np.uint8)


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    (tmp_path / "clip/masks").mkdir(parents=True)
    (tmp_path / "frames").mkdir()
    lines = []
    for index, time in enumerate(TIMES):
        write_mask(tmp_path / f"clip/masks/f{index}.png", labels(index))
        Image.fromarray(photograph(index)).save(tmp_path / f"frames/f{index}.png")
        lines.append(json.dumps({"name": f"f{index}", "index": index + 10, "timestamp": time}))
    (tmp_path / "clip/objects.jsonl").write_text("\n".join(lines))
    return tmp_path / "clip"


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time and RGBA picture of each frame. FFmpeg's own decoder of VP9 leaves alpha out."""
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.metadata["alpha_mode"] == "1"
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                frames.append((float(frame.pts * stream.time_base), frame.to_ndarray(format="rgba")))
    return frames


@pytest.mark.parametrize("with_images", [False, True])
def test_alpha_is_the_mask(tracked: Path, with_images: bool) -> None:
    out = tracked.parent / "a.webm"
    masks = TrackedMasks(tracked, tracked.parent / "frames" if with_images else None)
    assert write_webm(masks, out, {1: "a", 2: "b"}, no_progress) == []
    frames = decoded(out)
    times = [time for time, _ in frames]
    np.testing.assert_allclose(times, TIMES, atol=1e-3)
    for index, (_, pixels) in enumerate(frames):
        np.testing.assert_array_equal(pixels[..., 3], np.where(labels(index) > 0, 255, 0))
        expected = photograph(index) if with_images else PALETTE[labels(index)]
        inside = cv2.erode((labels(index) == 1).astype(np.uint8), np.ones((5, 5))) > 0
        assert index == 2 or inside.any()
        assert np.abs(pixels[..., :3].astype(int) - expected)[inside].max(initial=0) <= 8
        far = cv2.dilate((labels(index) > 0).astype(np.uint8), np.ones((9, 9))) == 0
        assert pixels[far].max() <= 4, "nothing else of the frame is in the video"


def test_images_of_another_size(tracked: Path) -> None:
    Image.new("RGB", (8, 8)).save(tracked.parent / "frames/f2.png")
    out = tracked.parent / "a.webm"
    with raises_user_error(SourceError, mentions=("f2.png", "size")):
        write_webm(TrackedMasks(tracked, tracked.parent / "frames"), out, {1: "a", 2: "b"}, no_progress)
    assert not out.exists() and not list(tracked.parent.glob("*webm*"))
