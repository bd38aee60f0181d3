"""A tiny checkpoint, its exported model and a short clip, made once: enough to run every command for real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from support import export_tiny_model, moving_square, write_frames

FRAMES = 6


@dataclass(frozen=True)
class Workspace:
    """Files that the commands under test read."""

    checkpoint: Path
    model: Path
    frames: Path
    mask: Path


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    from maskring.runtime.video.masks import write_mask

    root = tmp_path_factory.mktemp("workspace")
    frames = write_frames(root / "frames", FRAMES)
    write_mask(root / "mask.png", moving_square(0)[1])
    model = export_tiny_model(root)
    return Workspace(root / "tiny.safetensors", model, frames, root / "mask.png")
