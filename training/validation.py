"""How well features carry labels through real video: one number to watch while training.

It is the region similarity J of tracking at a reduced size. ``maskring evaluate`` gives the benchmark's
measures, through the exported model; this gives their trend, without leaving the training process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..common.errors import SourceError
from ..plugins.windowed_affinity.cpu_op import windowed_affinity
from ..runtime.video.folders import images_in
from .checkpoint import SMOOTHING, AffinitySettings
from .clips import Image, read_image
from .network.colour import normalise_lab, rgb_to_lab
from .network.encoder import STRIDE, Encoder
from .network.upsampling import upsample

Maps = npt.NDArray[np.float32]

BENCHMARK_SIZE = 480  # short side at which a checkpoint's radius is meant
FIRST_FRAMES, AGES = (0, 5), (1, 3, 5)  # read from memory; arXiv 2006.12480
RESOLUTIONS = ("480p", "Full-Resolution", "")  # folders below JPEGImages and Annotations, best first


@dataclass(frozen=True)
class LabelledSequence:
    """Frames from the first annotated one on.

    Attributes:
        name: of the folder.
        frames: image files in order.
        masks: frame index -> mask file; frame 0 has one, and two more at least.
    """

    name: str
    frames: tuple[Path, ...]
    masks: dict[int, Path]


def find_sequences(root: Path, limit: int | None = None) -> list[LabelledSequence]:
    """Sequences of a folder in DAVIS or YouTube-VOS layout that have masks to score against.

    Args:
        root: holds ``JPEGImages`` and ``Annotations``.
        limit: at most so many, evenly spread over the names; None for all.

    Raises:
        SourceError: when there are none.
    """
    for resolution in RESOLUTIONS:
        images, masks = root / "JPEGImages" / resolution, root / "Annotations" / resolution
        folders = sorted(images.iterdir()) if images.is_dir() and masks.is_dir() else []
        paired = [_paired(folder, masks / folder.name) for folder in folders if folder.is_dir()]
        if found := [sequence for sequence in paired if sequence is not None]:
            count = min(limit or len(found), len(found))
            return [found[index * len(found) // count] for index in range(count)]
    raise SourceError(
        f"{root} holds no sequence with at least three masks",
        "name a folder with JPEGImages and Annotations, as DAVIS has them",
    )


def _paired(images: Path, masks: Path) -> LabelledSequence | None:
    named = {path.stem: path for path in masks.glob("*.png")}
    frames = images_in(images)
    first = next((index for index, path in enumerate(frames) if path.stem in named), len(frames))
    frames = frames[first:]
    known = {index: named[path.stem] for index, path in enumerate(frames) if path.stem in named}
    return LabelledSequence(images.name, tuple(frames), known) if len(known) >= 3 else None


def propagation_score(
    encoder: Encoder,
    root: Path,
    *,
    size: int = 240,
    tracking: AffinitySettings | None = None,
    sequences: int | None = None,
) -> dict[str, float]:
    """Follow the objects of each first mask, and compare with the other masks.

    Args:
        encoder: on any device, in evaluation mode; it is not changed.
        root: see :func:`find_sequences`.
        size: short side of the frames, in pixels. The radius shrinks with it, since it is meant at 480.
        tracking: how features are compared.
        sequences: how many to use, None for all.

    Returns:
        Mean J in percent: by sequence, and over all objects under ``mean``. Objects count that the first
        mask shows; first and last mask do not count, as in DAVIS.

    Raises:
        SourceError: when ``root`` holds no labelled sequence, or an image cannot be decoded.
    """
    tracking = tracking or AffinitySettings()
    scores: dict[str, list[float]] = {}
    for sequence in find_sequences(root, sequences):
        scores[sequence.name] = _object_scores(encoder, sequence, size, tracking)
    means = {name: 100 * float(np.mean(objects)) for name, objects in scores.items() if objects}
    everything = [score for objects in scores.values() for score in objects]
    if not everything:
        raise SourceError(f"no first mask in {root} shows an object", "mark one in the first frames")
    return {**means, "mean": 100 * float(np.mean(everything))}


def validator(
    root: Path, tracking: AffinitySettings, sequences: int | None = 10
) -> Callable[[Encoder], float]:
    """``train``'s validation on ``root``, which is looked at now, so that a wrong path is an error now.

    Raises:
        SourceError: as :func:`find_sequences`.
    """
    find_sequences(root)
    return lambda encoder: propagation_score(encoder, root, tracking=tracking, sequences=sequences)["mean"]


def _object_scores(
    encoder: Encoder, sequence: LabelledSequence, size: int, tracking: AffinitySettings
) -> list[float]:
    """Mean J of each object of a sequence, in 0..1."""
    first = _scaled(_read(sequence.masks[0], masks=True), size, cv2.INTER_NEAREST_EXACT)
    ids = _ids(first)
    colours = [colour for colour in np.unique(ids) if colour]
    objects = np.stack([ids == colour for colour in [0, *colours]])
    radius = max(1, round(tracking.radius * size / BENCHMARK_SIZE))
    memory = _Memory(radius, tracking)
    found: list[list[float]] = []
    last = max(sequence.masks)
    for index, path in enumerate(sequence.frames[:last]):
        frame = _scaled(_read(path), size, cv2.INTER_AREA)
        query, key = _features(encoder, frame)
        if index == 0:
            value = objects[:, ::STRIDE, ::STRIDE].astype(np.float32)
        else:
            probabilities = _smoothed(memory.read(query), query, key, tracking)
            value = np.eye(len(objects), dtype=np.float32)[probabilities.argmax(0)].transpose(2, 0, 1)
            if index in sequence.masks:
                mask = _read(sequence.masks[index], masks=True)
                truth = _ids(_scaled(mask, size, cv2.INTER_NEAREST_EXACT))
                labels = _labels(probabilities, truth.shape)
                found.append([region_similarity(labels == i + 1, truth == c) for i, c in enumerate(colours)])
        memory.write(key, value)
    return [float(mean) for mean in np.mean(found, axis=0)]


class _Memory:
    """Features and labels of the frames that are read again."""

    def __init__(self, radius: int, tracking: AffinitySettings) -> None:
        self._radius, self._tracking, self._clock = radius, tracking, 0
        self._frames: dict[int, tuple[Maps, Maps]] = {}

    def read(self, query: Maps) -> Maps:
        """What memory says of the labels [O, h, w] of the frame with features [C, h, w]."""
        wanted = {*FIRST_FRAMES, *(self._clock - age for age in AGES)}
        read = [self._frames[frame] for frame in sorted(wanted) if frame in self._frames]
        keys, values = (np.stack(maps)[None] for maps in zip(*read, strict=True))
        return np.asarray(
            windowed_affinity(
                query[None],
                keys,
                values,
                np.ones((1, len(read)), np.int32),
                radius=self._radius,
                scale=self._tracking.scale,
                top_k=self._tracking.top_k,
            )[0]
        )

    def write(self, key: Maps, value: Maps) -> None:
        """Take the current frame in; the next one becomes current."""
        self._frames[self._clock] = (key, value)
        aged_out = self._clock - max(AGES)
        if aged_out not in FIRST_FRAMES:
            self._frames.pop(aged_out, None)
        self._clock += 1


def _smoothed(read: Maps, query: Maps, key: Maps, tracking: AffinitySettings) -> Maps:
    """What was read [O, h, w], smoothed by the frame's own features as tracking does it."""
    if not tracking.smooth:
        return read
    window: dict[str, Any] = {"radius": tracking.smooth, "scale": SMOOTHING * tracking.scale}
    one_slot = np.ones((1, 1), np.int32)
    return np.asarray(
        windowed_affinity(query[None], key[None, None], read[None, None], one_slot, **window)[0]
    )


@torch.no_grad()
def _features(encoder: Encoder, frame: Image) -> tuple[Maps, Maps]:
    """Query and key of an RGB frame, [C, h, w] each."""
    device = next(encoder.parameters()).device
    image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 255
    query = encoder(normalise_lab(rgb_to_lab(image)))
    key = encoder.keys(query)
    first, second = (features[0].float().contiguous().cpu().numpy() for features in (query, key))
    return first, second


def _labels(probabilities: Maps, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    large = upsample(torch.from_numpy(probabilities)[None], shape[0], shape[1], STRIDE)
    return np.asarray(large[0].argmax(0).numpy())


def region_similarity(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """J: intersection over union of two masks [H, W], in 0..1; 1 when both are empty."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def _read(path: Path, masks: bool = False) -> Image:
    """[H, W, 3] uint8; frames RGB, and masks in the colours of their palette."""
    image = read_image(path)
    return np.asarray(image if masks else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _scaled(image: Image, size: int, method: int) -> Image:
    height, width = image.shape[:2]
    scale = size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    method = cv2.INTER_LINEAR if scale > 1 and method == cv2.INTER_AREA else method
    return np.asarray(cv2.resize(image, shape, interpolation=method), np.uint8)


def _ids(mask: Image) -> npt.NDArray[np.int64]:
    """A number per colour, [H, W]; black, the background, is 0."""
    blue, green, red = (mask[..., channel].astype(np.int64) for channel in range(3))
    return (red << 16) | (green << 8) | blue
