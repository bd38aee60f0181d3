"""The onnxruntime backend against the same step in numpy, and what can be wrong with a model file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from pixel_backend import PixelBackend, interpolate, pixel_metadata
from pixel_model import pixel_model, write_pixel_model
from user_errors import raises_user_error

from maskring.common.errors import ModelError, SourceError, UnavailableError, UserError
from maskring.runtime.backends import Backend, open_backend
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.session import BoundSession, open_session
from maskring.runtime.model.metadata import METADATA_KEY
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 49, 66
RANDOM = np.random.default_rng(0)
FRAMES = [RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(12)]
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[8:30, 8:30], MASK[20:44, 34:60] = 3, 9


def assert_same_labels(result: Result, expected: Result) -> None:
    """The same label at each pixel where the best one leads by more than rounding errors."""
    fine = np.sort(interpolate(expected.probabilities, HEIGHT, WIDTH, 4), axis=0)
    clear = fine[-1] - fine[-2] > 1e-4
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(result.labels[clear], expected.labels[clear])


@pytest.mark.parametrize("kernel", ["native", "function"])
@pytest.mark.parametrize("smooth", [0, 2])
def test_tracks_like_the_step_in_numpy(tmp_path: Path, kernel: str, smooth: int) -> None:
    """Two objects, one of them removed, a third one added in its place: every output of every frame."""
    model = write_pixel_model(tmp_path / "pixel.onnx", smoothing_radius=smooth)
    ours = Tracker(OnnxRuntimeBackend(model, kernel=kernel, threads=2))
    theirs = Tracker(PixelBackend(pixel_metadata(smoothing_radius=smooth)))
    third = np.where(MASK == 9, 77, 0).astype(np.uint8)[::-1].copy()
    for index, frame in enumerate(FRAMES):
        mask = {0: MASK, 7: third, 9: MASK // 3}.get(index)
        if index == 5:
            ours.remove(3), theirs.remove(3)
        result, expected = ours.step(frame, mask), theirs.step(frame, mask)
        # Logits reach 600, where neighbouring float32 numbers lie 6e-5 apart.
        np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-4)
        assert_same_labels(result, expected)
        assert [state.id for state in result.objects] == [state.id for state in expected.objects]
    ours.close()


@pytest.mark.parametrize("kernel", ["native", "function"])
def test_half_precision(tmp_path: Path, kernel: str) -> None:
    path = write_pixel_model(tmp_path / "half.onnx", dtype="float16")
    ours, theirs = Tracker(OnnxRuntimeBackend(path, kernel=kernel)), Tracker(PixelBackend())
    for index, frame in enumerate(FRAMES):
        result, expected = (tracker.step(frame, MASK if index == 0 else None) for tracker in (ours, theirs))
        assert result.probabilities.dtype == (np.float16 if index else np.float32)
        assert (result.labels == expected.labels).mean() > 0.9


def test_step_writes_into_its_slot_and_nowhere_else(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.allocate(HEIGHT, WIDTH, 5, 3)
    memory = backend._tensors
    assert memory is not None
    memory.keys[:], memory.values[:] = 7, 0.25
    keys, values = memory.keys.copy(), memory.values.copy()
    backend.step(FRAMES[0], np.zeros(5, np.int32), 3)
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(memory.keys[0, others], keys[0, others])
    np.testing.assert_array_equal(memory.values[0, others], values[0, others])
    assert not (memory.keys[0, 3] == 7).all()
    np.testing.assert_array_equal(memory.values[0, 3, 0], 1)  # nothing was read: background


def test_labels_grow_without_losing_memory(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.allocate(HEIGHT, WIDTH, 4, 2)
    backend.step(FRAMES[0], np.zeros(4, np.int32), 1)
    value = RANDOM.random((2, 13, 17), dtype=np.float32)
    backend.write_value(1, value)
    read = np.array([0, 1, 0, 0], np.int32)
    before = backend.step(FRAMES[1], read, 2)[1].copy()
    backend.allocate(HEIGHT, WIDTH, 4, 5)
    after = backend.step(FRAMES[1], read, 2)[1]
    np.testing.assert_allclose(after[:2], before, atol=1e-6)
    assert after.shape[0] == 5 and not after[2:].any()


def test_merged_label_becomes_background(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.allocate(HEIGHT, WIDTH, 2, 3)
    value = RANDOM.random((3, 13, 17), dtype=np.float32)
    backend.write_value(0, value)
    backend.merge_label(1)
    assert backend._tensors is not None
    np.testing.assert_allclose(backend._tensors.values[0, 0], [value[0] + value[1], 0 * value[1], value[2]])


def test_outputs_land_in_bound_memory(model: Path) -> None:
    """onnxruntime hands back the very addresses it was given: nothing is copied behind our back."""
    session = open_session(pixel_model(), 1)
    ring = np.zeros((1, 3, 4, 13, 17), np.float32)
    inputs = {
        "frame": FRAMES[0][None],
        "memory_keys": ring,
        "memory_values": np.zeros((1, 3, 2, 13, 17), np.float32),
        "memory_dilation": np.zeros((1, 3), np.int32),
    }
    bound = BoundSession.to(session, inputs, {"key": ring[:, 1]})
    bound.run()
    assert bound.binding.get_outputs()[0].data_ptr() == ring[0, 1].ctypes.data
    colours = FRAMES[0][::4, ::4].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(ring[0, 1, :3], colours, rtol=1e-6)
    assert not ring[0, [0, 2]].any()


PEAK = """
import sys, numpy as np
from pathlib import Path
def peak():  # not ru_maxrss: a child process inherits its parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
backend = OnnxRuntimeBackend(Path(sys.argv[1]), threads=1)
slots = 4000
backend.allocate(240, 320, slots, 2)
backend._tensors.keys[:], backend._tensors.values[:] = 1, 1  # touch every page
read = np.zeros(slots, np.int32)
read[:2] = 1
frame = np.zeros((240, 320, 3), np.uint8)
backend.step(frame, read, 5)
before = peak()
for slot in (6, 7, 8):
    backend.step(frame, read, slot)
ring = (backend._tensors.keys.nbytes + backend._tensors.values.nbytes) / 1024
print(ring, before, peak())
"""


def test_memory_is_not_copied_per_frame(model: Path) -> None:
    """A ring of hundreds of megabytes: had a step copied it, even once, the peak would show it."""
    command = [sys.executable, "-c", PEAK, str(model)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True).stdout
    ring, before, after = map(float, printed.split())
    assert ring > 400_000
    assert after < 1.5 * ring
    assert after - before < 5_000


# --- what can be wrong with a model file


def test_missing_model(tmp_path: Path) -> None:
    with raises_user_error(ModelError, mentions=("none.onnx",)):
        OnnxRuntimeBackend(tmp_path / "none.onnx")


def test_folder_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with raises_user_error(ModelError, mentions=("folder.onnx",)):
        OnnxRuntimeBackend(tmp_path / "folder.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09" * 100, b"\x00" * 4096, b"\xff" * 64])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strange.onnx"
    path.write_bytes(content)
    with raises_user_error(ModelError, mentions=(path,)):
        OnnxRuntimeBackend(path)


def test_cut_short(model: Path, tmp_path: Path) -> None:
    """At every length: a sentence, never a crash and never a model that half works."""
    whole = model.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with raises_user_error(ModelError, mentions=(path,)):
            OnnxRuntimeBackend(path)


def changed(edit: Callable[[onnx.ModelProto], None], path: Path) -> Path:
    model = pixel_model()
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def without_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def other_version(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('version": 1', 'version": 9')


def damaged_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"stride": 4', '"stride": "4"')


def other_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.domain == "maskring").op_type = "Attention"


def other_operator_version(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if entry.domain == "maskring").version = 7


def read_apart_from_probabilities(model: onnx.ModelProto) -> None:
    """Something happens to what was read before it is called probabilities."""
    nodes = list(model.graph.node)
    index = next(index for index, node in enumerate(nodes) if node.domain == "maskring")
    nodes[index].output[0] = "read"
    nodes.insert(index + 1, helper.make_node("Identity", ["read"], ["probabilities"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "masks"


def broken_node(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without_metadata, ("maskring export",)),
        (other_version, (9, 1)),
        (damaged_metadata, ("metadata", "maskring export")),
        (other_operator, ("step graph",)),
        (other_operator_version, ("step graph",)),
        (other_output, ("step graph",)),
        (read_apart_from_probabilities, ("step graph",)),
        (broken_node, ("onnxruntime", "NoSuchOperator")),
    ],
)
@pytest.mark.parametrize("kernel", ["native", "function"])
def test_not_ours(
    tmp_path: Path, edit: Callable[[onnx.ModelProto], None], words: tuple[object, ...], kernel: str
) -> None:
    path = changed(edit, tmp_path / "strange.onnx")
    with raises_user_error(ModelError, mentions=("strange.onnx", *words)):
        OnnxRuntimeBackend(path, kernel=kernel)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """protobuf's Python implementation, which some programs ask for, has an error of its own for it."""
    path = write_pixel_model(tmp_path / "strange.onnx")
    path.write_bytes(path.read_bytes().replace(b"probabilities", b"\xffrobabilities"))
    code = "import sys; from pathlib import Path; from maskring.common.errors import ModelError\n"
    code += "from maskring.runtime.model.step_graph import load_step_graph\n"
    code += "try: load_step_graph(Path(sys.argv[1]))\nexcept ModelError as error: print(error)"
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "strange.onnx is not an ONNX file" in done.stdout


def test_frame_size_of_a_fixed_model(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(write_pixel_model(tmp_path / "fixed.onnx", height=48, width=64))
    with raises_user_error(SourceError, mentions=("66x49", "64x48", "--height 49 --width 66")):
        backend.allocate(HEIGHT, WIDTH, 8, 2)
    backend.allocate(48, 64, 8, 2)


def test_memory_beyond_the_machine(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.allocate(HEIGHT, WIDTH, 8, 2)
    with raises_user_error(UnavailableError, mentions=("memory", "smaller frames")):
        backend.allocate(HEIGHT, WIDTH, 10**12, 2)
    backend.step(FRAMES[0], np.zeros(8, np.int32), 0)  # what was there still works


def test_graph_that_fails_while_running(tmp_path: Path) -> None:
    """A file whose tables promise what its graph does not hold is named, not excused by a traceback."""

    def wrong_stride(model: onnx.ModelProto) -> None:
        metadata = replace(pixel_metadata(), stride=8)
        helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})

    backend = OnnxRuntimeBackend(changed(wrong_stride, tmp_path / "strange.onnx"))
    backend.allocate(HEIGHT, WIDTH, 8, 2)
    with raises_user_error(ModelError, mentions=("strange.onnx", "66x49", "maskring verify")):
        backend.step(FRAMES[0], np.zeros(8, np.int32), 0)


def test_closed_backend(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.close()
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.allocate(HEIGHT, WIDTH, 8, 2)
    with pytest.raises(ValueError, match="closed"):
        backend.step(FRAMES[0], np.zeros(8, np.int32), 0)


# --- choosing a backend


def test_onnx_files_open(model: Path) -> None:
    backend: Backend = open_backend(model, threads=1)
    assert isinstance(backend, OnnxRuntimeBackend)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("model.engine", ModelError, ("model.engine",)),
        ("model.safetensors", ModelError, ("maskring export", "model.safetensors --out", "model.onnx")),
        ("model.pth", ModelError, ("model.pth", "maskring export")),
        ("model.txt", ModelError, ("model.txt", ".onnx or .engine")),
        ("none.onnx", ModelError, ("none.onnx",)),
    ],
)
def test_other_files_do_not(tmp_path: Path, name: str, kind: type[UserError], words: tuple[str, ...]) -> None:
    with raises_user_error(kind, mentions=words):
        open_backend(tmp_path / name)
