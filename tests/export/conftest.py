"""A Triton repository of the tiny checkpoint, and a machine that builds engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_builder
import pytest
from fake_builder import FakeBuilder, plugin_library
from pixel_model import write_pixel_model
from served_model import RADIUS
from support import HEIGHT, WIDTH, kept_export, kept_exports, write_tiny_checkpoint

from maskring.export.triton.repository import write_triton_repository
from maskring.plugins import library


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two streams at once; beside it lies ``plain.onnx``, the export that tracks without a server."""
    root = tmp_path_factory.mktemp("triton")
    checkpoint = write_tiny_checkpoint(root / "tiny.safetensors")
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
    with kept_exports():
        write_triton_repository(checkpoint, root / "models", radius=RADIUS, streams=2, **sizes)
    kept_export(checkpoint, root / "plain.onnx", radius=RADIUS)
    return root / "models"


@pytest.fixture(scope="module")
def config(repository: Path) -> Any:
    """What Triton reads in it."""
    import triton_server

    return triton_server.read_config(repository)


@pytest.fixture
def nvidia() -> Iterator[FakeBuilder]:
    with fake_builder.nvidia() as fake:
        yield fake


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path) -> None:
    """Tests name files in a folder of their own, and the plugin is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_library(tmp_path_factory.mktemp("plugin") / "plugin.so")


@pytest.fixture(scope="module")
def pixel_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: write_pixel_model(folder / f"{kind}.onnx", dtype=kind) for kind in ("float32", "float16")}
