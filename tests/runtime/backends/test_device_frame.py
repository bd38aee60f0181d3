"""Frames that are on the GPU already: where they are read, when, and what is refused."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, on_gpu
from tensorrt_scene import SIZES, clip, reference, two_objects
from user_errors import raises_user_error

import maskring
from maskring.common.errors import SourceError, UnavailableError
from maskring.runtime.backends.device_frame import DeviceFrame, _Tensor
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.tracking.tracker import Tracker

SHAPE = (*SIZES[0], 3)
MASK = two_objects(*SIZES[0])
FRAMES = clip(*SIZES[0], 12)


@pytest.fixture
def tracker(gpu: FakeGpu, engine: Path) -> Tracker:
    return Tracker(TensorRTBackend(engine))


@pytest.fixture(scope="module")
def expected(model: Path) -> list[np.ndarray]:
    with reference(model) as tracker:
        steps = enumerate(FRAMES)
        return [tracker.step(frame, MASK if index == 0 else None).labels for index, frame in steps]


class Camera:
    """Puts frames into device memory, two places in turn, as a decoder with a pool does."""

    def __init__(self, gpu: FakeGpu, shift: int = 0) -> None:
        self.gpu = gpu
        self.places = [self._place() + shift for _ in range(2)]
        self.count = 0

    def _place(self) -> int:
        address = self.gpu.allocate(int(np.prod(SHAPE)) + 512)
        assert address is not None
        return address

    def take(self, image: np.ndarray) -> int:
        address = self.places[self.count % 2]
        self.count += 1
        self.gpu.memory_at(address, image.size)[:] = image.ravel()
        return address


class DlpackTensor:
    """What torch offers: a capsule, and the stream that has been asked to wait for the pixels."""

    def __init__(self, pixels: np.ndarray, device: int = 2) -> None:
        self.pixels, self.device = pixels, device
        self.waiting: Any = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, stream: Any = None) -> Any:
        self.waiting = stream
        return self.pixels.__dlpack__()


def test_cuda_array_interface(gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]) -> None:
    """The engine reads frames where they are: none is copied, and graphs are there for both places."""
    camera = Camera(gpu)
    uploads = 0
    for index, image in enumerate(FRAMES):
        frame = on_gpu(gpu, camera.take(image), SHAPE)
        np.testing.assert_array_equal(
            tracker.step(frame, MASK if index == 0 else None).labels, expected[index]
        )
        uploads = gpu.calls["memcpy_htod_async"] if index == 0 else uploads
    # What still goes up is the list of slots to read, captured once into each graph.
    assert gpu.calls["memcpy_htod_async"] - uploads == gpu.alive["graph"] - 1


def test_dlpack(gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]) -> None:
    camera = Camera(gpu)
    for index, image in enumerate(FRAMES):
        pixels = gpu.memory_at(camera.take(image), image.size).reshape(SHAPE)
        tensor = DlpackTensor(pixels)
        frame = maskring.DeviceFrame(tensor)
        assert frame.address == pixels.ctypes.data and tensor.waiting == frame.stream == 1
        np.testing.assert_array_equal(
            tracker.step(frame, MASK if index == 0 else None).labels, expected[index]
        )


def test_pixels_may_begin_behind_the_address_of_their_tensor() -> None:
    pixels = np.zeros(SHAPE, np.uint8)
    capsule = pixels.__dlpack__()
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(address(capsule, b"dltensor"))
    tensor.data, tensor.byte_offset = tensor.data - 64, 64
    offered = SimpleNamespace(__dlpack_device__=lambda: (2, 0), __dlpack__=lambda stream: capsule)
    assert DeviceFrame(offered).address == pixels.ctypes.data


def test_a_capsule_is_kept_as_long_as_its_frame() -> None:
    pixels = np.zeros(SHAPE, np.uint8)
    frame = DeviceFrame(DlpackTensor(pixels))
    held = pixels.base if pixels.base is not None else pixels
    with_frame = sys.getrefcount(held)
    del frame
    assert sys.getrefcount(held) == with_frame - 1


def test_pixels_that_tensorrt_cannot_read_there_are_copied_on_the_gpu(
    gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]
) -> None:
    camera = Camera(gpu, shift=64)
    for index, image in enumerate(FRAMES):
        frame = on_gpu(gpu, camera.take(image), SHAPE)
        np.testing.assert_array_equal(
            tracker.step(frame, MASK if index == 0 else None).labels, expected[index]
        )


def test_the_step_waits_for_who_writes_the_pixels(
    gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]
) -> None:
    """Pixels that the producer's stream has yet to write, at the time of the step."""
    producer = fake_device.stream(gpu)
    camera = Camera(gpu)
    for index, image in enumerate(FRAMES):
        address = camera.take(np.zeros_like(image))
        gpu.give(
            producer, lambda a=address, i=image: gpu.memory_at(a, i.size).__setitem__(slice(None), i.ravel())
        )
        frame = on_gpu(gpu, address, SHAPE, stream=producer.handle)
        np.testing.assert_array_equal(
            tracker.step(frame, MASK if index == 0 else None).labels, expected[index]
        )
    tracker.close()
    assert not +gpu.alive


@pytest.mark.parametrize("call", ["cuEventCreate", "cuEventRecord", "cuStreamWaitEvent"])
def test_a_stream_that_cannot_be_waited_for(gpu: FakeGpu, tracker: Tracker, call: str) -> None:
    producer, camera = fake_device.stream(gpu), Camera(gpu)
    gpu.fail(call)
    frame = on_gpu(gpu, camera.take(FRAMES[0]), SHAPE, stream=producer.handle)
    with raises_user_error(UnavailableError, mentions=("frame", call, "invalid")):
        tracker.step(frame, MASK)
    assert not +gpu.alive


class TorchTensor(DlpackTensor):
    """A tensor of torch's: version 2 of the CUDA Array Interface, which names no stream, and DLPack."""

    def __init__(self, gpu: FakeGpu, address: int, waits: Any) -> None:
        super().__init__(gpu.memory_at(address, int(np.prod(SHAPE))).reshape(SHAPE))
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": SHAPE,
            "typestr": "|u1",
            "version": 2,
        }
        self._waits = waits

    def __dlpack__(self, stream: Any = None) -> Any:
        self._waits(stream)
        return super().__dlpack__(stream)


def test_a_tensor_of_torch_that_is_still_being_written(
    gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]
) -> None:
    """torch lets the stream that it is told wait for its own; only DLPack can tell it."""
    torchs, legacy, camera = fake_device.stream(gpu), fake_device.stream(gpu), Camera(gpu)
    gpu.streams[1] = legacy  # CUDA's legacy default stream
    for index, image in enumerate(FRAMES):
        address = camera.take(np.zeros_like(image))
        gpu.give(
            torchs, lambda a=address, i=image: gpu.memory_at(a, i.size).__setitem__(slice(None), i.ravel())
        )
        tensor = TorchTensor(gpu, address, lambda handle: gpu.give(gpu.streams[handle], torchs.drain))
        labels = tracker.step(DeviceFrame(tensor), MASK if index == 0 else None).labels
        np.testing.assert_array_equal(labels, expected[index])


def test_without_a_stream_the_default_one_is_waited_for() -> None:
    """Version 3 says None where the pixels are there; before, nothing is said."""
    assert DeviceFrame(interface()).stream is None
    assert DeviceFrame(interface(version=2)).stream == 1
    assert DeviceFrame(interface(version=3, stream=7)).stream == 7


def test_frames_elsewhere_leave_the_tracker_usable(
    gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]
) -> None:
    """On another GPU, or in the memory of the host: reading there would lose the context."""
    tracker.step(FRAMES[0], MASK)
    elsewhere = Camera(gpu).take(FRAMES[1])
    gpu.ordinals[elsewhere] = 1
    host = np.zeros(SHAPE, np.uint8)
    for address in (elsewhere, host.ctypes.data):
        with raises_user_error(SourceError, mentions=("GPU", "put frames on that GPU")):
            tracker.step(on_gpu(gpu, address, SHAPE))
    np.testing.assert_array_equal(tracker.step(FRAMES[1]).labels, expected[1])


def test_frames_from_both_sides(gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]) -> None:
    camera = Camera(gpu)
    for index, image in enumerate(FRAMES):
        frame = image if index % 3 else on_gpu(gpu, camera.take(image), SHAPE)
        if index + 1 < len(FRAMES):
            tracker.prefetch(FRAMES[index + 1])
        np.testing.assert_array_equal(
            tracker.step(frame, MASK if index == 0 else None).labels, expected[index]
        )


def test_a_frame_on_the_gpu_may_be_named_ahead(
    gpu: FakeGpu, tracker: Tracker, expected: list[np.ndarray]
) -> None:
    """Nothing is to be fetched; what is no frame waits for its own step to be refused."""
    camera = Camera(gpu)
    frames = [on_gpu(gpu, camera.take(FRAMES[index]), SHAPE) for index in range(2)]
    tracker.prefetch(frames[1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(tracker.step(frames[0], MASK).labels, expected[0])
    tracker.prefetch(np.full(SHAPE, None))
    np.testing.assert_array_equal(tracker.step(frames[1]).labels, expected[1])
    assert gpu.calls["Event.record"] == 0


def interface(**changes: Any) -> Any:
    usual = {"data": (4096, False), "shape": SHAPE, "typestr": "|u1", "version": 3}
    return SimpleNamespace(__cuda_array_interface__=usual | changes)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros(SHAPE, np.float32).tolist(), ("type list", "__cuda_array_interface__")),
        (interface(typestr="<f4"), ("<f4",)),
        (interface(shape=(3, 49, 66)), ([3, 49, 66],)),
        (interface(shape=(49, 66)), ([49, 66],)),
        (interface(shape=(0, 66, 3)), ([0, 66, 3],)),
        (interface(strides=(256, 3, 1)), ("strides", (256, 3, 1))),
        (DlpackTensor(np.zeros(SHAPE, np.uint8), device=1), ("DLPack device 1", "CUDA")),
        (DlpackTensor(np.zeros(SHAPE, np.int8)), ("DLPack type", (0, 8, 1))),
        (DlpackTensor(np.zeros((49, 70, 3), np.uint8)[:, :66]), ("strides", [210, 3, 1])),
    ],
)
def test_what_is_no_frame(pixels: Any, words: tuple[object, ...]) -> None:
    with raises_user_error(SourceError, mentions=(*words, "uint8 RGB pixels [height, width, 3]", "GPU")):
        DeviceFrame(pixels)


class Refusing:
    """An owner that does not give out what it has, each in its own way."""

    def __init__(self, device: Exception | None = None, capsule: Any = None) -> None:
        self._device, self._capsule = device, capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        if self._device is not None:
            raise self._device
        return 2, 0

    def __dlpack__(self, stream: Any = None) -> Any:
        if isinstance(self._capsule, Exception):
            raise self._capsule
        return self._capsule


class Differentiable:
    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.\nUse detach.")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (Differentiable(), ("Differentiable", "Can't get", "Use detach")),
        (Refusing(BufferError("another device")), ("Refusing", "another device")),
        (Refusing(capsule=BufferError("requires gradient, use tensor.detach()")), ("use tensor.detach()",)),
        (Refusing(capsule=TypeError()), ("Refusing", "TypeError")),
        (Refusing(capsule="no capsule"), ("Refusing",)),
        (SimpleNamespace(__cuda_array_interface__="text"), ("__cuda_array_interface__",)),
    ],
)
def test_owners_that_refuse(pixels: Any, words: tuple[object, ...]) -> None:
    with raises_user_error(SourceError, mentions=(*words, "uint8 RGB pixels")):
        DeviceFrame(pixels)


def test_rows_one_after_the_other_may_say_so() -> None:
    assert DeviceFrame(interface(strides=(198, 3, 1))).address == 4096


def test_a_frame_of_another_size_than_the_stream(gpu: FakeGpu, tracker: Tracker) -> None:
    tracker.step(FRAMES[0], MASK)
    with raises_user_error(SourceError, mentions=("66x49", "64x48")):
        tracker.step(on_gpu(gpu, 4096, (48, 64, 3)))


def test_a_model_on_the_cpu_refuses_it(model: Path) -> None:
    tracker = Tracker(OnnxRuntimeBackend(model))
    with raises_user_error(SourceError, mentions=("GPU", "CPU", "TensorRT engine")):
        tracker.step(DeviceFrame(interface()), MASK)
