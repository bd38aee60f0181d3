"""Starts the work of a step: call by call, or as a CUDA graph that was captured before."""

from __future__ import annotations

import logging
from pathlib import Path

from ....common.errors import ModelError
from ...model.tensor_names import DILATION, FRAME, KEY, KEYS, LABELS, PROBABILITIES, VALUE, VALUES
from .device import CudaGraph, Device
from .driver import DriverError, GraphError, error_text
from .engine import Engine
from .tensors import DeviceTensors

log = logging.getLogger(__name__)

GRAPHS_PER_SLOT = 4
"""Addresses of the frame for which graphs are captured: the backend's two buffers, and two of whoever gives
frames that are on the GPU already. With other addresses the engine runs without graphs."""


class StepLauncher:
    """Binds an engine to tensors and starts its steps.

    Graphs are captured when they are first needed: one for each slot that is written and address of the frame.
    A graph holds the execution and the copies of labels and probabilities to the host.

    Args:
        device: the GPU.
        engine: the engine.
        channels: C, depth of keys.
        origin: the engine file, for the log.

    Attributes:
        graphs_disabled: why no graphs are used; empty while they are.
        warm: the engine was executed since shapes were set last. TensorRT can be captured from then on.
    """

    def __init__(self, device: Device, engine: Engine, channels: int, origin: Path) -> None:
        self._device, self._engine, self._channels, self._origin = device, engine, channels, origin
        self._graphs: dict[tuple[int, int], CudaGraph] = {}
        self.graphs_disabled = ""
        self.warm = False
        if not device.can_lock_pages:  # a captured copy might read what the pages held during the capture
            self._disable_graphs("the driver cannot page-lock memory of the host for this GPU")

    @property
    def num_graphs(self) -> int:
        """Graphs that are captured now."""
        return len(self._graphs)

    def bind(self, tensors: DeviceTensors) -> None:
        """Make the engine work on ``tensors``.

        Raises:
            ModelError: when the engine does not take their sizes.
        """
        self.drop_graphs()
        self.warm = False
        self._engine.shape(tensors.shapes(self._channels))
        self._engine.bind(
            {
                KEYS: tensors.keys.address,
                VALUES: tensors.values.address,
                DILATION: tensors.dilation.address,
                LABELS: tensors.labels.address,
            }
        )

    def bind_again(self, tensors: DeviceTensors) -> None:
        """Return to tensors that the engine worked on before.

        Raises:
            DriverError: when that fails; the engine's shapes are then unknown, and it must not run.
        """
        try:
            self.bind(tensors)
        except ModelError as error:
            raise DriverError(error.problem) from error

    def execute_once(self, tensors: DeviceTensors, frame: int) -> None:
        """Execute the engine and wait; no slot is written.

        Args:
            tensors: the tensors that the engine is bound to.
            frame: address of the frame.
        """
        self._engine.bind(_outputs(tensors, tensors.key.address, tensors.value.address))
        self._engine.bind({FRAME: frame})
        self._engine.start(self._device.stream)
        self._device.synchronize_all()
        self.warm = True

    def start(self, tensors: DeviceTensors, frame: int, slot: int) -> None:
        """Start a step and the copies to the host, as a graph where that is possible.

        Args:
            tensors: the tensors that the engine is bound to.
            frame: address of the frame.
            slot: slot to write.

        Raises:
            ModelError: when TensorRT could not execute the engine.
        """
        graph = self._graphs.get((frame, slot))
        if graph is None and self.warm and not self.graphs_disabled:
            graph = self._capture(tensors, frame, slot)
        if graph is None:
            self._enqueue(tensors, frame, slot)
            self.warm = True
        else:
            graph.launch()

    def drop_graphs(self) -> None:
        """Release all graphs."""
        while self._graphs:
            self._graphs.popitem()[1].destroy()

    def _capture(self, tensors: DeviceTensors, frame: int, slot: int) -> CudaGraph | None:
        if len(self._graphs) >= GRAPHS_PER_SLOT * tensors.sizes[2]:
            return None
        refusals: tuple[type[Exception], ...] = (ModelError, *self._device.errors)
        try:
            if not self._engine.capturable(self._device.stream):
                raise GraphError("TensorRT says that its work cannot be captured")
            graph = self._device.capture(lambda: self._enqueue(tensors, frame, slot))
        except refusals as error:
            self._disable_graphs(error.problem if isinstance(error, ModelError) else error_text(error))
            return None
        self._graphs[frame, slot] = graph
        return graph

    def _disable_graphs(self, reason: str) -> None:
        self.graphs_disabled = reason
        log.warning("%s runs without CUDA graphs: %s", self._origin, reason)

    def _enqueue(self, tensors: DeviceTensors, frame: int, slot: int) -> None:
        """Start the work of one step; its addresses are the same whenever this slot is written."""
        device = self._device
        key, key_written = tensors.key_addresses(slot)
        value, value_written = tensors.value_addresses(slot)
        device.upload(tensors.dilation.address, tensors.host_dilation.array)
        self._engine.bind(_outputs(tensors, key_written, value_written) | {FRAME: frame})
        self._engine.start(device.stream)
        if key_written != key:
            device.copy(key, key_written, tensors.key.nbytes)
        if value_written != value:
            device.copy(value, value_written, tensors.value.nbytes)
        device.download(tensors.host_labels.array, tensors.labels.address)
        device.download(tensors.host_probabilities.array, tensors.probabilities.address)


def _outputs(tensors: DeviceTensors, key: int, value: int) -> dict[str, int]:
    """Addresses of the outputs that a step stores in memory, and of the probabilities."""
    return {KEY: key, VALUE: value, PROBABILITIES: tensors.probabilities.address}
