"""What several test files share: a tiny synthetic scene, a tiny checkpoint and its export."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from once import alone

EXPORTS = Path(__file__).resolve().parents[2] / "build" / "test_exports"

HEIGHT, WIDTH = 48, 64

TINY_ENCODER: dict[str, Any] = {"stem": 8, "stages": (8,) * 4, "blocks": (1,) * 4, "channels": 8}
"""Arguments of an ``EncoderConfig`` with a few channels."""


def moving_square(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame [H, W, 3] and mask [H, W] of a bright square that moves over a textured ground."""
    ground = np.random.default_rng(0).integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    left = 12 + 2 * index
    mask[16:32, left : left + 16] = 1
    ground[mask > 0] = (240, 200, 40)
    return ground, mask


def write_frames(folder: Path, count: int, *, first: int = 0) -> Path:
    """A new folder of frames of the moving square from frame ``first`` of its way."""
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:05d}.png"), moving_square(first + index)[0][..., ::-1])
    return folder


def write_video(path: Path, count: int, *, first: int = 0, codec: str = "mp4v", fps: float = 25.0) -> Path:
    """A video of the moving square from frame ``first`` of its way, which it begins again at the right edge."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (WIDTH, HEIGHT))
    for index in range(first, first + count):
        writer.write(np.ascontiguousarray(moving_square(index % 18)[0][..., ::-1]))
    writer.release()
    return path


def write_davis(root: Path, lengths: Mapping[str, int], splits: Sequence[str] = ("val",)) -> Path:
    """A dataset in DAVIS layout, annotated throughout: each sequence has so many frames of the moving square.

    The n-th sequence begins n frames later in its way, so that no two are alike.
    """
    from maskring.runtime.video.masks import write_mask

    for start, (name, length) in enumerate(lengths.items()):
        images, masks = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(length):
            image, mask = moving_square(start + index)
            cv2.imwrite(str(images / f"{index:05d}.jpg"), image[..., ::-1])
            write_mask(masks / f"{index:05d}.png", mask)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    for split in splits:
        (root / "ImageSets" / "2017" / f"{split}.txt").write_text("\n".join(lengths))
    return root


def write_tiny_checkpoint(path: Path, patch: int = 0, inputs: int = 3, pyramid: bool = False) -> Path:
    """A checkpoint with a few channels and fixed random weights: exports and runs in a moment."""
    import torch

    from maskring.training.checkpoint import Checkpoint, save_checkpoint
    from maskring.training.network.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    config = EncoderConfig(**TINY_ENCODER, patch=patch, inputs=inputs, pyramid=pyramid)
    save_checkpoint(path, Checkpoint(config=config, query=Encoder(config).state_dict()))
    return path


def export_tiny_model(folder: Path, radius: int = 3) -> Path:
    """Write ``tiny.safetensors`` and its export ``tiny.onnx``; exported once for all tests that want it."""
    from maskring import common, export, plugins, runtime, training
    from maskring.export.onnx_export import export_onnx

    checkpoint = write_tiny_checkpoint(folder / "tiny.safetensors")
    digest = hashlib.sha256(Path(__file__).read_bytes())
    folders = [
        Path(path) for package in (common, plugins, runtime, training, export) for path in package.__path__
    ]
    for source in sorted(source for folder in folders for source in folder.rglob("*.py")):
        digest.update(source.read_bytes())
    made = EXPORTS / f"radius{radius}-{digest.hexdigest()[:16]}.onnx"
    kept = made.with_suffix(
        ".safetensors"
    )  # the export names its digest, and no two files have the same bytes
    with alone(made) as missing:
        if missing:
            shutil.copy(checkpoint, kept)
            export_onnx(checkpoint, made, radius=radius)
    shutil.copy(kept, checkpoint)
    return Path(shutil.copy(made, folder / "tiny.onnx"))
