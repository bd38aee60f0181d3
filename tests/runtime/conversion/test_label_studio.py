"""Brush strokes of Label Studio, read bit by bit as its brush tool does, and by its own package where there is one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskring.runtime.conversion.label_studio import encode_brush, write_label_studio
from maskring.runtime.conversion.result import TrackedMasks
from maskring.runtime.pipeline.progress import no_progress
from maskring.runtime.video.masks import write_mask

READER = "MASKRING_LABEL_STUDIO_PYTHON"
"""Names the Python of an environment with label-studio-sdk, which cannot share one with opencv-python."""

DECODE = """
import json, sys
import numpy as np
from label_studio_sdk.converter import brush
areas = []
for task in json.load(open(sys.argv[1])):
    (prediction,) = task["predictions"]
    layers = brush.decode_from_annotation("tag", [
        {"type": one["type"], "original_width": one["original_width"], "original_height": one["original_height"],
         **one["value"]} for one in prediction["result"]])
    areas.append({name: np.argwhere(mask).tolist() for name, mask in layers.items()})
json.dump(areas, sys.stdout)
"""


def decode(data: list[int]) -> np.ndarray:
    """The bytes of the RGBA picture: a reader of single bits, after what the format says."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        assert at <= len(bits)
        return int(bits[at - count : at], 2)

    size, word = read(32), read(5) + 1
    kinds = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < size:
        is_run = read(1)
        length = read(kinds[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(values) == size and len(bits) - at < 8
    return np.array(values, np.uint8)


def check(shape: np.ndarray) -> None:
    pixels = decode(encode_brush(shape)).reshape(*shape.shape, 4)
    np.testing.assert_array_equal(pixels, np.repeat((shape > 0)[..., None] * 255, 4, axis=2))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_mask(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    check(np.repeat(shape, rng.integers(1, 6), axis=1))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 63, 64, 65, 16383, 16384, 16385, 32768, 40000])
@pytest.mark.parametrize("value", [0, 1])
def test_runs_as_long_as_a_length_holds_and_longer(count: int, value: int) -> None:
    check(np.full((1, count), value, np.uint8))
    check(np.pad(np.full((1, count), value, np.uint8), ((0, 0), (1, 1)), constant_values=1 - value))


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    (tmp_path / "clip").mkdir()
    for index in range(3):
        write_mask(tmp_path / f"clip/f{index}.png", labels(index))
    return tmp_path / "clip"


def labels(index: int) -> np.ndarray:
    ids = np.zeros((240, 321), np.uint8)
    cv2.circle(ids, (90 + index, 100), 60, 1, -1)
    cv2.circle(ids, (90 + index, 100), 20, 0, -1)
    ids[7, 300] = 2
    if index:
        ids[150:, 200:] = 3
    return ids


def test_a_task_per_frame(tracked: Path) -> None:
    out = tracked.parent / "a.json"
    assert write_label_studio(TrackedMasks(tracked), out, {1: "ring", 2: "dot", 3: "ring"}, no_progress) == []
    tasks = json.loads(out.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d=clip/f{index}.jpg" for index in range(3)
    ]
    for index, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        ids = np.zeros((240, 321), np.uint8)
        for one in prediction["result"]:
            assert (one["original_width"], one["original_height"]) == (321, 240)
            number = int(one["meta"]["text"][0].rpartition(" ")[2])
            assert one["value"]["brushlabels"] == [{1: "ring", 2: "dot", 3: "ring"}[number]]
            ids[decode(one["value"]["rle"]).reshape(240, 321, 4)[..., 0] > 0] = number
        np.testing.assert_array_equal(ids, labels(index))


def test_label_studio_reads_the_same_pixels(tracked: Path) -> None:
    if not (python := os.environ.get(READER)):
        pytest.skip(f"{READER} names no Python with label-studio-sdk")
    out = tracked.parent / "a.json"
    write_label_studio(TrackedMasks(tracked), out, {1: "ring", 2: "dot", 3: "box"}, no_progress)
    done = subprocess.run([python, "-c", DECODE, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for index, layers in enumerate(json.loads(done.stdout)):
        assert len(layers) == len(np.unique(labels(index))) - 1
        for name, places in layers.items():
            number = next(one for one, word in {1: "ring", 2: "dot", 3: "box"}.items() if word in name)
            np.testing.assert_array_equal(places, np.argwhere(labels(index) == number))
