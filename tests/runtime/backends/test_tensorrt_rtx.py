"""Engines of TensorRT-RTX: capture, memory beside outputs, and kernels that are compiled once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_device
import onnx
import pytest
from fake_device import FakeGpu
from tensorrt_scene import SIZES, act, assert_equal, clip, reference

from maskring.common.errors import UnavailableError
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.backends.trt.kernel_cache import kernels_path
from maskring.runtime.model.engine_file import manifest_path, sha256
from maskring.runtime.tracking.tracker import Tracker


def test_tensorrt_rtx_says_whether_it_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, model: Path, rtx_engine: Path
) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    theirs = reference(model)
    expected = [act(theirs, index, frame) for index, frame in enumerate(clip(*SIZES[0]))]
    for refuses in (False, True):
        backend = TensorRTBackend(rtx_engine)
        with Tracker(backend) as ours:
            if refuses:
                gpu.fail("is_stream_capturable")
            for index, frame in enumerate(clip(*SIZES[0])):
                assert_equal(act(ours, index, frame), expected[index])
        assert ("cannot be captured" in backend.graphs_disabled) == refuses


@pytest.mark.parametrize("size", SIZES)
def test_outputs_of_an_engine_that_reads_all_memory_lie_beside_it(
    monkeypatch: pytest.MonkeyPatch, model: Path, rtx_engine: Path, size: tuple[int, int]
) -> None:
    """What an engine does in its outputs on the way must not reach the memory that it reads meanwhile."""
    gpu = FakeGpu(scribbles=True)
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    ours, theirs = Tracker(TensorRTBackend(rtx_engine)), reference(model)
    for index, frame in enumerate(clip(*size)):
        assert_equal(act(ours, index, frame), act(theirs, index, frame))


def compiled(engine: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> int:
    """Kernels that a run has to compile."""
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    if refuses:
        gpu.fail("deserialize")
    with Tracker(TensorRTBackend(engine)) as tracker:
        for index, frame in enumerate(clip(*SIZES[0])):
            act(tracker, index, frame)
    assert not +gpu.alive
    return gpu.compiled


@pytest.fixture
def fresh_engine(rtx_engine: Path, tmp_path: Path) -> Path:
    """An engine of TensorRT-RTX that has not run."""
    shutil.copy(manifest_path(rtx_engine), tmp_path)
    return Path(shutil.copy(rtx_engine, tmp_path))


def test_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch, fresh_engine: Path) -> None:
    first = compiled(fresh_engine, monkeypatch)
    assert first > 0 and compiled(fresh_engine, monkeypatch) == 0
    assert compiled(fresh_engine, monkeypatch, refuses=True) == first, "compiled by another GPU"
    assert compiled(fresh_engine, monkeypatch) == 0


def test_kernels_that_are_damaged_or_of_another_engine_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, fresh_engine: Path
) -> None:
    first = compiled(fresh_engine, monkeypatch)
    kept = kernels_path(fresh_engine)
    content = kept.read_bytes()
    for damaged in (content[:-1], content[:-1] + b" ", b"", bytes(len(content))):
        kept.write_bytes(damaged)
        assert compiled(fresh_engine, monkeypatch) == first
        assert kept.read_bytes() == content
    manifest = json.loads(manifest_path(fresh_engine).read_text())
    model = onnx.load_model_from_string(fresh_engine.read_bytes())
    model.doc_string = "another engine of the same name"
    fresh_engine.write_bytes(model.SerializeToString())
    manifest["engine_sha256"] = sha256(fresh_engine)
    manifest_path(fresh_engine).write_text(json.dumps(manifest))
    assert compiled(fresh_engine, monkeypatch) == first


def test_a_folder_that_takes_no_kernels_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch, fresh_engine: Path
) -> None:
    kernels_path(fresh_engine).mkdir()
    first = compiled(fresh_engine, monkeypatch)
    assert first > 0 and compiled(fresh_engine, monkeypatch) == first


@pytest.mark.parametrize(
    "call", ["create_runtime_config", "create_runtime_cache", "create_execution_context"]
)
def test_tensorrt_rtx_may_refuse_to_prepare_an_engine(
    monkeypatch: pytest.MonkeyPatch, rtx_engine: Path, call: str
) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu, version="1.7.1", rtx=True)
    gpu.fail(call)
    with pytest.raises(UnavailableError, match=r"TensorRT could not prepare .*rtx.engine for execution: .*;"):
        TensorRTBackend(rtx_engine)
    assert not +gpu.alive
