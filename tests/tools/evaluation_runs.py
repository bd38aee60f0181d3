"""Rendered datasets, and evaluations of a tracker that repeats the first mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from vos_benchmark.benchmark import VideoEvaluator

from maskring.runtime.evaluation.protocol import evaluate
from maskring.runtime.evaluation.report import Evaluation
from maskring.runtime.video.masks import write_mask
from maskring.runtime.video.synthetic import render_clip

HEIGHT, WIDTH, FRAMES = 90, 160, 10


@dataclass
class Labelled:
    """A tracker's result, as far as evaluation reads it."""

    labels: np.ndarray


class Baseline:
    """Repeats the first mask; remembers what it was told."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.prompts: dict[int, np.ndarray] = {}
        self.closed = False

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Labelled:
        if mask is not None:
            self.prompts[len(self.frames)] = mask
        self.frames.append(frame)
        labels = np.zeros(frame.shape[:2], np.uint8)
        for prompt in self.prompts.values():
            labels = np.where(prompt > 0, prompt, labels)
        return Labelled(labels)

    def close(self) -> None:
        self.closed = True


Write = Callable[[Path, np.ndarray], object]


def write_palette(path: Path, labels: np.ndarray) -> None:
    write_mask(path, labels)


def write_white(path: Path, labels: np.ndarray) -> None:
    """DAVIS-2016: one object, 255 in a grey PNG."""
    Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).save(path)


def write_white_with_alpha(path: Path, labels: np.ndarray) -> None:
    white = np.where(labels > 0, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([white, np.full_like(white, 255)])).save(path)


def write_clip(
    images: Path, masks: Path, clip: Iterable[tuple[np.ndarray, np.ndarray]], write: Write
) -> None:
    """New folders of a clip's frames and masks."""
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for index, (image, labels) in enumerate(clip):
        cv2.imwrite(str(images / f"{index:05d}.jpg"), image[..., ::-1])
        write(masks / f"{index:05d}.png", labels)


def davis(root: Path, forms: dict[str, Write], frames: int = FRAMES) -> Path:
    """A dataset of rendered clips; each sequence with masks in its own form."""
    for seed, (name, write) in enumerate(forms.items()):
        images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        write_clip(images, masks, render_clip(HEIGHT, WIDTH, frames, seed), write)
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(forms) + "\n")
    return root


def run(root: Path, split: str = "val", size: int | None = None) -> tuple[Evaluation, Path, list[Baseline]]:
    out = root.parent / "out"
    trackers: list[Baseline] = []

    def new_tracker() -> Baseline:
        trackers.append(Baseline())
        return trackers[-1]

    return evaluate(root, split, new_tracker, out, root.parent / "scores.json", size=size), out, trackers


def vos_benchmark(
    annotations: Path, predictions: Path, name: str
) -> tuple[dict[int, float], dict[int, float]]:
    """J and F by object."""
    return VideoEvaluator(str(annotations), str(predictions))(name)[1:]


def youtube_vos(root: Path, annotated: dict[int, set[int]]) -> Path:
    """A YouTube-VOS sequence: frame -> ids that its mask shows."""
    images, masks = root / "valid/JPEGImages/0a1b", root / "valid/Annotations/0a1b"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index, (image, labels) in enumerate(render_clip(HEIGHT, WIDTH, 12)):
        cv2.imwrite(str(images / f"{index:05d}.jpg"), image[..., ::-1])
        if index in annotated:
            write_mask(
                masks / f"{index:05d}.png", np.where(np.isin(labels, list(annotated[index])), labels, 0)
            )
    return root
