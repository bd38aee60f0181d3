"""A GPU whose calls fail: one sentence, and a tracker that goes on or is closed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, named
from tensorrt_scene import SIZES, assert_nothing_is_left, clip, reference, two_objects
from user_errors import assert_sentence, raises_user_error

from maskring.common.errors import ModelError, UnavailableError, UserError
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.tracking.tracker import Tracker

MASK = two_objects(*SIZES[0])
ADDED = np.where(MASK == 9, 5, 0).astype(np.uint8)
FRAMES = clip(*SIZES[0], 14)


# --- every call of a session, made to fail


def act(tracker: Tracker, index: int) -> np.ndarray:
    """One step of a stream in which labels grow, an object goes, and frames are named ahead."""
    if index == 9 and 3 in tracker._objects.ids:
        tracker.remove(3)
    if index + 1 < len(FRAMES):
        tracker.prefetch(FRAMES[index + 1])
    return tracker.step(FRAMES[index], {0: MASK, 6: ADDED}.get(index)).labels


@pytest.fixture(scope="module")
def expected(model: Path) -> list[np.ndarray]:
    with reference(model) as tracker:
        return [act(tracker, index) for index in range(len(FRAMES))]


def session(engine: Path, expected: list[np.ndarray]) -> tuple[list[str], bool]:
    """Track, giving a frame again when it failed; the errors, and whether the tracker survived them."""
    errors: list[str] = []  # not the exceptions: their frames hold objects of the fake, as C++ would not
    try:
        tracker = Tracker(TensorRTBackend(engine))
    except UserError as error:
        return [str(error)], False
    index = 0
    while index < len(FRAMES) and len(errors) < 3:
        try:
            np.testing.assert_array_equal(act(tracker, index), expected[index])
            index += 1
        except UserError as error:
            errors.append(str(error))
    tracker.close()
    tracker.close()
    return errors, index == len(FRAMES)


NEVER_REFUSED = {
    "Context.pop",
    "Context.detach",
    "Stream.__del__",
    "cuCtxPopCurrent_v2",
    "cuGraphExecDestroy",
    "cuMemHostUnregister",
}
"""Calls that give something back, and that the driver does not refuse; counted all the same."""


def calls_of_a_session(package: str, engine: Path, expected: list[np.ndarray]) -> Counter[str]:
    gpu = FakeGpu()
    with pytest.MonkeyPatch.context() as patch:
        fake_device.install(patch, gpu, package=package)
        assert session(engine, expected) == ([], True)
    return gpu.calls


@pytest.mark.parametrize("package", fake_device.PACKAGES)
def test_every_call_may_fail(package: str, engine: Path, expected: list[np.ndarray]) -> None:
    """The first, the second, one in the middle and the last of each kind, one at a time."""
    calls = calls_of_a_session(package, engine, expected)
    assert len(calls) > 25
    outcomes: dict[str, set[tuple[int, bool]]] = {}
    for name in sorted(set(calls) - NEVER_REFUSED):
        for after in sorted({0, 1, 2, calls[name] // 2, calls[name] - 1} & set(range(calls[name]))):
            gpu = FakeGpu()
            gpu.driver_stack.append("torch's")
            gpu.fail(name, after)
            with pytest.MonkeyPatch.context() as patch:
                fake_device.install(patch, gpu, package=package)
                errors, survived = session(engine, expected)
            for error in errors:
                assert_sentence(error)
            assert len(set(errors)) <= 1, "closed, and another reason each time"
            assert survived or errors
            outcomes.setdefault(name, set()).add((len(errors), survived))
            if name == "Context.push" and package == "pycuda":
                # pycuda pushes it once more to give it back, and leaves it there.
                del gpu.driver_stack[1:]
            assert_nothing_is_left(gpu)
    assert outcomes["cuStreamBeginCapture_v2"] == {(0, True)}  # goes on without graphs
    assert (1, True) in outcomes["set_input_shape"]  # the frame is given again
    assert (3, False) in outcomes["Stream.synchronize"]  # closed, and says so each time
    assert all(survived is False for _, survived in outcomes["create_execution_context"])


def test_a_failed_execution_leaves_the_tracker_usable(
    gpu: FakeGpu, engine: Path, expected: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    gpu.fail("cuStreamBeginCapture_v2")  # so that executions can fail outside a capture
    act(tracker, 0)
    for index in range(1, len(FRAMES)):
        if index in (3, 8):
            gpu.fail("execute_async_v3")
            reason = f"enqueueV3: call {gpu.calls['execute_async_v3'] + 1} failed"
            with raises_user_error(ModelError, mentions=(reason, "give the frame")):
                act(tracker, index)
        np.testing.assert_array_equal(act(tracker, index), expected[index])


def test_memory_that_does_not_fit_leaves_what_was_there(
    gpu: FakeGpu, engine: Path, expected: list[np.ndarray]
) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    for index in range(6):
        act(tracker, index)
    for shortage in range(0, 60_000, 9_000):  # each allocation in turn is the one that fails
        gpu.memory = gpu.used + shortage
        before = dict(+gpu.alive), gpu.used
        with raises_user_error(UnavailableError, mentions=("GPU", "MB", "smaller frames")):
            act(tracker, 6)
        assert (dict(+gpu.alive), gpu.used) == before
    gpu.memory = 1 << 30
    for index in range(6, len(FRAMES)):
        np.testing.assert_array_equal(act(tracker, index), expected[index])


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_an_engine_that_refuses_new_memory_keeps_the_old(
    gpu: FakeGpu, model: Path, engine: Path, expected: list[np.ndarray], call: str
) -> None:
    """A mask adds an object, and the engine will not have it: the stream goes on without."""
    theirs = reference(model)
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    for index in range(6):
        np.testing.assert_array_equal(act(tracker, index), act(theirs, index))
    before = gpu.alive["allocation"], gpu.alive["pinned"], gpu.used
    gpu.fail(call)
    with pytest.raises(ModelError):
        act(tracker, 6)
    assert (gpu.alive["allocation"], gpu.alive["pinned"], gpu.used) == before
    for index in range(6, len(FRAMES)):
        np.testing.assert_array_equal(tracker.step(FRAMES[index]).labels, theirs.step(FRAMES[index]).labels)
    assert backend.graphs_disabled == "", "graphs are captured again"


def test_an_engine_that_takes_neither_memory_is_closed(gpu: FakeGpu, engine: Path) -> None:
    """It would write to addresses of one memory in the shapes of the other."""
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail("execute_async_v3")
    tries = gpu.calls["set_input_shape"]
    gpu.when["set_input_shape"] = lambda: gpu.calls["set_input_shape"] > tries + 4
    with raises_user_error(UnavailableError, mentions=("frame", "open the model again")):
        tracker.step(FRAMES[1], ADDED)
    assert_nothing_is_left(gpu)


def test_a_gpu_that_fails_closes_the_tracker_and_frees_everything(gpu: FakeGpu, engine: Path) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail("Stream.synchronize")
    words = (
        "frame",
        named("Stream.synchronize"),
        "unspecified launch failure",
        "nvidia-smi",
        "open the model again",
    )
    with raises_user_error(UnavailableError, mentions=words):
        act(tracker, 1)
    assert_nothing_is_left(gpu)
    for again in (lambda: act(tracker, 1), lambda: tracker.remove(3)):
        with raises_user_error(UnavailableError, mentions=words):
            again()
    tracker.close()


def test_a_broken_gpu_is_not_asked_twice(gpu: FakeGpu, engine: Path) -> None:
    """An engine that reads where nothing is: the context is lost, and every call says so from then on."""
    backend = TensorRTBackend(engine)
    tracker = Tracker(backend)
    act(tracker, 0)
    assert backend._tensors is not None
    gpu.free(backend._tensors.keys.address)
    with raises_user_error(UnavailableError, mentions=("illegal memory access",)):
        act(tracker, 1)
    tracker.close()


@pytest.mark.parametrize("call", ["memcpy_htod_async", "memcpy_dtoh_async", "Stream.synchronize"])
def test_failures_between_frames(gpu: FakeGpu, engine: Path, call: str) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    act(tracker, 0)
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=("removed", named(call))):
        tracker.remove(3)
    assert_nothing_is_left(gpu)


@pytest.mark.parametrize("call", ["memcpy_htod_async", "Stream.synchronize"])
def test_failures_while_a_mask_is_stored(gpu: FakeGpu, engine: Path, call: str) -> None:
    tracker = Tracker(TensorRTBackend(engine))
    labels = act(tracker, 0)
    gpu.fail(call)
    with raises_user_error(UnavailableError, mentions=("mask", named(call))):
        tracker.revise(labels)
    assert_nothing_is_left(gpu)


def test_a_closed_backend(gpu: FakeGpu, engine: Path) -> None:
    backend = TensorRTBackend(engine)
    with pytest.raises(ValueError, match="no memory"):
        backend.step(FRAMES[0], np.zeros(8, np.int32), 0)
    backend.close()
    backend.close()
    for call in (
        lambda: backend.allocate(*SIZES[0], 8, 2),
        lambda: backend.step(FRAMES[0], np.zeros(8, np.int32), 0),
        lambda: backend.merge_label(1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()
