"""Frames and results to give to sinks, and what was written read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskring.runtime.tracking.result import ObjectState, Result, Timings
from maskring.runtime.video import sinks
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.overlay import draw_overlay

HEIGHT, WIDTH = 48, 64


def frame_at(index: int, height: int = HEIGHT, width: int = WIDTH) -> Frame:
    image = np.full((height, width, 3), (40, 4 * index, 120), np.uint8)
    return Frame(image, index, index / 25, f"f{index:03d}")


def result_of(frame: Frame) -> Result:
    labels = np.zeros(frame.image.shape[:2], np.uint8)
    labels[4:20, 2 + frame.index : 22 + frame.index] = 3
    objects = (
        ObjectState(3, 320, (2 + frame.index, 4, 22 + frame.index, 20), 0.87654321),
        ObjectState(5, 0, None, None),
        ObjectState(6, 0, None, float("nan")),
    )
    probabilities = np.zeros((4, 12, 16), np.float32)
    return Result(labels, probabilities, objects, Timings(0.0123456789, 0.001, 0.02), frame.index)


def write(sink: sinks.Sink, *indices: int) -> None:
    for index in indices:
        frame = frame_at(index)
        sink.write(frame, result_of(frame))


def pictures_in(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        pictures = [frame.image for frame in source]
        assert source.undecodable == 0 and len(pictures) == source.length
    return pictures


def shows(picture: np.ndarray, index: int) -> bool:
    """Whether a picture from a video is the overlay of a frame, but for compression."""
    frame = frame_at(index)
    return float(np.abs(picture.astype(int) - draw_overlay(frame.image, result_of(frame).labels)).mean()) < 8


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# JSON lines


def records(path: Path) -> list[dict[str, Any]]:
    content = path.read_text()
    assert not content or content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]
