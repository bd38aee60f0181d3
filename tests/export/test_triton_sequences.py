"""A sequence that Triton serves is a tracker: same memory, same windows, same masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from served_model import RADIUS, serve, tracked
from support import HEIGHT, WIDTH, kept_export, kept_exports, moving_square, write_tiny_checkpoint

from maskring.export.triton.repository import write_triton_repository
from maskring.export.triton.state import dilation_table
from maskring.plugins import onnxruntime_library
from maskring.plugins.windowed_affinity.onnx_op import is_memory_read
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.model.step_graph import load_step_graph
from maskring.runtime.tracking.memory import MemoryPolicy, MemoryRing
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask
from maskring.training.weights import shipped_checkpoint

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
import triton_server

FRAMES = 24
REAL, REAL_FRAMES = "dog-agility", 30


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
    with kept_exports():
        write_triton_repository(checkpoint, tmp_path / "models", **settings)
    kept_export(checkpoint, tmp_path / "plain.onnx", **settings)
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


def test_a_search_for_window_centres_is_served(tmp_path: Path) -> None:
    """On features of raw colours, which follow the square to the end of the clip."""
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors", patch=9)
    settings = {"radius": RADIUS, "roi_step": 2, "logit_scale": 2.0}
    sizes = {"height": HEIGHT, "width": WIDTH, "num_labels": 2}
    with kept_exports():
        folder = write_triton_repository(checkpoint, tmp_path / "models", **sizes, **settings)
    kept_export(checkpoint, tmp_path / "plain.onnx", **sizes, **settings)
    model = folder / "1" / "model.onnx"
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
