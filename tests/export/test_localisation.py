"""Searching for window centres: torch, the native kernel and the exported graph find the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support import HEIGHT, WIDTH, kept_export, moving_square, write_tiny_checkpoint

from maskring.common.errors import ModelError
from maskring.common.types import Kernel
from maskring.export.onnx_export import export_onnx, step_graph
from maskring.export.parity import verify_model
from maskring.plugins.windowed_affinity import cpu_localisation as native_localisation
from maskring.plugins.windowed_affinity.torch_localisation import localise
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.model.step_graph import load_step_graph
from maskring.training.checkpoint import load_checkpoint

RADIUS = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    out = checkpoint.with_suffix(".onnx")
    return kept_export(checkpoint, out, radius=RADIUS, roi_step=2)


def shifted(height: int, width: int, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Query [1, C, H, W] and keys [1, 1, C, H, W] of features so different that only equal ones match."""
    features = np.random.default_rng(0).normal(size=(1, 64, height, width)).astype(np.float32)
    return features, np.ascontiguousarray(np.roll(features, (down, right), (2, 3)))[:, None]


@pytest.mark.parametrize(("step", "dilation"), [(1, 2), (2, 2), (2, 5), (3, 2), (3, 3)])
@pytest.mark.parametrize("way", ["torch", "native"])
def test_a_shift_is_found(way: str, step: int, dilation: int) -> None:
    unit = max(1, dilation // step) * step  # between two positions of the window
    query, keys = shifted(33, 37, 2 * unit, -unit)
    steps = np.full((1, 1), dilation, np.int32)
    if way == "torch":
        tensors = map(torch.from_numpy, (query, keys, steps))
        found = localise(*tensors, radius=RADIUS, scale=1.0, step=step).numpy()
    else:
        offsets = native_localisation.localise(query, keys, steps, radius=RADIUS, scale=1.0, step=step)
        assert offsets is not None
        found = offsets
    inside = found[0, 0, :, 12:18, 12:24]
    assert (inside[0] == 2 * unit).all()
    assert (inside[1] == -unit).all()


@pytest.mark.parametrize("step", [1, 2, 3, 40])
def test_torch_and_the_native_kernel_find_the_same(step: int) -> None:
    rng = np.random.default_rng(step)
    query = rng.normal(size=(2, 8, 13, 18)).astype(np.float32)
    keys = rng.normal(size=(2, 4, 8, 13, 18)).astype(np.float32)
    dilation = np.array([[0, 1, 2, 3], [4, 2, 1, 5]], np.int32)
    settings = {"radius": 2, "scale": 0.5, "step": step}
    expected = localise(*map(torch.from_numpy, (query, keys, dilation)), **settings).numpy()
    found = native_localisation.localise(query, keys, dilation, **settings)
    assert found is not None
    assert not found[dilation < 2].any()
    assert found.any() or step == 40
    assert (found == expected).mean() > 0.999  # a centre half-way may be rounded to either side


def test_nothing_to_search() -> None:
    query, keys = shifted(5, 6, 1, 1)
    ones = np.ones((1, 1), np.int32)
    assert native_localisation.localise(query, keys, ones, radius=1, scale=1.0) is None


def test_every_way_to_execute_the_file_agrees(checkpoint: Path, model: Path) -> None:
    frames = [moving_square(2 * index)[0] for index in range(5)]
    report = verify_model(model, checkpoint=checkpoint, frames=frames)
    assert report.ok, "\n".join(" ".join(row.cells()) for row in report.rows)


def tracked(model: Path, kernel: Kernel) -> list[np.ndarray]:
    """Probabilities of three steps after a first one whose labels are given."""
    backend = OnnxRuntimeBackend(model, kernel=kernel, threads=1)
    backend.allocate(HEIGHT, WIDTH, num_slots=4, num_labels=2)
    found = []
    for index, dilation in enumerate([(0, 0, 0, 0), (2, 0, 0, 0), (3, 1, 0, 0), (4, 2, 1, 0)]):
        frame, mask = moving_square(3 * index)
        _, probabilities = backend.step(frame, np.array(dilation, np.int32), index)
        found.append(probabilities.copy())
        if index == 0:
            inside = mask[::4, ::4].astype(np.float32)
            backend.write_value(0, np.stack([1 - inside, inside]))
    backend.close()
    return found[1:]


def test_the_runtime_searches_as_the_graph_does(model: Path, checkpoint: Path) -> None:
    native, function = tracked(model, "native"), tracked(model, "function")
    for one, other in zip(native, function, strict=True):
        assert np.quantile(np.abs(one - other), 0.99) < 1e-4
    plain = checkpoint.with_name("plain.onnx")
    kept_export(checkpoint, plain, radius=RADIUS, roi_step=0)
    assert np.abs(native[0] - tracked(plain, "native")[0]).mean() > 1e-2


def test_the_file_says_so(checkpoint: Path, model: Path) -> None:
    proto, metadata = load_step_graph(model)
    assert metadata.roi_step == 2
    onnx.checker.check_model(proto, full_check=True)
    assert step_graph(load_checkpoint(checkpoint), metadata).roi_step == 2
    with pytest.raises(ModelError, match="--roi-step 0 or more"):
        export_onnx(checkpoint, model.with_name("no.onnx"), roi_step=-1)
