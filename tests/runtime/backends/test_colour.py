"""The runtime's colours are the graph's: a frame gives the same keys with and without the shortcut."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import kept_export, moving_square, write_tiny_checkpoint

from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.colour import normalised_lab
from maskring.runtime.model.metadata import METADATA_KEY, ModelMetadata


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("inputs", [1, 3])
def test_keys_are_those_of_the_whole_graph(tmp_path: Path, dtype: str, inputs: int) -> None:
    """Encoders of grey images too: colours are computed all the same, and one of them is looked at."""
    model = tmp_path / "tiny.onnx"
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors", inputs=inputs)
    kept_export(checkpoint, model, radius=3, dtype=dtype)
    frame = np.random.default_rng(0).integers(0, 256, (48, 66, 3), dtype=np.uint8)
    keys = []
    for kernel in ("native", "function"):
        backend = OnnxRuntimeBackend(model, kernel=kernel)  # type: ignore[arg-type]
        backend.allocate(48, 66, 2, 2)
        backend.step(frame, np.zeros(2, np.int32), 1)
        assert backend._tensors is not None
        keys.append(backend._tensors.keys[0, 1].astype(np.float32))
    np.testing.assert_allclose(keys[0], keys[1], atol=1e-3 * np.abs(keys[1]).max())


def test_a_model_without_the_inner_tensor_runs_from_its_frame(tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    kept_export(write_tiny_checkpoint(tmp_path / "tiny.safetensors"), model, radius=3)
    proto = onnx.load(model)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    metadata = ModelMetadata.from_json(properties[METADATA_KEY], "tiny")
    plain = dataclasses.replace(metadata, lab_mean=(), lab_std=())
    onnx.helper.set_model_props(proto, {METADATA_KEY: plain.to_json()})
    onnx.save(proto, tmp_path / "plain.onnx")
    frame = moving_square(0)[0]
    backend = OnnxRuntimeBackend(tmp_path / "plain.onnx")
    backend.allocate(*frame.shape[:2], 2, 2)
    labels, _ = backend.step(frame, np.zeros(2, np.int32), 0)
    assert labels.shape == frame.shape[:2]


def test_white_black_and_red() -> None:
    frame = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    metadata = ModelMetadata(4, 8, 2, 1.0, lab_mean=(50.0, 0.0, 0.0), lab_std=(50.0, 127.0, 127.0))
    out = np.empty((3, 1, 3), np.float32)
    normalised_lab(frame, metadata, out)
    expected = [[1.0, -1.0, 0.0648], [0.0, 0.0, 80.09 / 127], [0.0, 0.0, 67.2 / 127]]
    np.testing.assert_allclose(out[:, 0], expected, atol=2e-3)
