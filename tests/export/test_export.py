"""Exporting: the file keeps its promises to any ONNX runtime, to the runtime here, and to itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support import HEIGHT, TINY_ENCODER, WIDTH, kept_export, moving_square, write_tiny_checkpoint
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.export import parity
from maskring.export.onnx_export import export_onnx, step_graph
from maskring.export.parity import verify_model
from maskring.export.step_module import fold_batch_norms
from maskring.plugins.windowed_affinity.onnx_op import is_memory_read
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.model.metadata import METADATA_KEY, ModelMetadata
from maskring.runtime.model.step_graph import load_step_graph, smoothing_read
from maskring.runtime.model.tensor_names import INPUTS, OUTPUTS
from maskring.runtime.tracking.tracker import Tracker
from maskring.training.checkpoint import load_checkpoint, save_checkpoint
from maskring.training.network.encoder import Encoder, EncoderConfig
from maskring.training.network.label_probabilities import one_hot_argmax, smooth_probabilities

RADIUS = 3
CHANNELS = 8

FIXED: dict[str, int] = {"height": HEIGHT, "width": WIDTH, "num_labels": 2, "num_slots": 3}
"""Sizes: with them, an export takes half the time."""


@dataclasses.dataclass(frozen=True)
class Export:
    checkpoint: Path
    dynamic: Path
    fixed: Path
    half: Path


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Export:
    root = tmp_path_factory.mktemp("exports")
    made = Export(
        write_tiny_checkpoint(root / "tiny.safetensors"), root / "d.onnx", root / "f.onnx", root / "h.onnx"
    )
    kept_export(made.checkpoint, made.dynamic, radius=RADIUS)
    kept_export(made.checkpoint, made.fixed, radius=RADIUS, **FIXED)
    kept_export(made.checkpoint, made.half, radius=RADIUS, dtype="float16")
    return made


def metadata_of(model: Path) -> ModelMetadata:
    properties = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    return ModelMetadata.from_json(properties[METADATA_KEY], str(model))


def memory(
    height: int, width: int, slots: int, labels: int, dtype: Any = np.float32
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, columns = -(-height // 4), -(-width // 4)
    return {
        "frame": rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8),
        "memory_keys": rng.normal(size=(1, slots, CHANNELS, rows, columns)).astype(dtype),
        "memory_values": rng.random((1, slots, labels, rows, columns)).astype(dtype),
        "memory_dilation": np.ones((1, slots), np.int32),
    }


@pytest.mark.parametrize(
    ("height", "width", "slots", "labels"), [(48, 64, 3, 2), (51, 37, 7, 5), (9, 122, 1, 1)]
)
def test_any_size_runs_in_a_plain_runtime(
    exports: Export, height: int, width: int, slots: int, labels: int
) -> None:
    session = onnxruntime.InferenceSession(exports.dynamic.read_bytes())
    feeds = memory(height, width, slots, labels)
    assert [value.name for value in session.get_inputs()] == list(INPUTS)
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), feeds), strict=True))
    checkpoint = load_checkpoint(exports.checkpoint)
    graph = step_graph(checkpoint, metadata_of(exports.dynamic))
    with torch.no_grad():
        expected = graph(*map(torch.from_numpy, feeds.values()))
    for name, tensor in zip(OUTPUTS, expected, strict=True):
        assert found[name].shape == tuple(tensor.shape) and found[name].dtype == tensor.numpy().dtype
    np.testing.assert_allclose(found["key"], expected[3], atol=1e-3)
    np.testing.assert_allclose(found["probabilities"], expected[1], atol=1e-3)
    assert (found["labels"] == expected[0].numpy()).mean() > 0.99


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_pyramid_of_any_size(tmp_path: Path, dtype: str) -> None:
    """Odd numbers of features do not halve: the coarse ones reach beyond the frame."""
    checkpoint = write_tiny_checkpoint(tmp_path / "pyramid.safetensors", pyramid=True)
    model = kept_export(checkpoint, tmp_path / "model.onnx", radius=RADIUS, dtype=dtype)
    for size in PYRAMIDS:
        assert pyramid_agrees(model, checkpoint, *size)


PYRAMIDS = ((51, 37), (48, 64), (9, 122))
FIXED_PYRAMIDS = [
    pytest.param(size, dtype, marks=() if (size, dtype) == ((51, 37), "float16") else pytest.mark.slow)
    for size in PYRAMIDS
    for dtype in ("float32", "float16")
]


@pytest.mark.parametrize(("size", "dtype"), FIXED_PYRAMIDS)
def test_a_pyramid_of_one_size(tmp_path: Path, size: tuple[int, int], dtype: str) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "pyramid.safetensors", pyramid=True)
    settings = {**FIXED, "height": size[0], "width": size[1], "dtype": dtype}
    model = kept_export(checkpoint, tmp_path / "model.onnx", radius=RADIUS, **settings)
    assert "Shape" not in {node.op_type for node in onnx.load(model).graph.node}
    assert pyramid_agrees(model, checkpoint, *size)


def pyramid_agrees(model: Path, checkpoint: Path, height: int, width: int) -> bool:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return verify_model(model, checkpoint=checkpoint, frames=[frame, frame[::-1].copy()]).ok


def test_metadata_says_what_was_exported(exports: Export) -> None:
    fixed = metadata_of(exports.fixed)
    assert (fixed.height, fixed.width, fixed.num_labels, fixed.num_slots) == (HEIGHT, WIDTH, 2, 3)
    assert (fixed.stride, fixed.channels, fixed.radius, fixed.dtype) == (4, CHANNELS, RADIUS, "float32")
    dynamic = metadata_of(exports.dynamic)
    assert (dynamic.height, dynamic.width, dynamic.num_labels, dynamic.num_slots) == (None,) * 4
    assert metadata_of(exports.half).dtype == "float16"
    assert len(fixed.checkpoint_sha256) == 64


def test_fixed_sizes_leave_no_shape_arithmetic(exports: Export) -> None:
    graph = onnx.load(exports.fixed).graph
    assert not {"Shape", "Range", "Size"} & {node.op_type for node in graph.node}
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, HEIGHT, WIDTH, 3]


def test_bytes_become_floats_before_anything_else(exports: Export) -> None:
    """TensorRT takes uint8 at inputs and outputs and in casts alone."""
    for model in (exports.dynamic, exports.fixed, exports.half):
        graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
        tensors = (*graph.input, *graph.value_info, *graph.output)
        types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in tensors}
        touching = {
            node.op_type
            for node in graph.node
            for name in (*node.input, *node.output)
            if types.get(name) == onnx.TensorProto.UINT8
        }
        assert touching <= {"Cast", "Shape"}


def test_nan_in_a_later_frame_is_beyond_tolerance() -> None:
    differences = parity._Differences("float32")
    for value in (0.5, np.nan):
        step = {name: np.full((1, 2), value) for name in OUTPUTS}
        differences.add("one to another", step, step)
    assert {row.output: row.ok for row in differences.rows()}["probabilities"] is False


def test_batch_norms_are_folded(exports: Export) -> None:
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(exports.dynamic).graph.node}


def test_folding_keeps_the_features() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**TINY_ENCODER))
    for _ in range(3):  # statistics that are not those of an untouched norm
        encoder(torch.randn(2, 3, 24, 24) * 3 + 1)
    encoder.eval()
    images = torch.randn(1, 3, 21, 30)
    with torch.no_grad():
        torch.testing.assert_close(fold_batch_norms(encoder)(images), encoder(images), atol=1e-4, rtol=1e-4)


def test_the_same_checkpoint_gives_the_same_bytes(exports: Export, tmp_path: Path) -> None:
    export_onnx(exports.checkpoint, tmp_path / "again.onnx", radius=RADIUS, **FIXED)
    assert (tmp_path / "again.onnx").read_bytes() == exports.fixed.read_bytes()


def test_nothing_of_this_machine_is_in_the_file(exports: Export) -> None:
    content = exports.dynamic.read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_bytes_become_floats_and_come_from_floats_alone(exports: Export) -> None:
    """TensorRT documents of ``DataType.UINT8``: inputs and outputs of networks alone, converted to and from
    float32 and float16, from no other type."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    for path in (exports.dynamic, exports.fixed, exports.half):
        graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
        described = (*graph.input, *graph.value_info, *graph.output)
        types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in described}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        ends = set()
        for node in graph.node:
            names = {
                name for name in (*node.input, *node.output) if types.get(name) == onnx.TensorProto.UINT8
            }
            ends |= names
            if names:
                assert node.op_type == "Cast", node
                assert {types[name] for name in (*node.input, *node.output)} - floats == {
                    onnx.TensorProto.UINT8
                }
        assert ends == {"frame", "labels"}


@pytest.mark.parametrize(
    "settings",
    [
        {"height": 48},
        {"height": 0, "width": 64},
        {"num_labels": 0},
        {"radius": -1},
        {"confidence_exponent": -1},
        {"logit_scale": 0.0},
        {"dtype": "int8"},
    ],
)
def test_settings_that_make_no_sense(exports: Export, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        export_onnx(exports.checkpoint, tmp_path / "never.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_parity_of_all_exports(exports: Export) -> None:
    frames = [moving_square(index)[0] for index in range(3)]
    for model in (exports.dynamic, exports.fixed, exports.half):
        report = verify_model(model, checkpoint=exports.checkpoint, frames=frames)
        assert report.ok, [row.cells() for row in report.rows]
        assert len(report.rows) == 8  # two ways against torch, four outputs each


def test_top_k_is_in_the_function_body(exports: Export, tmp_path: Path) -> None:
    model = tmp_path / "top.onnx"
    kept_export(exports.checkpoint, model, radius=RADIUS, top_k=3, **FIXED)
    # Noise has no two equal patches: among equal logits, rounding decides which are the largest.
    frames = list(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8))
    report = verify_model(model, checkpoint=exports.checkpoint, frames=frames)
    assert report.ok, [row.cells() for row in report.rows]


@pytest.mark.parametrize("top_k", [0, 3])
def test_smoothing_is_a_second_read_by_the_same_body(exports: Export, tmp_path: Path, top_k: int) -> None:
    """TensorRT's parser knows a function by its name alone: one body for both reads."""
    settings = {"radius": RADIUS, "top_k": top_k, "smoothing_radius": 2, **FIXED}
    kept_export(exports.checkpoint, tmp_path / "smooth.onnx", **settings)
    model, metadata = load_step_graph(tmp_path / "smooth.onnx")
    (body,) = model.functions
    reads = [node for node in model.graph.node if is_memory_read(node)]
    assert [node.overload for node in (body, *reads)] == ["", "", ""]
    first, second = ({a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in reads)
    assert (first["radius"], first["top_k"], second["radius"]) == (RADIUS, top_k, 2)
    assert second["scale"] == pytest.approx(first["scale"] / 20)
    assert second["top_k"] == (25 if top_k else 0)
    assert metadata.smoothing_radius == 2


def test_no_smoothing(exports: Export, tmp_path: Path) -> None:
    kept_export(exports.checkpoint, tmp_path / "plain.onnx", radius=RADIUS, smoothing_radius=0, **FIXED)
    model, metadata = load_step_graph(tmp_path / "plain.onnx")
    assert metadata.smoothing_radius == 0 and smoothing_read(model) is None
    assert sum(map(is_memory_read, model.graph.node)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("smoothing", [0, 2])
def test_votes_are_the_same_everywhere(exports: Export, tmp_path: Path, smoothing: int, dtype: str) -> None:
    """In torch, in standard operators, with the operator library, and in the CPU runtime."""
    settings: dict[str, Any] = {"radius": RADIUS, "smoothing_radius": smoothing, "dtype": dtype}
    model = tmp_path / "votes.onnx"
    export_onnx(exports.checkpoint, model, confidence_exponent=4, **settings)
    frames = [moving_square(index)[0] for index in range(4)]
    report = verify_model(model, checkpoint=exports.checkpoint, frames=frames)
    assert report.ok, [row.cells() for row in report.rows]
    assert load_step_graph(model)[1].confidence_exponent == 4
    kept = []
    for kernel in ("native", "function"):
        backend = OnnxRuntimeBackend(model, kernel=kernel, threads=1)
        with Tracker(backend) as tracker:
            for index in range(6):
                frame, mask = moving_square(index)
                tracker.step(frame, mask if index == 0 else None)
            kept.append(backend._allocated().values.astype(np.float32))
    np.testing.assert_allclose(*kept, atol=1e-3 if dtype == "float32" else 3e-2)
    assert ((kept[0] > 0) & (kept[0] < 1)).any()


def test_every_read_has_the_body_it_needs(exports: Export, tmp_path: Path) -> None:
    """A search for centres, a read of few logits around them, smoothing: three bodies, by overload."""
    model = tmp_path / "all.onnx"
    settings = {"radius": RADIUS, "top_k": 5, "roi_step": 2, "smoothing_radius": 1, **FIXED}
    kept_export(exports.checkpoint, model, **settings)
    frames = list(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8))
    report = verify_model(model, checkpoint=exports.checkpoint, frames=frames)
    assert report.ok, [row.cells() for row in report.rows]
    assert sorted(body.overload for body in onnx.load(model).functions) == ["", "offsets_top_k", "top_k"]


def test_smoothed_probabilities_leave_out_what_looks_different() -> None:
    """One wrong feature in a patch of its like is outvoted; nothing crosses a contrast."""
    query, key = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8)
    query[:, 0, :, :4] = key[:, 0, :, :4] = 40
    query[:, 1, :, 4:] = key[:, 1, :, 4:] = 40
    read = torch.zeros(1, 2, 5, 8)
    read[:, 1, :, :4] = 1
    read[:, :, 2, 1] = torch.tensor([1.0, 0.0])
    read[:, 0] = 1 - read[:, 1]
    found = smooth_probabilities(read, query, key, radius=2, logit_scale=1.0)
    assert found[0, 1, 2, 1] == pytest.approx(19 / 20)  # 5 rows, 4 columns of its like in the window
    torch.testing.assert_close(found[0, 1, :, 4:], torch.zeros(5, 4))


def test_parity_catches_other_weights(exports: Export, tmp_path: Path) -> None:
    """A file whose weights were changed after the export, by as little as one kernel."""
    model = onnx.load(exports.dynamic)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0] *= 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, tmp_path / "changed.onnx")
    frames = [moving_square(index)[0] for index in range(3)]
    report = verify_model(tmp_path / "changed.onnx", checkpoint=exports.checkpoint, frames=frames)
    assert not report.ok


def test_parity_refuses_another_checkpoint(exports: Export, tmp_path: Path) -> None:
    other = dataclasses.replace(load_checkpoint(exports.checkpoint), key=None)
    state = {name: tensor + 0.5 for name, tensor in other.query.items()}
    save_checkpoint(tmp_path / "other.safetensors", dataclasses.replace(other, query=state))
    frames = [moving_square(index)[0] for index in range(2)]
    with raises_user_error(ModelError, mentions=(exports.dynamic, "other.safetensors", "tiny")):
        verify_model(exports.dynamic, checkpoint=tmp_path / "other.safetensors", frames=frames)


def test_one_hot_of_nothing_is_background() -> None:
    maps = torch.tensor([0.0, 0.2, 0.3]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    maps[..., 1] = 0.0
    winners = one_hot_argmax(maps)[0, :, 0]
    assert winners.tolist() == [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
