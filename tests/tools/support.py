"""What several test files share: a tiny synthetic scene and a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 48, 64


def moving_square(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame [H, W, 3] and mask [H, W] of a bright square that moves over a textured ground."""
    ground = np.random.default_rng(0).integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    left = 12 + 2 * index
    mask[16:32, left : left + 16] = 1
    ground[mask > 0] = (240, 200, 40)
    return ground, mask


def write_tiny_checkpoint(path: Path, patch: int = 0, inputs: int = 3, pyramid: bool = False) -> Path:
    """A checkpoint with a few channels and fixed random weights: exports and runs in a moment."""
    import torch

    from maskring.training.checkpoint import Checkpoint, save_checkpoint
    from maskring.training.network.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    shape = {"stem": 8, "stages": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "channels": 8}
    config = EncoderConfig(**shape, patch=patch, inputs=inputs, pyramid=pyramid)
    save_checkpoint(path, Checkpoint(config=config, query=Encoder(config).state_dict()))
    return path
