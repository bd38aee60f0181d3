"""The Triton repository: its configuration to Triton's own schema, its model for NVIDIA's builders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_builder
import onnx
import pytest
from fake_builder import plugin_library
from real_bindings import assert_rtx_builds
from served_model import RADIUS
from support import HEIGHT, WIDTH, kept_exports
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.errors import ModelError
from maskring.export.engine import EngineOptions, build_engine
from maskring.export.triton.repository import write_triton_repository
from maskring.plugins import library
from maskring.runtime.model.engine_file import read_manifest
from maskring.runtime.model.step_graph import read_export

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
import triton_server


def test_configuration_describes_the_model(repository: Path, config: Any) -> None:
    from tritonclient.grpc import model_config_pb2

    types = {"TYPE_UINT8": 2, "TYPE_INT32": 6, "TYPE_FP32": 1, "TYPE_FP16": 10}
    graph = onnx.load(repository / "maskring" / "1" / "model.onnx").graph

    def declared(tensors: Any) -> dict[str, tuple[int, list[int]]]:
        kinds = {t.name: t.type.tensor_type for t in tensors}
        return {n: (k.elem_type, [d.dim_value for d in k.shape.dim]) for n, k in kinds.items()}

    def configured(kind: int, dims: Any) -> tuple[int, list[int]]:
        return types[model_config_pb2.DataType.Name(kind)], list(dims)

    batching = config.sequence_batching
    states = {s.input_name: configured(s.data_type, s.dims) for s in batching.state}
    starts = {c.name: (types["TYPE_INT32"], [1]) for c in batching.control_input}
    inputs = {t.name: configured(t.data_type, t.dims) for t in config.input}
    assert declared(graph.input) == inputs | starts | states
    outputs = {t.name: configured(t.data_type, t.dims) for t in config.output}
    assert declared(graph.output) == outputs | {
        s.output_name: configured(s.data_type, s.dims) for s in batching.state
    }
    assert batching.oldest.max_candidate_sequences == 2, "streams at once"
    assert config.parameters["objects"].string_value == "1"
    for state in batching.state:
        (initial,) = state.initial_state
        assert initial.zero_data and list(initial.dims) == list(state.dims)
    assert config.name == "maskring" and config.max_batch_size == 0
    assert not config.backend and not config.platform, "Triton decides by the files that it finds"
    assert (repository / config.name / "1" / "model.onnx").is_file()


def test_idle_sequences_are_dropped_after_half_a_minute(config: Any) -> None:
    assert config.sequence_batching.max_sequence_idle_microseconds == 30_000_000


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nvidias_builder_makes_an_engine_of_it(repository: Path, tmp_path: Path, dtype: str) -> None:
    checkpoint = repository.parent / "tiny.safetensors"
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
    with kept_exports():
        model = write_triton_repository(checkpoint, tmp_path, radius=RADIUS, dtype=dtype, **sizes)
    assert_rtx_builds(model / "1" / "model.onnx", {})


def test_a_plan_reads_memory_by_the_plugin(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the recording builder: what is built is the served model, with plugins in place of bodies."""
    model = repository / "maskring" / "1" / "model.onnx"
    plan = tmp_path / "model.plan"
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin_library(tmp_path / "plugin.so")))
    with fake_builder.nvidia() as nvidia:
        build_engine(model, plan, EngineOptions())
        assert nvidia.plugins == [library.PLUGIN] * 2 and nvidia.inlined == []
        (profile,) = nvidia.config.profiles
        assert profile.shapes["frame"] == [[1, HEIGHT, WIDTH, 3]] * 3 and "clock" in profile.shapes
        assert build_engine(model, plan, EngineOptions()).reused
    assert read_manifest(plan).key.plugin_sha256
    built = onnx.load_model_from_string(plan.read_bytes())
    assert {tensor.name for tensor in built.graph.input} == {
        "frame",
        "mask",
        "start",
        "keys",
        "values",
        "clock",
    }


def test_plans_of_other_models_are_refused(repository: Path, tmp_path: Path) -> None:
    plan, served = tmp_path / "model.plan", repository / "maskring" / "1" / "model.onnx"
    with raises_user_error(ModelError, mentions=("plain.onnx", "--triton")):
        build_engine(repository.parent / "plain.onnx", plan, EngineOptions())
    rtx = EngineOptions(runtime="tensorrt-rtx", compute_capabilities=("sm86",))
    with raises_user_error(ModelError, mentions=("TensorRT-RTX", "--runtime tensorrt")):
        build_engine(served, plan, rtx)
    assert not plan.exists()


def test_command(repository: Path, tmp_path: Path) -> None:
    checkpoint = repository.parent / "tiny.safetensors"
    arguments = ["export", str(checkpoint), "--triton", str(tmp_path / "models")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and "--objects" in refused.stderr
    sizes = ["--height", str(HEIGHT), "--width", str(WIDTH), "--objects", "1"]
    with kept_exports():
        done = CliRunner().invoke(app, [*arguments, *sizes])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "models" / "maskring" / "config.pbtxt").is_file()
    assert (
        triton_server.read_config(tmp_path / "models").sequence_batching.oldest.max_candidate_sequences == 8
    )
    served = tmp_path / "models" / "maskring" / "1" / "model.onnx"
    assert read_export(served)[1].roi_step == 0
    with kept_exports():
        done = CliRunner().invoke(app, [*arguments, *sizes, "--localise", "2", "--streams", "3"])
    assert done.exit_code == 0 and read_export(served)[1].roi_step == 2
    assert (
        triton_server.read_config(tmp_path / "models").sequence_batching.oldest.max_candidate_sequences == 3
    )
    alone = CliRunner().invoke(app, ["export", str(checkpoint), "--out", "model.onnx", "--streams", "3"])
    assert alone.exit_code == 2 and "--triton" in alone.stderr
    nothing = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert nothing.exit_code == 2 and "--out" in nothing.stderr
