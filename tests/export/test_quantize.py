"""Quantized encoders: what is int8, what stays float, who can run the file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from real_bindings import assert_rtx_builds
from support import HEIGHT, WIDTH, kept_export, moving_square, write_tiny_checkpoint
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.errors import ModelError, SourceError
from maskring.export.int8 import quantize_onnx
from maskring.export.parity import verify_model
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.integer_encoder import (
    fold_relu_into_quantize,
    for_integer_kernels,
    restore_float_layers,
)
from maskring.runtime.model.metadata import METADATA_KEY, QUANTIZATION_KEY
from maskring.runtime.model.step_graph import memory_read, subgraph
from maskring.runtime.model.tensor_names import LAB, OUTPUTS
from maskring.runtime.tracking.tracker import Tracker

FRAMES = [moving_square(index)[0] for index in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny.safetensors``, its export ``float.onnx`` and ``int8.onnx``."""
    root = tmp_path_factory.mktemp("quantize")
    kept_export(write_tiny_checkpoint(root / "tiny.safetensors"), root / "float.onnx", radius=3)
    assert quantize_onnx(root / "float.onnx", root / "int8.onnx", FRAMES) == len(FRAMES)
    return root


def run_unoptimized(model: onnx.ModelProto, lab: np.ndarray) -> np.ndarray:
    """Every node on its own, so that nothing but the graph decides."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (features,) = session.run(None, {LAB: lab})
    return np.asarray(features)


def test_every_layer_reads_int8_and_features_stay_float(folder: Path) -> None:
    model = onnx.load(folder / "int8.onnx")
    producer = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    assert layers
    for layer in layers:
        assert [producer[name].op_type for name in layer.input[:2]] == ["DequantizeLinear"] * 2
    assert producer["key"].op_type == "Conv"


@pytest.mark.parametrize(("inputs", "pyramid"), [(1, False), (3, False), (3, True)])
def test_raw_colours_beside_the_network_stay_float(tmp_path: Path, inputs: int, pyramid: bool) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "patch.safetensors", 9, inputs, pyramid)
    kept_export(checkpoint, tmp_path / "float.onnx", radius=3, height=HEIGHT, width=WIDTH)
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", FRAMES)
    model = onnx.load(tmp_path / "int8.onnx")
    producer = {name: node for node in model.graph.node for name in node.output}
    quantized, plain = [], []
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_int8 = node.input[0] in producer and producer[node.input[0]].op_type == "DequantizeLinear"
            (quantized if is_int8 else plain).append(node)
    assert len(quantized) >= 7 and len(plain) == 1
    colours = plain[0].input[0]
    assert LAB in (colours, *(producer[colours].input if inputs == 1 else ()))
    (behind,) = [node for node in model.graph.node if plain[0].output[0] in node.input]
    network = {producer[name].op_type for name in behind.input} - {"Conv"}
    assert behind.op_type == "Add" and network == (
        {"Add"} if pyramid else set()
    )  # of coarse and fine features
    assert verify_model(tmp_path / "int8.onnx", checkpoint=None, frames=FRAMES).ok


def test_quantization_is_what_tensorrt_takes(folder: Path) -> None:
    graph = onnx.load(folder / "int8.onnx").graph
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert weights[node.input[2]].dtype == np.int8, "bytes are signed"
        assert not weights[node.input[2]].any(), "zero points are 0"
    scales = [weights[n.input[1]] for n in pairs if n.input[0].endswith("weight_quantized")]
    assert all(scale.ndim == 1 and scale.size > 1 for scale in scales), "a scale per output channel"


def test_colours_and_tail_are_untouched(folder: Path) -> None:
    plain, quantized = onnx.load(folder / "float.onnx"), onnx.load(folder / "int8.onnx")
    read = memory_read(plain)
    assert read is not None
    tail = [read.input[0], read.output[0], "frame", "memory_values"]
    for begin, end in ((["frame"], [LAB]), (tail, ["labels", "value"])):
        parts = [subgraph(model, begin, end) for model in (plain, quantized)]
        assert parts[0].graph.node == parts[1].graph.node


def test_metadata_is_kept_and_says_what_happened(folder: Path) -> None:
    plain, quantized = (
        {entry.key: entry.value for entry in onnx.load(folder / name).metadata_props}
        for name in ("float.onnx", "int8.onnx")
    )
    assert quantized[METADATA_KEY] == plain[METADATA_KEY]
    assert json.loads(quantized[QUANTIZATION_KEY])["frames"] == len(FRAMES)


def test_verify_compares_winners_with_torch_and_integers_with_each_other(folder: Path) -> None:
    with_torch = verify_model(folder / "int8.onnx", checkpoint=folder / "tiny.safetensors", frames=FRAMES)
    assert {row.output for row in with_torch.rows} == {"labels", "value"}
    alone = verify_model(folder / "int8.onnx", checkpoint=None, frames=FRAMES)
    assert {row.output for row in alone.rows} == set(OUTPUTS)
    assert with_torch.ok and alone.ok


def test_features_are_close_and_not_equal(folder: Path) -> None:
    keys = []
    for name in ("float.onnx", "int8.onnx"):
        with_memory = {
            "frame": FRAMES[1][None],
            "memory_keys": np.zeros((1, 1, 8, 12, 16), np.float32),
            "memory_values": np.zeros((1, 1, 2, 12, 16), np.float32),
            "memory_dilation": np.zeros((1, 1), np.int32),
        }
        session = onnxruntime.InferenceSession(folder / name)
        keys.append(session.run(["key"], with_memory)[0])
    error = np.linalg.norm(keys[0] - keys[1]) / np.linalg.norm(keys[0])
    assert 0 < error < 0.1


def test_the_tracker_runs_it_on_integer_kernels(folder: Path) -> None:
    labels = []
    for name in ("float.onnx", "int8.onnx"):
        with Tracker(OnnxRuntimeBackend(folder / name, threads=1)) as tracker:
            tracker.step(*moving_square(0))
            labels.append(tracker.step(FRAMES[1]).labels)
    assert (labels[0] == labels[1]).mean() > 0.98


def test_rectifiers_are_folded_without_changing_what_is_in_range(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "int8.onnx")
    read = memory_read(model)
    assert read is not None
    encoder = subgraph(model, [LAB], [read.input[0]])
    folded = fold_relu_into_quantize(encoder)
    assert [node.op_type for node in folded.graph.node].count("Relu") == 0
    assert any(node.op_type == "Relu" for node in encoder.graph.node), "the original is not changed"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    lab = np.random.default_rng(0).normal(size=(1, 3, 48, 64)).astype(np.float32) * 0.1
    onnxruntime.InferenceSession(folded.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    layers = [node.op_type for node in encoder.graph.node].count("Conv")
    assert kinds.count("QLinearConv") == layers - 1, "all but the last, whose features are float"
    with_relu, without = (run_unoptimized(part, lab) for part in (encoder, folded))
    np.testing.assert_allclose(without, with_relu, atol=0.05 * np.abs(with_relu).max())


def test_layers_that_give_floats_out_read_float_weights(folder: Path) -> None:
    model = onnx.load(folder / "int8.onnx")
    read = memory_read(model)
    assert read is not None
    encoder = fold_relu_into_quantize(subgraph(model, [LAB], [read.input[0]]))
    changed = restore_float_layers(encoder)
    constants = {weight.name for weight in changed.graph.initializer}
    layers = [node for node in changed.graph.node if node.op_type == "Conv"]
    assert [node.output[0] for node in layers if node.input[1] in constants] == ["key"]
    lab = np.random.default_rng(0).normal(size=(1, 3, 48, 64)).astype(np.float32) * 0.1
    np.testing.assert_array_equal(run_unoptimized(changed, lab), run_unoptimized(encoder, lab))


def test_weights_with_a_zero_point_stay_quantized(folder: Path) -> None:
    """Ours have none; of another's file they would be read wrong."""
    model = onnx.load(folder / "int8.onnx")
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            zero = onnx.numpy_helper.to_array(weights[node.input[2]])
            weights[node.input[2]].CopyFrom(onnx.numpy_helper.from_array(zero + 1, node.input[2]))
    assert restore_float_layers(model) == model


def test_float_models_stay_as_they_are(folder: Path) -> None:
    model = onnx.load(folder / "float.onnx")
    assert for_integer_kernels(model) is model


def test_refusals_name_the_remedy_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    kept_export(folder / "tiny.safetensors", tmp_path / "half.onnx", radius=3, dtype="float16")
    for model, said in ((folder / "int8.onnx", "already quantized"), (tmp_path / "half.onnx", "float16")):
        with raises_user_error(ModelError, mentions=(model, said)):
            quantize_onnx(model, out, FRAMES)
    with raises_user_error(SourceError, mentions=("frames",)):
        quantize_onnx(folder / "float.onnx", tmp_path / "new" / "out.onnx", [])
    assert not out.exists() and not (tmp_path / "new").exists()


def test_command(folder: Path, tmp_path: Path) -> None:
    import cv2

    for clip in ("a", "b", "more/c", "more/d", "more/e"):
        (tmp_path / clip).mkdir(parents=True)
        for index, frame in enumerate(FRAMES):
            cv2.imwrite(str(tmp_path / clip / f"{index}.png"), frame[..., ::-1])
    out = tmp_path / "int8.onnx"
    arguments = [folder / "float.onnx", "--calibrate", tmp_path / "a", tmp_path / "b", "--out", out]
    done = CliRunner().invoke(app, ["quantize", *map(str, arguments), "--frames", "4"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("calibrated on 4 frames; wrote")
    assert out.is_file()
    arguments[2:4] = [tmp_path / "more"]  # a folder of clips; two of the three are looked at
    done = CliRunner().invoke(app, ["quantize", *map(str, arguments), "--frames", "2"])
    assert done.exit_code == 0 and done.stdout.startswith("calibrated on 2 frames; wrote"), done.output
    arguments[-1] = arguments[0]
    refused = CliRunner().invoke(app, ["quantize", *map(str, arguments)])
    assert refused.exit_code == 2 and "another file" in refused.stderr


def test_nvidias_builder_makes_an_engine_of_it(folder: Path) -> None:
    shapes = {
        "frame": (1, 48, 64, 3),
        "memory_keys": (1, 3, 8, 12, 16),
        "memory_values": (1, 3, 2, 12, 16),
        "memory_dilation": (1, 3),
    }
    assert_rtx_builds(folder / "int8.onnx", shapes)
