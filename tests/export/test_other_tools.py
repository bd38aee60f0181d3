"""An exported file after the ecosystem's tools have rewritten it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support import HEIGHT, WIDTH, export_tiny_model, moving_square
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.runtime.model.step_graph import load_step_graph

COMMANDS = {
    "onnxslim": "{tool} {model} {out}",
    "polygraphy": "{tool} surgeon sanitize --fold-constants {model} -o {out}",
}


def outputs(model: Path) -> list[np.ndarray]:
    """All outputs for one frame and a memory of random keys."""
    session = onnxruntime.InferenceSession(model)
    random = np.random.default_rng(0)
    sizes = {"h": HEIGHT, "w": WIDTH}
    feeds = {}
    for tensor in session.get_inputs():
        shape = [size if isinstance(size, int) else sizes.get(size, 2) for size in tensor.shape]
        feeds[tensor.name] = random.random(shape, np.float32)
    grid = [HEIGHT // 4, WIDTH // 4]
    for name in ("memory_keys", "memory_values"):
        feeds[name] = random.random((*feeds[name].shape[:3], *grid), np.float32)
    feeds["memory_dilation"] = np.array([[1, 2]], np.int32)
    feeds["frame"] = moving_square(0)[0][None]
    return list(session.run(None, feeds))


def test_constants_of_the_body_are_tensors(tmp_path: Path) -> None:
    """All but the references to the node's attributes, which have no tensor form."""
    (body,) = onnx.load(export_tiny_model(tmp_path)).functions
    pending, scalars = list(body.node), []
    while pending:
        node = pending.pop()
        pending += [inner for attribute in node.attribute for inner in attribute.g.node]
        if node.op_type == "Constant":
            scalars += [a.name for a in node.attribute if a.name != "value" and not a.ref_attr_name]
    assert not scalars


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_rewritten_files_run_with_the_same_values(name: str, tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name(name)
    if not tool.exists() and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    model, out = export_tiny_model(tmp_path), tmp_path / "rewritten.onnx"
    command = COMMANDS[name].format(tool=tool if tool.exists() else name, model=model, out=out)
    subprocess.run(command.split(), check=True, capture_output=True, timeout=300)
    for ours, theirs in zip(outputs(model), outputs(out), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    if name == "onnxslim":
        load_step_graph(out)
    else:
        with raises_user_error(ModelError, mentions=(out.name, "metadata")):
            load_step_graph(out)
