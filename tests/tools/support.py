"""What several test files share: a tiny synthetic scene, a tiny checkpoint and its export."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from once import alone

KEPT = Path(__file__).resolve().parents[2] / "build" / "test_exports"

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
    """A checkpoint with a few channels and fixed random weights: exports and runs in a moment.

    For the same arguments it has the same bytes, which :func:`kept_exports` needs: the order of safetensors' metadata
    changes from process to process.
    """
    kept = KEPT / f"tiny-{patch}-{inputs}-{pyramid}-{_sources()}.safetensors"
    with alone(kept) as missing:
        if missing:
            import torch

            from maskring.training.checkpoint import Checkpoint, save_checkpoint
            from maskring.training.network.encoder import Encoder, EncoderConfig

            torch.manual_seed(0)
            config = EncoderConfig(**TINY_ENCODER, patch=patch, inputs=inputs, pyramid=pyramid)
            save_checkpoint(kept, Checkpoint(config=config, query=Encoder(config).state_dict()))
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(kept, path))


def export_tiny_model(folder: Path, radius: int = 3) -> Path:
    """Write ``tiny.safetensors`` and its export ``tiny.onnx``."""
    return kept_export(
        write_tiny_checkpoint(folder / "tiny.safetensors"), folder / "tiny.onnx", radius=radius
    )


def kept_export(checkpoint: Path, out: Path, **settings: Any) -> Path:
    """:func:`maskring.export.onnx_export.export_onnx`, with :func:`kept_exports`."""
    from maskring.export.onnx_export import export_onnx

    with kept_exports():
        export_onnx(checkpoint, out, **settings)
    return out


@contextmanager
def kept_exports() -> Iterator[None]:
    """What torch's exporter makes, seconds of work, is kept for all tests that export the same.

    Where it lies is decided by the checkpoint's bytes, the settings, maskring's code and the exporters' versions.
    """
    import onnx

    from maskring.export import onnx_export

    step_model = onnx_export.step_model

    def kept_step_model(checkpoint: Any, metadata: Any) -> Any:
        digest = hashlib.sha256((metadata.to_json() + _sources()).encode()).hexdigest()[:16]
        kept = KEPT / f"{metadata.checkpoint}-{digest}.onnx"
        with alone(kept) as missing:
            if missing:
                partial = kept.with_suffix(".partial")
                partial.write_bytes(step_model(checkpoint, metadata).SerializeToString(deterministic=True))
                partial.rename(kept)
        return onnx.load(kept)

    with mock.patch.object(onnx_export, "step_model", kept_step_model):
        yield


@functools.cache
def _sources() -> str:
    """A digest of maskring's code, of this file and of the exporters' versions."""
    from maskring import common, export, plugins, runtime, training
    from maskring.export.export_cache import EXPORTERS

    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(repr([version(name) for name in EXPORTERS]).encode())
    folders = [
        Path(path) for package in (common, plugins, runtime, training, export) for path in package.__path__
    ]
    for source in sorted(source for folder in folders for source in folder.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
