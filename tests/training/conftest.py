"""Small footage and a small encoder for training tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskring.training.network.encoder import PRESETS, EncoderConfig
from maskring.training.recipe import Recipe

WIDTH, HEIGHT = 64, 48


def drawn_frame(index: int, seed: int = 0) -> np.ndarray:
    """[H, W, 3] uint8: coloured blobs that drift over a coloured ground; distinct for every index."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    frame = np.roll(ground, index, axis=1)
    for colour in rng.integers(0, 256, (3, 3)):
        x, y = rng.integers(8, 40, 2)
        cv2.circle(frame, (int(x) + index % 16, int(y) % HEIGHT), 6, colour.tolist(), -1)
    return frame


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of this size are quicker without company, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded frames of tests stay among their files."""
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


@pytest.fixture
def make_video() -> Callable[..., Path]:
    def make(path: Path, frames: int = 12, seed: int = 0) -> Path:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
        assert writer.isOpened()
        for index in range(frames):
            writer.write(drawn_frame(index, seed))
        writer.release()
        return path

    return make


@pytest.fixture
def make_folder() -> Callable[..., Path]:
    def make(path: Path, frames: int = 12, seed: int = 0) -> Path:
        path.mkdir(parents=True)
        for index in range(frames):
            cv2.imwrite(str(path / f"{index:05d}.png"), drawn_frame(index, seed))
        return path

    return make


@pytest.fixture
def footage(tmp_path: Path, make_video: Callable[..., Path], make_folder: Callable[..., Path]) -> Path:
    """Two clips: a video and a folder of frames."""
    root = tmp_path / "footage"
    root.mkdir()
    make_video(root / "one.avi")
    make_folder(root / "two", seed=1)
    return root


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an encoder preset that trains in a moment."""
    config = EncoderConfig(stem=8, stages=(8, 8, 8, 8), blocks=(1, 1, 1, 1), channels=16)
    monkeypatch.setitem(PRESETS, "tiny", config)
    return "tiny"


@pytest.fixture
def recipe(tiny_preset: str) -> Recipe:
    """Six steps on tiny crops."""
    return Recipe(
        name="test",
        encoder=tiny_preset,
        seed=3,
        steps=6,
        clips=2,
        frames=3,
        short_side=40,
        crop=32,
        radius=2,
        warmup=2,
        learning_rate=5e-3,
        precision="float32",
        save_every=2,
    )
