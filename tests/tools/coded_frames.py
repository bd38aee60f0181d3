"""Frames that show their numbers, fake captures and readers: for the tests of sources."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from maskring.runtime.video.frame import Frame
from maskring.runtime.video.opencv import CaptureConnection, silence_opencv

HEIGHT, WIDTH, BITS = 64, 96, 6


def coded(number: int) -> np.ndarray:
    """A frame [H, W, 3] RGB that shows its number as black and white bars, which survive compression."""
    bars = np.repeat([number >> bit & 1 for bit in range(BITS)], WIDTH // BITS)
    return np.broadcast_to(bars[None, :, None] * 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    """What :func:`coded` wrote."""
    middles = image[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS, 0]
    return sum(int(value > 128) << bit for bit, value in enumerate(middles))


def write_video(path: Path, frames: int = 20, fps: float = 25.0, codec: str = "mp4v") -> Path:
    silence_opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(coded(number)[..., ::-1])
    writer.release()
    return path


def write_folder(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), coded(number)[..., ::-1])
    return folder


class FakeCapture:
    """A capture whose frames are given; ``None`` stands for one that cannot be decoded."""

    def __init__(self, images: list[np.ndarray | None], *, fps: float = 25.0, opened: bool = True) -> None:
        self.images = list(images)
        self.properties = {cv2.CAP_PROP_FPS: fps}
        self.opened = opened
        self.released = False
        self.now: np.ndarray | None = None

    def isOpened(self) -> bool:
        return self.opened

    def grab(self) -> bool:
        assert not self.released
        self.now = self.images.pop(0) if self.images else None
        return self.now is not None

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return True, self.now

    def get(self, prop: int, /) -> float:
        return self.properties.get(prop, 0.0)

    def release(self) -> None:
        self.released = True


class FakeReader:
    """A reader whose frames come from a generator function."""

    fps, size, length, undecodable, reconnects = 25.0, (HEIGHT, WIDTH), None, 0, 0
    counted = False

    def __init__(self, generate: Callable[[], Iterator[Frame]], *, endless: bool = True) -> None:
        self.generate = generate
        self.endless = endless
        self.closed = False

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        return self.generate()

    def close(self) -> None:
        self.closed = True


class NoWaiting(threading.Event):
    """An event that notes how long it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


def blank(index: int) -> Frame:
    return Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), index, index / 25, str(index))


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decode"]


def damaged_avi(path: Path, numbers: list[int]) -> Path:
    """A video in which the data of some frames was overwritten by zeros."""
    content = bytearray(write_video(path, frames=40, codec="MJPG").read_bytes())
    position = content.index(b"movi")
    for number in range(40):
        position = content.index(b"00dc", position + 1)
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if number in numbers:
            content[position + 8 : position + 8 + size] = bytes(size)
    path.write_bytes(content)
    return path


def camera(*images: np.ndarray | None, name: str = "camera 0", **more: float) -> CaptureConnection:
    return CaptureConnection(FakeCapture(list(images), **more), name)
