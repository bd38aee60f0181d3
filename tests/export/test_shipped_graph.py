"""Shipped checkpoints are exported without torch, to the very bytes that the exporter writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from support import kept_export, kept_exports, write_tiny_checkpoint
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.export.export_cache import cached_onnx
from maskring.export.shipped_graph import fill, graph_file, graph_of, shipped_graph
from maskring.training.weights import shipped_checkpoint, shipped_names

NAMES = shipped_names()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "pico" else pytest.mark.slow) for name in NAMES]
)
def test_the_filled_graph_is_what_the_exporter_writes(name: str, tmp_path: Path) -> None:
    checkpoint = shipped_checkpoint(name)
    exported = kept_export(checkpoint, tmp_path / f"{name}.onnx")
    graph = graph_file(name).read_bytes()
    assert graph_of(exported, checkpoint) == graph, "the exporter or the checkpoint has changed: make graphs"
    fill(graph, checkpoint, tmp_path / "filled.onnx")
    assert (tmp_path / "filled.onnx").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_checkpoint_has_a_small_graph(name: str) -> None:
    checkpoint = shipped_checkpoint(name)
    graph = shipped_graph(checkpoint, checkpoint.read_bytes())
    assert graph is not None and len(graph) < 500_000
    stored = [each for each in onnx.load_model_from_string(graph).graph.initializer if each.raw_data]
    assert not any(each.name.startswith("encoder.") for each in stored)


def test_a_copy_is_known_and_other_weights_are_not(tmp_path: Path) -> None:
    copy = Path(shutil.copy(shipped_checkpoint("pico"), tmp_path))
    assert shipped_graph(copy, copy.read_bytes()) is not None
    other = write_tiny_checkpoint(tmp_path / "nano.safetensors")
    assert shipped_graph(other, other.read_bytes()) is None


def test_a_changed_checkpoint_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not tracked with the graph of the shipped one, whose settings may differ."""
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    other = write_tiny_checkpoint(tmp_path / "pico.safetensors")
    exported = kept_export(other, tmp_path / "exported.onnx")
    with kept_exports():
        assert cached_onnx(other).read_bytes() == exported.read_bytes()


def test_weights_of_another_file_do_not_fit(tmp_path: Path) -> None:
    graph = graph_file("pico").read_bytes()
    damaged = tmp_path / "pico.safetensors"
    damaged.write_bytes(shipped_checkpoint("pico").read_bytes()[:-100])
    with raises_user_error(ModelError, mentions=(str(damaged),)):
        fill(graph, damaged, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
