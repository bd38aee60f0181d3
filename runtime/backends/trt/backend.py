"""TensorRT engines as a backend: memory stays on the GPU, labels and probabilities come back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....common.errors import MaskError, ModelError, SourceError, UnavailableError
from ....common.types import FloatMaps, Image, Labels
from ....plugins.library import library_path
from ....plugins.library import load as load_plugin
from ...model.engine_file import (
    BUILD_AGAIN,
    TENSORRT_RTX,
    EngineManifest,
    Shapes,
    manifest_path,
    read_engine,
    read_manifest,
    sha256,
)
from ...model.tensor_names import DILATION, FRAME, KEYS, VALUES
from ..device_frame import Pixels
from .device import Device
from .driver import error_text
from .engine import Engine
from .frame_uploads import FrameUploads
from .launcher import StepLauncher
from .module import import_tensorrt
from .tensors import DeviceTensors

OPEN_AGAIN = "the tracker is closed: check the GPU with nvidia-smi, then open the model again"

TIMED_RUNS = 3
"""Runs over which the times of layers are averaged."""


class TensorRTBackend:
    """Executes an engine of TensorRT or TensorRT-RTX on an NVIDIA GPU.

    Keys and label maps of past frames never leave the GPU: the engine writes those of a frame into the
    frame's slot. A frame costs one copy to the GPU, one launch of a CUDA graph and one wait.

    A failure of the GPU itself closes the backend, because nothing on that GPU can be trusted afterwards.

    Args:
        engine: written by ``maskring build``, with its ``.json`` in the same folder.

    Attributes:
        last_upload, last_run: seconds that the latest step took to upload its inputs, and to execute the
            engine and fetch its outputs.

    Raises:
        ModelError: when a file is missing or damaged, or was built for another TensorRT, GPU or plugin.
        UnavailableError: when TensorRT, pycuda, the plugin or the GPU is missing, or the GPU has too little
            memory.
    """

    def __init__(self, engine: Path) -> None:
        manifest = read_manifest(engine)
        trt = import_tensorrt(manifest.key.runtime)
        content = read_engine(engine, manifest)
        plugin = sha256(library_path()) if manifest.key.plugin_sha256 else ""
        self._path = engine
        self._runtime = f"{manifest.key.runtime} {trt.__version__}"
        # The function body, which is built in there, reads the slot that is written.
        self._separate_outputs = manifest.key.runtime == TENSORRT_RTX
        self._profile = _profile(manifest, engine)
        self.metadata = replace(manifest.metadata, num_slots=self._profile[KEYS][2][1])
        self.last_upload = self.last_run = 0.0
        self._tensors: DeviceTensors | None = None
        self._num_labels = 0  # of the tracker; the tensors may have more
        self._uploads = FrameUploads()
        self._failure = ""
        self._engine: Engine | None = None
        self._launcher: StepLauncher | None = None
        device = Device()
        self._device: Device | None = device
        try:
            manifest.check_runs_on(str(trt.__version__), device.compute_capability, plugin)
            with self._on(device, "while the engine was loaded"):
                if plugin:
                    load_plugin(trt)
                self._engine = Engine(trt, content, manifest, engine)
                self._launcher = StepLauncher(device, self._engine, self.metadata.channels, engine)
        except BaseException:
            self.close()
            raise

    @property
    def graphs_disabled(self) -> str:
        """Why the engine runs without CUDA graphs; empty while they are used."""
        return "" if self._launcher is None else self._launcher.graphs_disabled

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.allocate`."""
        device, launcher = self._open()
        self._check_profile(height, width, num_labels)
        sizes = height, width, num_slots, max(num_labels, self._profile[VALUES][0][2])
        old = self._tensors
        if old is not None and old.sizes[:3] == sizes[:3] and num_labels <= old.sizes[3]:
            self._num_labels = max(num_labels, self._num_labels)
            return
        with self._on(device, "while memory was allocated"):
            new = DeviceTensors.zeros(device, self.metadata, sizes, self._separate_outputs)
            self._replace(device, launcher, old, new)
        self._num_labels = num_labels

    def prefetch(self, frame: Image) -> None:
        """See :meth:`maskring.runtime.backends.base.PrefetchingBackend.prefetch`."""
        self._uploads.announce(frame)

    def step(self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int) -> tuple[Labels, FloatMaps]:
        """See :meth:`maskring.runtime.backends.base.Backend.step`; the frame may be on the GPU."""
        device, launcher = self._open()
        tensors = self._allocated()
        started = time.perf_counter()
        with self._on(device, "while a frame was processed"):
            address = self._uploads.place(device, tensors, frame)
            tensors.host_dilation.array[:] = dilation
            placed = time.perf_counter()
            try:
                launcher.start(tensors, address, write_slot)
                self._uploads.upload_announced(device, tensors)
            finally:
                device.synchronize()
        self.last_upload, self.last_run = placed - started, time.perf_counter() - placed
        return tensors.host_labels.array, tensors.host_probabilities.array[: self._num_labels]

    def write_value(self, slot: int, value: FloatMaps) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.write_value`."""
        (device, _), tensors = self._open(), self._allocated()
        host = tensors.host_value.array
        host[: len(value)] = value  # channels beyond are not in use
        with self._on(device, "while a mask was stored"):
            device.upload(tensors.value_addresses(slot)[0], host)
            device.synchronize()

    def merge_label(self, channel: int) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.merge_label`; done on the host, as it is rare."""
        (device, _), tensors = self._open(), self._allocated()
        _, _, num_slots, num_labels = tensors.sizes
        values = np.empty((num_slots, num_labels, *tensors.grid), self.metadata.dtype)
        with self._on(device, "while an object was removed"):
            device.download(values, tensors.values.address)
            device.synchronize()
            values[:, 0] += values[:, channel]
            values[:, channel] = 0
            device.upload(tensors.values.address, values)
            device.synchronize()  # a GPU that reads host memory directly needs the array until here

    def description(self) -> dict[str, str]:
        """What the engine runs on and how, for people."""
        device, launcher = self._open()
        return {
            "GPU": f"{device.name} ({device.compute_capability})",
            "runtime": self._runtime,
            "memory on the GPU": f"{device.allocated / 1e6:.1f} MB, plus the engine's own",
            "CUDA graphs": launcher.graphs_disabled or f"{launcher.num_graphs} captured",
        }

    def layer_times(self) -> list[tuple[str, float]]:
        """Mean milliseconds of each layer of the engine as TensorRT reports them, slowest first.

        Executes the latest frame :data:`TIMED_RUNS` times more. All later steps are slower: call this last.

        Raises:
            UserError: when the engine cannot be executed.
        """
        device, launcher = self._open()
        engine, tensors = self._engine, self._allocated()
        assert engine is not None
        with self._on(device, "while layers were timed"):
            launcher.bind(tensors)
            launcher.graphs_disabled = "its layers are timed"
            milliseconds = engine.report_layers()
            for _ in range(TIMED_RUNS):
                launcher.execute_once(tensors, self._uploads.address(tensors))
        means = [(name, total / TIMED_RUNS) for name, total in milliseconds.items()]
        return sorted(means, key=lambda item: -item[1])

    def close(self) -> None:
        """See :meth:`maskring.runtime.backends.base.Backend.close`."""
        device, self._device = self._device, None
        if device is None:
            return
        with device.closing():
            if self._launcher is not None:
                self._launcher.drop_graphs()
            if self._engine is not None:
                if self._launcher is not None and self._launcher.warm and not self._failure:
                    self._engine.save_kernels()
                self._engine.close()
            self._engine = self._tensors = None
            self._uploads.clear()

    def _check_profile(self, height: int, width: int, num_labels: int) -> None:
        (_, min_height, min_width, _), _, (_, max_height, max_width, _) = self._profile[FRAME]
        if not (min_height <= height <= max_height and min_width <= width <= max_width):
            raise SourceError(
                f"the frames are {width}x{height} pixels, and the engine {self._path} was built for "
                f"{_range(min_width, max_width)} x {_range(min_height, max_height)}",
                "build it again with --height and --width that include them, or resize the frames",
            )
        max_labels = self._profile[VALUES][2][2]
        if num_labels > max_labels:
            raise MaskError(
                f"the mask brings the number of objects to {num_labels - 1}, and the engine {self._path} was "
                f"built for {max_labels - 1}",
                f"build it again with --objects 1:{max_labels - 1}:{num_labels - 1}, or mark fewer",
            )

    def _replace(
        self, device: Device, launcher: StepLauncher, old: DeviceTensors | None, new: DeviceTensors
    ) -> None:
        """Bind the engine to ``new`` and warm it up; return to ``old`` when that fails."""
        try:
            if old is not None and old.sizes[:3] == new.sizes[:3]:
                old.copy_memory_to(device, new)
            launcher.bind(new)
            launcher.execute_once(new, self._uploads.address(new))
        except ModelError:
            device.synchronize_all()
            new.free()
            if old is not None:
                launcher.bind_again(old)
            raise
        self._tensors = new
        self._uploads.forget_early_upload()
        if old is not None:
            old.free()

    @contextlib.contextmanager
    def _on(self, device: Device, when: str) -> Iterator[None]:
        """Make the GPU's context current. An error of the GPU closes the backend for good.

        Args:
            device: the GPU.
            when: for the error message, as "while a frame was processed".

        Raises:
            UnavailableError: when the GPU fails.
        """
        try:
            with device.current():
                yield
        except device.errors as error:
            self._failure = f"the GPU failed {when} ({error_text(error)})"
            self.close()
            raise UnavailableError(self._failure, OPEN_AGAIN) from error

    def _open(self) -> tuple[Device, StepLauncher]:
        if self._failure:
            raise UnavailableError(self._failure, OPEN_AGAIN)
        if self._device is None or self._launcher is None:
            raise ValueError("the backend is closed")
        return self._device, self._launcher

    def _allocated(self) -> DeviceTensors:
        if self._tensors is None:
            raise ValueError("the backend has no memory: call allocate first")
        return self._tensors


def _profile(manifest: EngineManifest, origin: Path) -> Shapes:
    """Smallest, best and largest shape of each input."""
    ranks = {FRAME: 4, KEYS: 5, VALUES: 5, DILATION: 2}
    shapes = manifest.key.shapes
    if {name: [len(shape) for shape in bounds] for name, bounds in shapes.items()} != {
        name: [rank] * 3 for name, rank in ranks.items()
    }:
        raise ModelError(f"{manifest_path(origin)} does not describe the engine of a step graph", BUILD_AGAIN)
    return shapes


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
