"""The Triton repository: its configuration to Triton's own schema, its model to the tracker."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint
from typer.testing import CliRunner

from maskring.cli import app
from maskring.export.onnx_from_checkpoint import export_onnx
from maskring.export.triton import AGES, CLIENT, write_triton_repository
from maskring.runtime.backends.onnxruntime import OnnxRuntimeBackend
from maskring.runtime.memory import MemoryPolicy
from maskring.runtime.tracker import Tracker

FRAMES = 12


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("triton")
    checkpoint = write_tiny_checkpoint(root / "tiny.safetensors")
    write_triton_repository(checkpoint, root / "models", height=HEIGHT, width=WIDTH, labels=2, radius=3)
    export_onnx(checkpoint, root / "plain.onnx", radius=3)
    return root / "models"


@pytest.fixture(scope="module")
def config(repository: Path) -> Any:
    """``config.pbtxt`` parsed by the schema that Triton's own client ships."""
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = (repository / "maskring" / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


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
    for state in batching.state:
        (initial,) = state.initial_state
        assert initial.zero_data and list(initial.dims) == list(state.dims)
    assert config.name == "maskring" and config.backend == "onnxruntime" and config.max_batch_size == 0
    assert (repository / config.name / "1" / "model.onnx").is_file()


def empty_state(config: Any) -> dict[str, np.ndarray]:
    """A state of zeros, as ``initial_state`` asks for it."""
    return {
        s.input_name: np.zeros(list(s.dims), np.int32 if s.input_name == "filled" else np.float32)
        for s in config.sequence_batching.state
    }


def serve(
    session: Any, config: Any, indices: Iterable[int], state: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """What Triton does with one sequence: state in, state out."""
    found = []
    pairs = {s.output_name: s.input_name for s in config.sequence_batching.state}
    for index in indices:
        frame, mask = moving_square(index)
        feeds = {"frame": frame[None], "mask": (mask if index == 0 else np.zeros_like(mask))[None]}
        start = np.array([index == 0], np.int32)
        labels, *after = session.run(["labels", *pairs], feeds | {"start": start} | state)
        state.update(dict(zip(pairs.values(), after, strict=True)))
        found.append(labels[0])
    return found


def test_a_sequence_is_a_tracker_and_start_forgets(repository: Path, config: Any) -> None:
    session = onnxruntime.InferenceSession(repository / "maskring" / "1" / "model.onnx")
    state = empty_state(config)
    first = serve(session, config, range(FRAMES), state)
    again = serve(session, config, range(FRAMES), state)  # from the state that the first sequence left
    backend = OnnxRuntimeBackend(repository.parent / "plain.onnx", threads=1)
    with Tracker(backend, policy=MemoryPolicy((0,), AGES)) as tracker:
        for index in range(FRAMES):
            frame, mask = moving_square(index)
            expected = tracker.step(frame, mask if index == 0 else None).labels
            assert (first[index] == expected).mean() >= 0.999, index
            np.testing.assert_array_equal(again[index], first[index])


def test_slots_hold_the_first_frame_and_the_latest(repository: Path, config: Any) -> None:
    model = onnx.load(repository / "maskring" / "1" / "model.onnx")
    model.graph.output.append(helper.make_tensor_value_info("step/key", 1, [1, 8, 12, 16]))
    model.graph.output.append(helper.make_tensor_value_info("step/memory_dilation", 6, [1, 6]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    state = empty_state(config)
    keys, read = [], []
    for index in range(9):
        before = dict(state)
        serve(session, config, [index], state)
        frame, mask = moving_square(index)
        feeds = {"frame": frame[None], "mask": mask[None], "start": np.array([index == 0], np.int32)}
        key, dilation = session.run(["step/key", "step/memory_dilation"], feeds | before)
        keys.append(key[0])
        read.append(dilation[0].tolist())
    np.testing.assert_array_equal(state["keys"][0], np.stack([keys[0], *keys[:3:-1]]))
    assert read[1] == [1, 0, 0, 0, 0, 0], "nothing is known but the first frame"
    assert read[3] == [1, 1, 0, 0, 0, 0], "the frame three ago is the first one, read once"
    assert read[8] == [1, 1, 0, 1, 0, 1]


def test_client_is_python_that_names_the_model(repository: Path) -> None:
    text = (repository / "client.py").read_text()
    assert text == CLIENT
    ast.parse(text)
    assert '"maskring"' in text


def test_command(repository: Path, tmp_path: Path) -> None:
    checkpoint = repository.parent / "tiny.safetensors"
    arguments = ["export", str(checkpoint), "--triton", str(tmp_path / "models")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and "--objects" in refused.stderr
    sizes = ["--height", str(HEIGHT), "--width", str(WIDTH), "--objects", "1"]
    done = CliRunner().invoke(app, [*arguments, *sizes])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "models" / "maskring" / "config.pbtxt").is_file()
    nothing = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert nothing.exit_code == 2 and "--out" in nothing.stderr
