"""Clips of dividing cells from the Cell Tracking Challenge (Fluo-N2DL-HeLa): footage that no checkpoint has seen.

    python bench/cells.py SEQUENCES --out cells
    maskring train tune --start pico --data cells/unlabelled --out tuned
    maskring evaluate --davis cells --split val --model tuned/checkpoint.safetensors --out masks --json scores.json

SEQUENCES holds the challenge's folders of 16-bit TIFF: `02` with its silver truth `02_ST/SEG`, which is labelled, and
any of `01` and `03`, which are for training. Windows of 284x160 pixels are enlarged to 854x480. The six labelled
windows hold most nuclei, and of those the ones that move farthest. A nucleus counts if it stays in the window for all
60 frames without dividing and without jumps of area or place. The challenge's terms allow research with its data, but
not passing it on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from maskring.runtime.video.masks import write_mask

WINDOW, SIZE = (160, 284), (480, 854)
"""(H, W) of a window, and of its frames."""

FRAMES = 60
STARTS = 0, 30
CLIPS = 6
MOST_OBJECTS, FEWEST_OBJECTS = 6, 3
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]

Images = NDArray[np.uint8]
Truth = NDArray[np.uint16]
"""Numbers of nuclei, which keep them over time; 0 is background."""


class Nucleus(NamedTuple):
    """A nucleus over the frames of a clip.

    Attributes:
        box: (left, top, right, bottom) of all frames together.
        moved: distance between its first and its last place, in pixels.
    """

    box: tuple[int, int, int, int]
    moved: float


class Window(NamedTuple):
    """A labelled clip: its first frame, its upper left corner, and the nuclei inside."""

    start: int
    x: int
    y: int
    nuclei: dict[int, Nucleus]

    @property
    def moved(self) -> float:
        return sum(nucleus.moved for nucleus in self.nuclei.values())


def read_images(folder: Path) -> NDArray[np.uint16]:
    """[T, H, W] of a folder of 16-bit images."""
    images = {path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.tif"))}
    if not images or any(image is None for image in images.values()):
        raise SystemExit(f"{folder} holds no TIFF images, or damaged ones; get the challenge's dataset again")
    return np.stack([np.asarray(image, np.uint16) for image in images.values()])


def as_video(stack: NDArray[np.uint16]) -> Images:
    """[T, H, W] uint8 of 16-bit images [T, H, W]."""
    low, high = np.percentile(stack[::10], (0.5, 99.7))
    return np.asarray(np.clip((stack.astype(np.float32) - low) / (high - low), 0, 1) ** 0.7 * 255, np.uint8)


def tracked_nuclei(truth: Truth) -> dict[int, Nucleus]:
    """The nuclei of a clip [T, H, W] that last, neither divide nor jump."""
    nuclei = {}
    for number in set.intersection(*(set(np.unique(frame).tolist()) for frame in truth)) - {0}:
        pixels = [np.nonzero(frame == number) for frame in truth]
        corners = np.array([(x.min(), y.min(), x.max(), y.max()) for y, x in pixels])
        area = np.array([y.size for y, _ in pixels])
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        steps = np.hypot(*np.diff(centres, axis=0).T)
        growth = area[1:] / area[:-1]
        if area.min() < 60 or growth.max() > 1.9 or growth.min() < 0.52 or steps.max() > 18:
            continue
        box = (*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist())
        nuclei[number] = Nucleus(box, float(np.hypot(*(centres[-1] - centres[0]))))
    return nuclei


def windows(truth: Truth) -> list[Window]:
    """The best :data:`CLIPS` windows that do not overlap."""
    height, width = WINDOW
    candidates = []
    for start in STARTS:
        nuclei = tracked_nuclei(truth[start : start + FRAMES])
        for x in range(4, truth.shape[2] - width - 4, 28):
            for y in range(4, truth.shape[1] - height - 4, 20):
                inside = {number: one for number, one in nuclei.items() if _is_inside(one.box, x, y)}
                if len(inside) >= FEWEST_OBJECTS:
                    candidates.append(Window(start, x, y, inside))
    candidates.sort(key=lambda window: (-min(len(window.nuclei), MOST_OBJECTS), -window.moved))
    chosen: list[Window] = []
    for window in candidates:
        if all(abs(window.x - other.x) >= width or abs(window.y - other.y) >= height for other in chosen):
            chosen.append(window)
    return chosen[:CLIPS]


def _is_inside(box: tuple[int, int, int, int], x: int, y: int) -> bool:
    left, top, right, bottom = box
    return left >= x + 2 and top >= y + 2 and right < x + WINDOW[1] - 2 and bottom < y + WINDOW[0] - 2


def enlarged(frame: NDArray[np.uint8], x: int, y: int, interpolation: int) -> NDArray[np.uint8]:
    """A window of a frame at :data:`SIZE`."""
    window = frame[y : y + WINDOW[0], x : x + WINDOW[1]]
    return np.asarray(cv2.resize(window, SIZE[::-1], interpolation=interpolation), np.uint8)


def write_frames(frames: Images, x: int, y: int, folder: Path) -> None:
    """A window of all frames as JPEG."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        picture = cv2.cvtColor(enlarged(frame, x, y, cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), picture, JPEG)


def write_labelled(frames: Images, truth: Truth, out: Path) -> None:
    """Clips in the layout of DAVIS-2017."""
    names = []
    for number, window in enumerate(windows(truth), 1):
        name = f"cells-{number}"
        part = slice(window.start, window.start + FRAMES)
        first = truth[window.start]
        largest = sorted(window.nuclei, key=lambda nucleus: -int((first == nucleus).sum()))[:MOST_OBJECTS]
        write_frames(frames[part], window.x, window.y, out / "JPEGImages" / "480p" / name)
        masks = out / "Annotations" / "480p" / name
        masks.mkdir(parents=True)
        for index, labels in enumerate(truth[part]):
            ids = np.zeros(labels.shape, np.uint8)
            for label, nucleus in enumerate(largest, 1):
                ids[labels == nucleus] = label
            write_mask(masks / f"{index:05d}.png", enlarged(ids, window.x, window.y, cv2.INTER_NEAREST))
        names.append(name)
    lists = out / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(names) + "\n")


def write_unlabelled(frames: Images, name: str, out: Path) -> None:
    """Sixteen windows over the whole picture, without those that are almost empty."""
    (height, width), (rows, columns) = WINDOW, frames.shape[1:]
    for x in np.linspace(0, columns - width, 4).astype(int):
        for y in np.linspace(0, rows - height, 4).astype(int):
            if (frames[:, y : y + height, x : x + width] > 110).mean() >= 0.01:
                write_frames(frames, x, y, out / f"{name}-{x:03d}-{y:03d}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sequences", type=Path, help="the folder that holds 01, 02, 02_ST and 03")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    frames = as_video(read_images(options.sequences / "02"))
    write_labelled(frames, read_images(options.sequences / "02_ST" / "SEG"), options.out)
    for name in ("01", "03"):
        if (options.sequences / name).is_dir():
            write_unlabelled(
                as_video(read_images(options.sequences / name)), name, options.out / "unlabelled"
            )


if __name__ == "__main__":
    main()
