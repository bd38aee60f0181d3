"""Decoding by turns: maskring's reader (FFmpeg through PyAV) against OpenCV's, frames a second of RGB.

    python bench/decoding.py VIDEO [--turns 5]

Prints the median of the turns, and how far the pictures of both differ.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from maskring.common.types import Image
from maskring.runtime.video.containers import open_file
from maskring.runtime.video.decoding import Decoder

COMPARED = 30
"""Frames whose pixels are compared."""


def by_pyav(video: Path) -> Iterator[Image]:
    with contextlib.closing(open_file(video)) as container:
        for frame in Decoder(container, str(video)).frames():
            yield frame.image


def by_opencv(video: Path) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    while True:
        decoded, image = capture.read()
        if not decoded:
            break
        yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    capture.release()


def rate(read: Callable[[Path], Iterator[Image]], video: Path) -> float:
    """Frames per second of one pass."""
    start = time.perf_counter()
    count = sum(1 for _ in read(video))
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    readers = {"PyAV": by_pyav, "OpenCV": by_opencv}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(arguments.turns):
        for name, read in readers.items():
            rates[name].append(rate(read, arguments.video))
    for name, values in rates.items():
        print(f"{name:7} {statistics.median(values):6.1f} fps ({min(values):.1f} to {max(values):.1f})")
    pairs = zip(islice(by_pyav(arguments.video), COMPARED), by_opencv(arguments.video), strict=False)
    differences = [np.abs(ours.astype(int) - theirs) for ours, theirs in pairs]
    mean, most = np.mean([d.mean() for d in differences]), max(d.max() for d in differences)
    print(f"pixels differ by {mean:.3f} of 255 on average, {most} at most")


if __name__ == "__main__":
    main()
