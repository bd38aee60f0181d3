"""Decoding by turns: maskring's reader (FFmpeg through PyAV) against OpenCV's, which it replaced.

    python bench/decoding.py [VIDEO] [--turns 5]

Both decode into RGB in a thread that runs a few frames ahead, as `maskring track` does, with as many decoder threads
as there are cores. Prints the medians of processor time and of wall time for a frame, and how far the pictures
differ. Without VIDEO it decodes a clip that it writes: H.264, 1920x1080, 150 frames of a textured pan.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from maskring.runtime.video.frame import Frame
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.source import Source

COMPARED = 30
"""Frames whose pixels are compared."""


class OpenCVReader:
    """What maskring's reader did before it used PyAV."""

    endless = counted = False
    undecodable = reconnects = 0
    length = None

    def __init__(self, video: Path) -> None:
        threads = [cv2.CAP_PROP_N_THREADS, os.cpu_count() or 1]
        self._capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, threads)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        height, width = (
            self._capture.get(prop) for prop in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        )
        self.size = int(height), int(width)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index = 0
        while not stop.is_set():
            decoded, image = self._capture.read()
            if not decoded:
                return
            rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(rgb, index, index / self.fps, str(index))
            index += 1

    def close(self) -> None:
        self._capture.release()


READERS: dict[str, Callable[[Path], Source]] = {
    "PyAV": open_source,
    "OpenCV": lambda video: Source(OpenCVReader(video)),
}


def write_clip(path: Path) -> Path:
    """150 frames of 1920x1080 pixels: a disc moves over a ground with fine texture."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (140, 240, 3)).astype(np.uint8)
    ground = cv2.resize(coarse, (2400, 1400), interpolation=cv2.INTER_CUBIC).astype(int)
    ground = np.clip(ground + rng.integers(-20, 20, ground.shape), 0, 255)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for index in range(150):
            picture = np.ascontiguousarray(ground[index:, 2 * index :][:1080, :1920], np.uint8)
            cv2.circle(picture, (300 + 8 * index, 540), 150, (230, 60, 40), -1)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def time_frame(open_video: Callable[[Path], Source], video: Path) -> tuple[float, float]:
    """Milliseconds a frame of one pass: of processors, and on the wall."""
    processors, wall = time.process_time(), time.perf_counter()
    with open_video(video) as source:
        count = sum(1 for _ in source)
    processors, wall = time.process_time() - processors, time.perf_counter() - wall
    return 1000 * processors / count, 1000 * wall / count


def compare(video: Path) -> str:
    """How far the first pictures of both readers differ."""
    with READERS["PyAV"](video) as ours, READERS["OpenCV"](video) as theirs:
        pairs = islice(zip(ours, theirs, strict=False), COMPARED)
        differences = [np.abs(one.image.astype(int) - other.image) for one, other in pairs]
    mean, most = np.mean([d.mean() for d in differences]), max(d.max() for d in differences)
    return f"pixels differ by {mean:.3f} of 255 on average, {most} at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or write_clip(Path(folder) / "clip.mp4")
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for _ in range(arguments.turns):
            for name, open_video in READERS.items():
                times[name].append(time_frame(open_video, video))
        for name, values in times.items():
            processors, wall = (statistics.median(column) for column in zip(*values, strict=True))
            print(f"{name:7} {processors:5.2f} ms of processors a frame, {1000 / wall:5.1f} frames a second")
        print(compare(video))


if __name__ == "__main__":
    main()
