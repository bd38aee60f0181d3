"""Step graphs as TensorRT engines; memory stays on the GPU, and only what a frame shows comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....common.errors import MaskError, ModelError, SourceError, UnavailableError
from ....plugins.library import library_path
from ....plugins.library import load as load_plugin
from ...model.engine_file import (
    BUILD_AGAIN,
    TENSORRT_RTX,
    EngineManifest,
    Shapes,
    import_tensorrt,
    manifest_path,
    read_engine,
    read_manifest,
    sha256,
)
from ...model.metadata import (
    DILATION,
    FRAME,
    KEY,
    KEYS,
    LABELS,
    PROBABILITIES,
    VALUE,
    VALUES,
    ModelMetadata,
)
from ..device_frame import DeviceFrame, Pixels
from .device import (
    ALIGNMENT,
    OPEN_AGAIN,
    Buffer,
    Device,
    DriverError,
    Graph,
    GraphError,
    Pinned,
    reason,
)
from .engine import Engine

log = logging.getLogger(__name__)

ADDRESSES_IN_GRAPHS = 4
"""Places of the frame for which graphs are kept: the backend's own two, and two of whoever gives frames that
are on the GPU already. From further places the engine runs without graphs."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of one stream on the GPU, and where they are copied from and to on the host.

    Attributes:
        sizes: height, width, slots and labels.
        grid: (h, w).
        frames: two of uint8 [1, H, W, 3]: one is read while the other is filled.
        keys: [1, N, C, h, w].
        values: [1, N, O, h, w].
        dilation: int32 [1, N].
        labels: uint8 [1, H, W].
        probabilities: [1, O, h, w].
        key, value: [1, C, h, w], [1, O, h, w]: for slots that TensorRT does not write to; they are copied
            from here.
        beside: TensorRT writes to no slot, for the engine reads all of them in each step, that one too, and
            hides afterwards what does not count. Until an output is complete, anything may stand in it.
        host_frames, host_dilation, host_labels, host_probabilities, host_value: page-locked.
    """

    sizes: tuple[int, int, int, int]
    grid: tuple[int, int]
    frames: tuple[Buffer, Buffer]
    keys: Buffer
    values: Buffer
    dilation: Buffer
    labels: Buffer
    probabilities: Buffer
    key: Buffer
    value: Buffer
    host_frames: tuple[Pinned, Pinned]
    host_dilation: Pinned
    host_labels: Pinned
    host_probabilities: Pinned
    host_value: Pinned
    beside: bool

    @classmethod
    def zeros(
        cls, device: Device, metadata: ModelMetadata, sizes: tuple[int, int, int, int], beside: bool
    ) -> Tensors:
        """Empty memory; nothing stays allocated when it does not fit."""
        height, width, slots, labels = sizes
        grid = metadata.feature_size(height, width)
        dtype = np.dtype(metadata.dtype)
        key = metadata.channels * grid[0] * grid[1] * dtype.itemsize
        value = labels * grid[0] * grid[1] * dtype.itemsize
        with ExitStack() as undo:

            def gpu(nbytes: int) -> Buffer:
                buffer = device.allocate(nbytes)
                undo.callback(buffer.free)
                return buffer

            def host(shape: tuple[int, ...], kind: Any) -> Pinned:
                pinned = device.pin(shape, kind)
                undo.callback(pinned.free)
                return pinned

            tensors = cls(
                sizes=sizes,
                grid=grid,
                frames=(gpu(height * width * 3), gpu(height * width * 3)),
                keys=gpu(slots * key),
                values=gpu(slots * value),
                dilation=gpu(slots * 4),
                labels=gpu(height * width),
                probabilities=gpu(value),
                key=gpu(key),
                value=gpu(value),
                host_frames=(host((height, width, 3), np.uint8), host((height, width, 3), np.uint8)),
                host_dilation=host((slots,), np.int32),
                host_labels=host((height, width), np.uint8),
                host_probabilities=host((labels, *grid), dtype),
                host_value=host((labels, *grid), dtype),
                beside=beside,
            )
            undo.pop_all()
        for buffer in tensors.on_gpu():
            device.clear(buffer)
        return tensors

    def on_gpu(self) -> tuple[Buffer, ...]:
        """All memory on the GPU."""
        remembered = self.keys, self.values, self.dilation
        return *self.frames, *remembered, self.labels, self.probabilities, self.key, self.value

    def on_host(self) -> tuple[Pinned, ...]:
        """All memory of the host."""
        found = self.host_labels, self.host_probabilities, self.host_value
        return *self.host_frames, self.host_dilation, *found

    def free(self) -> None:
        """Give all memory back."""
        for buffer in self.on_gpu():
            buffer.free()
        for pinned in self.on_host():
            pinned.free()

    def shapes(self, channels: int) -> dict[str, tuple[int, ...]]:
        """Of the engine's inputs."""
        height, width, slots, labels = self.sizes
        return {
            FRAME: (1, height, width, 3),
            KEYS: (1, slots, channels, *self.grid),
            VALUES: (1, slots, labels, *self.grid),
            DILATION: (1, slots),
        }

    def slot(self, memory: Buffer, landing: Buffer, slot: int) -> tuple[int, int]:
        """Where a slot of ``memory`` is, and where TensorRT writes it: there, or to ``landing``.

        It writes to multiples of its alignment alone.
        """
        address = memory.address + slot * landing.nbytes
        return address, landing.address if self.beside or address % ALIGNMENT else address


class TensorRTBackend:
    """Executes an engine of TensorRT or TensorRT-RTX on an NVIDIA GPU.

    Keys and label maps of past frames never leave the GPU: the engine writes those of a frame into its slot
    of the memory. A frame costs one copy to the GPU, one launch of a CUDA graph and one wait. The graph holds
    the execution and the copies of the label map and the probabilities to page-locked memory; there is one
    for each slot that is written and each place of the frame, captured when it is first used.

    A failure of the GPU itself closes the backend, since nothing on that GPU can be trusted afterwards.

    Args:
        engine: what ``maskring build`` wrote; its ``.json`` stands beside it.

    Attributes:
        without_graphs: why the engine runs without CUDA graphs; empty while they are used.
        last_upload, last_run: seconds that the latest step took to hand over its inputs, and to start the
            engine and wait for what it found.

    Raises:
        ModelError: when a file is missing or damaged, or was built for another TensorRT, GPU or plugin.
        UnavailableError: when TensorRT, pycuda, the plugin or the GPU is missing, or has too little memory.
    """

    def __init__(self, engine: Path) -> None:
        manifest = read_manifest(engine)
        trt = import_tensorrt(manifest.key.runtime)
        content = read_engine(engine, manifest)
        plugin = sha256(library_path()) if manifest.key.plugin_sha256 else ""
        self._path = engine
        self._runtime = f"{manifest.key.runtime} {trt.__version__}"
        self._beside = manifest.key.runtime == TENSORRT_RTX  # which has the function body built in
        self._profile = _profile(manifest, engine)
        self.metadata = replace(manifest.metadata, num_slots=self._profile[KEYS][2][1])
        self.without_graphs = ""
        self.last_upload = self.last_run = 0.0
        self._tensors: Tensors | None = None
        self._labels = 0  # that the tracker knows of, of those that the tensors have room for
        self._graphs: dict[tuple[int, int, bool], Graph] = {}
        self._warm = False  # executed since shapes were set last: TensorRT can be captured from then on
        self._turn = 0  # which of the two frames on the GPU the next one goes to
        self._next: NDArray[np.uint8] | None = None
        self._uploaded: NDArray[np.uint8] | None = None
        self._failure = ""
        self._engine: Engine | None = None
        device = Device()
        self._device: Device | None = device
        try:
            manifest.require_runs_on(str(trt.__version__), device.compute_capability, plugin)
            with device.current():
                if plugin:
                    load_plugin(trt)
                self._engine = Engine(trt, content, manifest, engine)
        except device.errors as error:
            raise self._broken("while the engine was loaded", error) from error
        except BaseException:
            self.close()
            raise

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        """See :meth:`maskring.runtime.backends.Backend.allocate`."""
        device, engine = self._open()
        self._require_in_profile(height, width, labels)
        sizes = height, width, slots, max(labels, self._profile[VALUES][0][2])
        old = self._tensors
        if old is not None and old.sizes[:3] == sizes[:3] and labels <= old.sizes[3]:
            self._labels = max(labels, self._labels)
            return
        try:
            with device.current():
                new = Tensors.zeros(device, self.metadata, sizes, self._beside)
                self._replace(device, engine, old, new)
        except device.errors as error:
            raise self._broken("while memory was made", error) from error
        self._labels = labels

    def stage(self, frame: NDArray[np.uint8]) -> None:
        """See :meth:`maskring.runtime.backends.StagingBackend.stage`; a frame on the GPU is there already."""
        self._next = frame if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 else None

    def step(
        self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int, soft: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        """See :meth:`maskring.runtime.backends.Backend.step`; the frame may be on the GPU."""
        device, engine = self._open()
        tensors = self._allocated()
        started = time.perf_counter()
        try:
            with device.current():
                address = self._place(device, tensors, frame)
                tensors.host_dilation.array[:] = dilation
                placed = time.perf_counter()
                try:
                    self._start(device, engine, tensors, address, write_slot, soft)
                    self._upload_early(device, tensors)
                finally:
                    device.wait()
        except device.errors as error:
            raise self._broken("while a frame was processed", error) from error
        self.last_upload, self.last_run = placed - started, time.perf_counter() - placed
        return tensors.host_labels.array, tensors.host_probabilities.array[: self._labels]

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        """See :meth:`maskring.runtime.backends.Backend.write_value`."""
        (device, _), tensors = self._open(), self._allocated()
        host = tensors.host_value.array
        host[: len(value)] = value  # beyond are channels that nobody uses yet
        try:
            with device.current():
                device.upload(tensors.slot(tensors.values, tensors.value, slot)[0], host)
                device.wait()
        except device.errors as error:
            raise self._broken("while a mask was stored", error) from error

    def merge_label(self, channel: int) -> None:
        """See :meth:`maskring.runtime.backends.Backend.merge_label`; through the host, as it is rare."""
        (device, _), tensors = self._open(), self._allocated()
        _, _, slots, labels = tensors.sizes
        values = np.empty((slots, labels, *tensors.grid), self.metadata.dtype)
        try:
            with device.current():
                device.download(values, tensors.values.address)
                device.wait()
                values[:, 0] += values[:, channel]
                values[:, channel] = 0
                device.upload(tensors.values.address, values)
                device.wait()  # where a GPU reads all of the host's memory, nothing was staged before
        except device.errors as error:
            raise self._broken("while an object was removed", error) from error

    def description(self) -> dict[str, str]:
        """What the engine runs on and how, for people."""
        device, _ = self._open()
        return {
            "GPU": f"{device.name} ({device.compute_capability})",
            "runtime": self._runtime,
            "memory on the GPU": f"{device.allocated / 1e6:.1f} MB beside the engine's own",
            "CUDA graphs": self.without_graphs or f"{len(self._graphs)} captured",
        }

    def layer_times(self, runs: int = 3) -> list[tuple[str, float]]:
        """Mean milliseconds of each layer of the engine as TensorRT reports them, slowest first.

        Executes the latest frame ``runs`` times more. Steps are slower from then on, so this comes last.

        Raises:
            UserError: when the engine cannot be executed.
        """
        device, engine = self._open()
        tensors = self._allocated()
        try:
            with device.current():
                self._bind(engine, tensors)
                self.without_graphs = "its layers are timed"
                milliseconds = engine.report_layers()
                for _ in range(runs):
                    self._execute_aside(device, engine, tensors)
        except device.errors as error:
            raise self._broken("while layers were timed", error) from error
        means = [(name, total / runs) for name, total in milliseconds.items()]
        return sorted(means, key=lambda item: -item[1])

    def close(self) -> None:
        """See :meth:`maskring.runtime.backends.Backend.close`."""
        device, self._device = self._device, None
        if device is None:
            return
        with device.closing():
            self._drop_graphs()
            if self._engine is not None:
                if self._warm and not self._failure:
                    self._engine.keep_kernels()
                self._engine.close()
            self._engine = self._tensors = self._next = self._uploaded = None

    def _require_in_profile(self, height: int, width: int, labels: int) -> None:
        (_, least_high, least_wide, _), _, (_, most_high, most_wide, _) = self._profile[FRAME]
        if not (least_high <= height <= most_high and least_wide <= width <= most_wide):
            raise SourceError(
                f"the frames are {width}x{height} pixels and the engine {self._path} was built for "
                f"{_range(least_wide, most_wide)} x {_range(least_high, most_high)}",
                "build it again with --height and --width that include them, or resize the frames",
            )
        most = self._profile[VALUES][2][2]
        if labels > most:
            raise MaskError(
                f"the mask makes it {labels - 1} objects and the engine {self._path} was built for "
                f"{most - 1}",
                f"build it again with --objects 1:{most - 1}:{labels - 1}, or mark fewer",
            )

    def _replace(self, device: Device, engine: Engine, old: Tensors | None, new: Tensors) -> None:
        """Let the engine work on ``new``, warmed up; on ``old`` still when that fails."""
        try:
            if old is not None and old.sizes[:3] == new.sizes[:3]:
                _copy_memory(device, old, new)
            self._bind(engine, new)
            self._execute_aside(device, engine, new)
        except ModelError:
            device.settle()
            new.free()
            if old is not None:
                self._take_back(engine, old)
            raise
        self._tensors, self._uploaded = new, None
        if old is not None:
            old.free()

    def _take_back(self, engine: Engine, old: Tensors) -> None:
        """Let the engine work on ``old`` again.

        Raises:
            DriverError: when it will not: nobody knows then in which shapes it would write where.
        """
        try:
            self._bind(engine, old)
        except ModelError as error:
            raise DriverError(error.problem) from error

    def _execute_aside(self, device: Device, engine: Engine, tensors: Tensors) -> None:
        """Execute the engine to the end, with nothing remembered of it."""
        engine.bind(self._outputs(tensors, tensors.key.address, tensors.value.address, False))
        engine.bind({FRAME: tensors.frames[self._turn].address})
        engine.start(device.stream)
        device.settle()
        self._warm = True

    def _bind(self, engine: Engine, tensors: Tensors) -> None:
        self._drop_graphs()
        self._warm = False
        engine.shape(tensors.shapes(self.metadata.channels))
        engine.bind(
            {
                KEYS: tensors.keys.address,
                VALUES: tensors.values.address,
                DILATION: tensors.dilation.address,
                LABELS: tensors.labels.address,
            }
        )

    @staticmethod
    def _outputs(tensors: Tensors, key: int, value: int, soft: bool) -> dict[str, int]:
        """Addresses of what a frame is remembered by, and of the output beside it."""
        seen, stored = (VALUE, PROBABILITIES) if soft else (PROBABILITIES, VALUE)
        return {KEY: key, stored: value, seen: tensors.probabilities.address}

    def _place(self, device: Device, tensors: Tensors, frame: Pixels) -> int:
        """Bring the frame to the GPU, unless it is there; returns its address."""
        if isinstance(frame, DeviceFrame):
            if not device.reads(frame.address):
                raise SourceError(
                    f"the frame at {frame.address:#x} is not in the memory of the GPU that runs the engine",
                    "put frames on that GPU (CUDA_VISIBLE_DEVICES chooses it), or give them as numpy arrays",
                )
            if frame.stream is not None:
                device.await_foreign(frame.stream)
            if frame.address % ALIGNMENT == 0:
                return frame.address
            device.copy(tensors.frames[self._turn].address, frame.address, frame.size)
        elif self._uploaded is frame:
            self._turn = 1 - self._turn
            device.await_early_upload()
        else:
            host = tensors.host_frames[self._turn].array
            host[:] = frame
            device.upload(tensors.frames[self._turn].address, host)
        self._uploaded = None
        return tensors.frames[self._turn].address

    def _upload_early(self, device: Device, tensors: Tensors) -> None:
        """Send the frame after this one, if it is known, to where this one is not."""
        frame, self._next = self._next, None
        other = 1 - self._turn
        host = tensors.host_frames[other].array
        if frame is None or frame.shape != host.shape:
            return
        host[:] = frame
        device.upload_early(tensors.frames[other].address, host)
        self._uploaded = frame

    def _start(
        self, device: Device, engine: Engine, tensors: Tensors, address: int, slot: int, soft: bool
    ) -> None:
        """Start the execution and the copies to the host, as a graph where that is possible."""

        def enqueue() -> None:
            self._enqueue(device, engine, tensors, address, slot, soft)

        graph = self._graphs.get((address, slot, soft))
        if graph is None and self._warm and not self.without_graphs:
            graph = self._captured(device, engine, tensors, enqueue)
            if graph is not None:
                self._graphs[address, slot, soft] = graph
        if graph is None:
            enqueue()
            self._warm = True
        else:
            graph.launch()

    def _captured(
        self, device: Device, engine: Engine, tensors: Tensors, enqueue: Callable[[], None]
    ) -> Graph | None:
        if len(self._graphs) >= ADDRESSES_IN_GRAPHS * tensors.sizes[2]:
            return None
        refusals: tuple[type[Exception], ...] = (ModelError, *device.errors)
        try:
            if not engine.capturable(device.stream):
                raise GraphError("TensorRT says that its work cannot be captured")
            return device.capture(enqueue)
        except refusals as error:
            self.without_graphs = error.problem if isinstance(error, ModelError) else reason(error)
            log.warning("%s runs without CUDA graphs: %s", self._path, self.without_graphs)
            return None

    def _enqueue(
        self, device: Device, engine: Engine, tensors: Tensors, address: int, slot: int, soft: bool
    ) -> None:
        """Start the work of one frame, on addresses that stay the same whenever this slot is written."""
        key, key_written = tensors.slot(tensors.keys, tensors.key, slot)
        value, value_written = tensors.slot(tensors.values, tensors.value, slot)
        device.upload(tensors.dilation.address, tensors.host_dilation.array)
        engine.bind(self._outputs(tensors, key_written, value_written, soft) | {FRAME: address})
        engine.start(device.stream)
        if key_written != key:
            device.copy(key, key_written, tensors.key.nbytes)
        if value_written != value:
            device.copy(value, value_written, tensors.value.nbytes)
        device.download(tensors.host_labels.array, tensors.labels.address)
        probabilities = value_written if soft else tensors.probabilities.address
        device.download(tensors.host_probabilities.array, probabilities)

    def _drop_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].destroy()

    def _broken(self, when: str, error: Exception) -> UnavailableError:
        """Close for good, and say why."""
        self._failure = f"the GPU failed {when} ({reason(error)})"
        self.close()
        return UnavailableError(self._failure, OPEN_AGAIN)

    def _open(self) -> tuple[Device, Engine]:
        if self._failure:
            raise UnavailableError(self._failure, OPEN_AGAIN)
        if self._device is None or self._engine is None:
            raise ValueError("the backend is closed")
        return self._device, self._engine

    def _allocated(self) -> Tensors:
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
        raise ModelError(f"{manifest_path(origin)} is not of a step graph's engine", BUILD_AGAIN)
    return shapes


def _copy_memory(device: Device, old: Tensors, new: Tensors) -> None:
    """What ``old`` remembers, into ``new``, which has more labels."""
    device.copy(new.keys.address, old.keys.address, old.keys.nbytes)
    for slot in range(old.sizes[2]):
        source, _ = old.slot(old.values, old.value, slot)
        target, _ = new.slot(new.values, new.value, slot)
        device.copy(target, source, old.value.nbytes)


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
