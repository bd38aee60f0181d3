"""An exported file after the ecosystem's tools have rewritten it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
import pytest
from onnxruntime.quantization.shape_inference import quant_pre_process
from support import HEIGHT, WIDTH, export_tiny_model, moving_square
from user_errors import raises_user_error

from maskring import open_tracker
from maskring.common.errors import ModelError
from maskring.common.types import Kernel
from maskring.runtime.model.step_graph import load_step_graph, memory_read

COMMANDS = {
    "onnxsim": "{tool} {model} {out}",
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
def test_commands_that_rewrite_a_file(name: str, tmp_path: Path) -> None:
    """The file runs with the same values, and by the native kernel where the tool keeps the metadata."""
    tool = Path(sys.executable).with_name(name)
    if not tool.exists() and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    if name == "polygraphy":
        pytest.importorskip("onnx_graphsurgeon", reason="onnx-graphsurgeon is not installed")
    model, out = export_tiny_model(tmp_path), tmp_path / "rewritten.onnx"
    command = COMMANDS[name].format(tool=tool if tool.exists() else name, model=model, out=out)
    subprocess.run(command.split(), check=True, capture_output=True, timeout=1800)
    assert_same_values(model, out)
    if name == "polygraphy":
        with raises_user_error(ModelError, mentions=(out.name, "metadata")):
            load_step_graph(out)
    else:
        assert memory_read(load_step_graph(out)[0]) is not None
        assert_same_labels(model, out, kernel="native")


def with_onnxoptimizer(model: Path, out: Path) -> None:
    optimizer = pytest.importorskip("onnxoptimizer", reason="onnxoptimizer is not installed")
    onnx.save(optimizer.optimize(onnx.load(model)), out)


def with_the_version_converter(model: Path, out: Path) -> None:
    onnx.save(onnx.version_converter.convert_version(onnx.load(model), 22), out)


def with_the_inliner(model: Path, out: Path) -> None:
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(model)), out)


def with_onnxruntimes_optimizer(model: Path, out: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(model, options)


def with_quant_pre_process(model: Path, out: Path) -> None:
    quant_pre_process(str(model), str(out), skip_symbolic_shape=True)


@pytest.mark.slow
@pytest.mark.parametrize("rewrite", [with_onnxoptimizer, with_the_version_converter])
def test_files_that_keep_their_memory_reads(rewrite: Callable[[Path, Path], None], tmp_path: Path) -> None:
    model, out = export_tiny_model(tmp_path), tmp_path / "rewritten.onnx"
    rewrite(model, out)
    assert_same_labels(model, out, kernel="native")
    if rewrite is with_the_version_converter:  # it drops the bodies of functions
        with raises_user_error(ModelError, mentions=(out.name,)):
            open_tracker(out, kernel="function")
    else:
        assert_same_values(model, out)


INLINERS = [
    with_the_inliner,
    pytest.param(with_onnxruntimes_optimizer, marks=pytest.mark.slow),
    pytest.param(with_quant_pre_process, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("rewrite", INLINERS)
def test_inlined_files_are_tracked_the_slow_way(
    rewrite: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """By onnxruntime alone, with one sentence that says so."""
    model, out = export_tiny_model(tmp_path), tmp_path / "rewritten.onnx"
    rewrite(model, out)
    assert_same_values(model, out)
    with pytest.warns(UserWarning) as said:
        assert_same_labels(model, out, kernel="function")
    assert all(out.name in str(warning.message) and "slower" in str(warning.message) for warning in said)
    with raises_user_error(ModelError, mentions=(out.name,)):
        load_step_graph(out)  # engines, quantization and the GPU need the memory read itself


@pytest.mark.slow
def test_a_float16_converter_is_refused(tmp_path: Path) -> None:
    """onnxruntime cannot load what it writes; maskring export --precision float16 is the way."""
    float16 = pytest.importorskip(
        "onnxconverter_common.float16", reason="onnxconverter-common is not installed"
    )
    model, out = export_tiny_model(tmp_path), tmp_path / "rewritten.onnx"
    onnx.save(float16.convert_float_to_float16(onnx.load(model), keep_io_types=True), out)
    with raises_user_error(ModelError, mentions=(out.name, "export")):
        open_tracker(out)


def assert_same_values(model: Path, rewritten: Path) -> None:
    for ours, theirs in zip(outputs(model), outputs(rewritten), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def assert_same_labels(model: Path, rewritten: Path, *, kernel: Kernel) -> None:
    """``model`` with ``kernel`` and ``rewritten`` as a user would open it."""
    with open_tracker(model, kernel=kernel, threads=1) as ours, open_tracker(rewritten, threads=1) as theirs:
        for index in range(6):
            frame, mask = moving_square(index)
            given = mask if index == 0 else None
            expected, found = ours.step(frame, given), theirs.step(frame, given)
            np.testing.assert_array_equal(found.labels, expected.labels, err_msg=str(index))
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
