"""The Triton repository: its configuration to Triton's own schema, its model to the tracker."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import fake_builder
import numpy as np
import onnx
import onnxruntime
import pytest
from fake_builder import plugin_library
from onnx import helper
from real_bindings import assert_rtx_builds
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.errors import MaskError, ModelError, SourceError, UnavailableError
from maskring.export.engine import EngineOptions, build_engine
from maskring.export.onnx_export import export_onnx
from maskring.export.triton.repository import write_triton_repository
from maskring.export.triton.state import dilation_table
from maskring.plugins import library, onnxruntime_library
from maskring.plugins.windowed_affinity.onnx_op import is_memory_read
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.model.engine_file import read_manifest
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.model.step_graph import load_step_graph, read_export
from maskring.runtime.tracking.memory import MemoryPolicy, MemoryRing
from maskring.runtime.tracking.tracker import Tracker
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.training.weights import shipped_checkpoint

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
import triton_server

FRAMES = 24
RADIUS = 1
"""So small that the policy dilates windows on frames of this size."""

REAL, REAL_FRAMES = "dog-agility", 30


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("triton")
    checkpoint = write_tiny_checkpoint(root / "tiny.safetensors")
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
    write_triton_repository(checkpoint, root / "models", radius=RADIUS, streams=2, **sizes)
    export_onnx(checkpoint, root / "plain.onnx", radius=RADIUS)
    return root / "models"


@pytest.fixture(scope="module")
def config(repository: Path) -> Any:
    return triton_server.read_config(repository)


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


def serve(
    session: Any, clip: Iterable[tuple[np.ndarray, np.ndarray]], state: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """What Triton does with one sequence of frames and masks: state in, state out."""
    found = []
    pairs = {f"{name}_next": name for name in state}
    for index, (frame, mask) in enumerate(clip):
        feeds = {"frame": frame[None], "mask": (mask if index == 0 else np.zeros_like(mask))[None]}
        start = np.array([index == 0], np.int32)
        labels, *after = session.run(["labels", *pairs], feeds | {"start": start} | state)
        state.update(dict(zip(pairs.values(), after, strict=True)))
        found.append(labels[0])
    return found


def tracked(model: Path, clip: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """What the tracker makes of a clip."""
    with Tracker(ServedOrder(model)) as tracker:
        return [
            tracker.step(frame, mask if index == 0 else None).labels
            for index, (frame, mask) in enumerate(clip)
        ]


def test_a_sequence_is_a_tracker_and_start_forgets(repository: Path, config: Any) -> None:
    session = onnxruntime.InferenceSession(repository / "maskring" / "1" / "model.onnx")
    state, clip = triton_server.empty_state(config), [moving_square(index) for index in range(FRAMES)]
    first = serve(session, clip, state)
    again = serve(session, clip, state)  # from the state that the first sequence left
    expected = tracked(repository.parent / "plain.onnx", clip)
    for index in range(FRAMES):
        np.testing.assert_array_equal(first[index], expected[index], err_msg=str(index))
        np.testing.assert_array_equal(again[index], first[index])


def test_a_sequence_is_a_tracker_on_real_frames(shared_data: Path, tmp_path: Path) -> None:
    """The shipped checkpoint on a street, at a size where windows are dilated."""
    (sequence,) = (s for s in load_split(shared_data / "davis_dev", "dev") if s.name == REAL)
    size = (160, 96)
    mask = cv2.resize(read_mask(sequence.annotations[0]), size, interpolation=cv2.INTER_NEAREST)
    frames = [cv2.resize(read_image(path), size, interpolation=cv2.INTER_AREA) for path in sequence.frames]
    clip = [(frame, mask) for frame in frames[:REAL_FRAMES]]
    checkpoint, settings = shipped_checkpoint("nano"), {"radius": 2, "height": 96, "width": 160}
    settings["num_labels"] = int(mask.max()) + 1
    write_triton_repository(checkpoint, tmp_path / "models", **settings)
    export_onnx(checkpoint, tmp_path / "plain.onnx", **settings)
    session = onnxruntime.InferenceSession(tmp_path / "models" / "maskring" / "1" / "model.onnx")
    state = {
        tensor.name: np.zeros(tensor.shape, np.int32 if tensor.name == "clock" else np.float32)
        for tensor in session.get_inputs()
        if tensor.name in ("keys", "values", "clock")
    }
    assert dilation_table(load_step_graph(tmp_path / "plain.onnx")[1]).max() > 1
    served, expected = serve(session, clip, state), tracked(tmp_path / "plain.onnx", clip)
    for index, labels in enumerate(expected):
        np.testing.assert_array_equal(served[index], labels, err_msg=str(index))


class ServedOrder:
    """Executes an exported model for the tracker, with slots in the order of the served model.

    The order has no meaning but for the last bit of sums, and labels that are equally probable hang on it.
    """

    def __init__(self, model: Path) -> None:
        self.metadata = load_step_graph(model)[1]
        self._session = onnxruntime.InferenceSession(model)
        self._frame_in_slot: dict[int, int] = {}
        self._now = 0

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        grid = self.metadata.feature_size(height, width)
        self._keys = np.zeros((slots, self.metadata.channels, *grid), np.float32)
        self._values = np.zeros((slots, labels, *grid), np.float32)

    def step(self, frame: Any, dilation: np.ndarray, slot: int) -> tuple[np.ndarray, np.ndarray]:
        slot_of_frame = {self._frame_in_slot[s]: s for s in np.flatnonzero(dilation).tolist()}
        policy = MemoryPolicy()
        reads = [*policy.long_term, *(self._now - age for age in policy.short_term)]
        slots = [slot_of_frame.pop(frame, None) for frame in reads]
        assert not slot_of_frame
        windows = [0 if found is None else dilation[found] for found in slots]
        feeds = {
            "frame": frame[None],
            "memory_keys": self._keys[None, [found or 0 for found in slots]],
            "memory_values": self._values[None, [found or 0 for found in slots]],
            "memory_dilation": np.array([windows], np.int32),
        }
        names = ["labels", "probabilities", "value", "key"]
        labels, probabilities, value, key = self._session.run(names, feeds)
        self._keys[slot], self._values[slot] = key[0], value[0]
        self._frame_in_slot[slot] = self._now
        self._now += 1
        return labels[0], probabilities[0]

    def write_value(self, slot: int, value: np.ndarray) -> None:
        self._values[slot] = value

    def close(self) -> None:
        pass


def test_a_search_for_window_centres_is_served(tmp_path: Path) -> None:
    """On features of raw colours, which follow the square to the end of the clip."""
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors", patch=9)
    settings = {"radius": RADIUS, "roi_step": 2, "logit_scale": 2.0}
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
    model = write_triton_repository(checkpoint, tmp_path / "models", **sizes, **settings) / "1" / "model.onnx"
    export_onnx(checkpoint, tmp_path / "plain.onnx", **settings)
    session = onnxruntime.InferenceSession(model)
    state = {
        tensor.name: np.zeros(tensor.shape, np.int32 if tensor.name == "clock" else np.float32)
        for tensor in session.get_inputs()
        if tensor.name in ("keys", "values", "clock")
    }
    clip = [moving_square(index) for index in range(8)]
    served = serve(session, clip, state)
    np.testing.assert_array_equal(served, tracked(tmp_path / "plain.onnx", clip))
    assert (served[-1] & clip[-1][1]).sum() > 100, "the square is still followed"
    assert any(is_memory_read(node) and len(node.input) > 4 for node in onnx.load(model).graph.node)


def test_the_operator_library_serves_the_model(repository: Path, config: Any) -> None:
    """The line that docs/deploy.md adds for it is Triton's, and the file runs with maskring's kernel."""
    from google.protobuf import text_format

    page = (Path(__file__).resolve().parents[2] / "docs" / "deploy.md").read_text()
    (line,) = re.findall(r"echo '(model_operations .*?)' >>", page)
    extended = type(config)()
    extended.CopyFrom(config)
    text_format.Merge(line, extended)
    (named,) = extended.model_operations.op_library_filename
    assert Path(named).name == onnxruntime_library().name
    model = repository / "maskring" / "1" / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(onnxruntime_library()))
    fast, plain = onnxruntime.InferenceSession(model, options), onnxruntime.InferenceSession(model)
    clip = [moving_square(index) for index in range(FRAMES)]
    results = [serve(session, clip, triton_server.empty_state(config)) for session in (fast, plain)]
    for labels, expected in zip(*results, strict=True):
        assert (labels == expected).mean() > 0.999


def test_idle_sequences_are_dropped_after_half_a_minute(config: Any) -> None:
    assert config.sequence_batching.max_sequence_idle_microseconds == 30_000_000


def test_slots_hold_the_long_term_frames_and_the_latest(repository: Path, config: Any) -> None:
    model = onnx.load(repository / "maskring" / "1" / "model.onnx")
    model.graph.output.append(helper.make_tensor_value_info("step/key", 1, [1, 8, 12, 16]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    state, keys = triton_server.empty_state(config), []
    for index in range(9):
        frame, mask = moving_square(index)
        feeds = {"frame": frame[None], "mask": mask[None], "start": np.array([index == 0], np.int32)}
        names = ["step/key", *(f"{name}_next" for name in state)]
        key, *after = session.run(names, feeds | state)
        state = dict(zip(state, after, strict=True))
        keys.append(key[0])
    np.testing.assert_array_equal(state["keys"][0], np.stack([keys[0], keys[5], *keys[:3:-1]]))


@pytest.mark.parametrize(("radius", "largest"), [(1, 3), (4, 1)])
def test_windows_are_those_of_the_trackers_ring(radius: int, largest: int) -> None:
    """Frame by frame, long after they have settled: the same frames are read in the same windows."""
    metadata = ModelMetadata(
        stride=4, channels=8, radius=radius, logit_scale=1.0, height=HEIGHT, width=WIDTH, num_labels=2
    )
    table, policy = dilation_table(metadata), MemoryPolicy()
    assert table.max() == largest
    ring, frame_in_slot = MemoryRing(policy), dict[int, int]()
    for clock in range(60):
        expected, slot = ring.plan(12 / radius)
        ours = table[min(clock, len(table) - 1)]
        frames = [*policy.long_term, *(clock - age for age in policy.short_term)]
        read = {frame: int(step) for frame, step in zip(frames, ours, strict=True) if step}
        assert len(read) == np.count_nonzero(ours), "no frame is read twice"
        assert read == {frame_in_slot[s]: int(step) for s, step in enumerate(expected) if step}, clock
        frame_in_slot[slot] = clock
        ring.commit()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nvidias_builder_makes_an_engine_of_it(repository: Path, tmp_path: Path, dtype: str) -> None:
    checkpoint = repository.parent / "tiny.safetensors"
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
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


@pytest.fixture(scope="module")
def client(repository: Path) -> Any:
    """The client of the repository, as a module."""
    spec = importlib.util.spec_from_file_location("triton_client", repository / "client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_streams(repository: Path, tmp_path: Path, address: str) -> None:
    """Two clients at once, each with its own video and objects, get the masks that the tracker makes."""
    commands, expected = [], []
    for name, shift, object_id in (("one", 0, 7), ("two", 12, 200)):
        clip = [moving_square(index + shift) for index in range(9)]
        folder = tmp_path / name
        folder.mkdir()
        for index, (frame, _) in enumerate(clip):
            cv2.imwrite(str(folder / f"{index}.png"), np.ascontiguousarray(frame[..., ::-1]))
        write_mask(tmp_path / f"{name}.png", clip[0][1] * np.uint8(object_id))
        expected.append([m * object_id for m in tracked(repository.parent / "plain.onnx", clip)])
        arguments = [folder, tmp_path / f"{name}.png", address, "--out", tmp_path / f"{name}_masks"]
        commands.append([sys.executable, repository / "client.py", *arguments])
    running = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    for name, masks, process in zip(("one", "two"), expected, running, strict=True):
        said, complaint = process.communicate(timeout=900)
        assert process.returncode == 0, complaint
        assert len(said.splitlines()) == len(masks)
        for index, labels in enumerate(masks):
            found = read_mask(tmp_path / f"{name}_masks" / f"{index}.png", allow_empty=True)
            np.testing.assert_array_equal(found, labels, err_msg=f"{name} {index}")


def test_two_clients_at_once_get_their_own_masks(repository: Path, tmp_path: Path) -> None:
    """In processes of their own, against the fake server."""
    fake = triton_server.FakeTriton(repository)
    with triton_server.serving(fake) as address:
        two_streams(repository, tmp_path, address)
    assert not fake.last_used, "both said END"


@pytest.mark.slow
@pytest.mark.skipif(bool(triton_server.missing_triton()), reason=triton_server.missing_triton())
def test_two_clients_at_once_on_a_real_server(repository: Path, tmp_path: Path, client: Any) -> None:
    with triton_server.real_triton(repository, tmp_path) as address:
        two_streams(repository, tmp_path, address)
        streams_beyond_the_limit_are_turned_away(client, address)


def streams_beyond_the_limit_are_turned_away(client: Any, address: str) -> None:
    """Two places: the third stream is told so, and follows its object once a place is free."""
    frame, mask = moving_square(0)
    with client.Stream(address, mask) as first, client.Stream(address, mask) as second:
        first.step(frame), second.step(frame)
        with raises_user_error(UnavailableError, mentions=(address, "--wait", "--streams")):
            client.Stream(address, mask, wait=0.05).step(frame)
        second.close()
        with client.Stream(address, mask) as third:
            np.testing.assert_array_equal(third.step(frame), mask)
    with client.Stream(address, mask) as fourth, client.Stream(address, mask) as fifth:
        np.testing.assert_array_equal(fourth.step(frame), fifth.step(frame))


def test_streams_beyond_the_limit_are_turned_away(repository: Path, client: Any) -> None:
    with triton_server.serving(triton_server.FakeTriton(repository)) as address:
        streams_beyond_the_limit_are_turned_away(client, address)


def test_a_stream_that_paused_too_long_is_told(repository: Path, client: Any) -> None:
    """Its place goes to others, and it gets no mask of theirs."""
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address, client.Stream(address, mask) as stream:
        stream.step(frame)
        fake.pass_time(29)
        stream.step(frame)
        fake.pass_time(31)
        with raises_user_error(UnavailableError, mentions=(address, "paused", "mask")):
            stream.step(frame)
        assert not fake.last_used
    with raises_user_error(UnavailableError, mentions=("localhost:1",)):
        client.Stream("localhost:1", mask)


def test_a_stream_that_fails_frees_its_place(repository: Path, client: Any) -> None:
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address:
        with pytest.raises(KeyboardInterrupt), client.Stream(address, mask) as stream:
            stream.step(frame)
            assert len(fake.last_used) == 1
            raise KeyboardInterrupt
        assert not fake.last_used


def test_what_the_served_model_cannot_take_is_refused(repository: Path, client: Any, tmp_path: Path) -> None:
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address:
        with raises_user_error(MaskError, mentions=("--objects 2",)):
            client.Stream(address, np.where(np.arange(WIDTH) < 3, 2, mask).astype(np.uint8))
        with raises_user_error(MaskError, mentions=(f"{WIDTH - 1} x {HEIGHT}", f"--width {WIDTH - 1}")):
            client.Stream(address, mask[:, 1:])
        with (
            client.Stream(address, mask) as stream,
            raises_user_error(SourceError, mentions=(f"--height {HEIGHT - 1}",)),
        ):
            stream.step(frame[1:])
        command = [sys.executable, repository / "client.py", tmp_path, tmp_path / "none.png", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 2 and "none.png" in done.stderr and "Traceback" not in done.stderr


def test_command(repository: Path, tmp_path: Path) -> None:
    checkpoint = repository.parent / "tiny.safetensors"
    arguments = ["export", str(checkpoint), "--triton", str(tmp_path / "models")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and "--objects" in refused.stderr
    sizes = ["--height", str(HEIGHT), "--width", str(WIDTH), "--objects", "1"]
    done = CliRunner().invoke(app, [*arguments, *sizes])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "models" / "maskring" / "config.pbtxt").is_file()
    assert (
        triton_server.read_config(tmp_path / "models").sequence_batching.oldest.max_candidate_sequences == 8
    )
    served = tmp_path / "models" / "maskring" / "1" / "model.onnx"
    assert read_export(served)[1].roi_step == 0
    done = CliRunner().invoke(app, [*arguments, *sizes, "--localise", "2", "--streams", "3"])
    assert done.exit_code == 0 and read_export(served)[1].roi_step == 2
    assert (
        triton_server.read_config(tmp_path / "models").sequence_batching.oldest.max_candidate_sequences == 3
    )
    alone = CliRunner().invoke(app, ["export", str(checkpoint), "--out", "model.onnx", "--streams", "3"])
    assert alone.exit_code == 2 and "--triton" in alone.stderr
    nothing = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert nothing.exit_code == 2 and "--out" in nothing.stderr
