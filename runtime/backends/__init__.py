"""Backends that execute the step graph, behind one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ModelError
from ..model.engine_file import ENGINE_SUFFIX
from ..model.metadata import ModelMetadata
from .device_frame import DeviceFrame as DeviceFrame
from .device_frame import Pixels


class Backend(Protocol):
    """Executes step graphs and owns the memory tensors, wherever they live.

    A tracker calls :meth:`allocate` once per stream (and again when the number of labels outgrows it), then
    :meth:`step` once per frame. The bookkeeping of which frame stands in which slot is not the backend's:
    see :class:`maskring.runtime.tracking.memory.MemoryRing`.

    A call that raises leaves the content of all slots but ``write_slot`` as it was.
    """

    metadata: ModelMetadata

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        """Make memory tensors for ``height`` x ``width`` frames; keeps their content when only labels grow.

        Raises:
            UserError: when the model or the device cannot hold them; what was allocated before stays usable.
        """

    def step(
        self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int, soft: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        """Run one step and store the frame's key and label map in ``write_slot``.

        Args:
            frame: [H, W, 3] RGB, any strides; on a GPU where the backend runs on one.
            dilation: [N] window step per slot, 0 = not read in this step.
            write_slot: slot that takes the frame; ``dilation[write_slot]`` must be 0.
            soft: store probabilities; otherwise their one-hot.

        Raises:
            UserError: when the step cannot be executed, or the frame is where the backend cannot read it.

        Returns:
            labels [H, W] (channel indices) and probabilities [O, h, w]. Views that the next call overwrites.
        """

    def write_value(self, slot: int, value: NDArray[np.floating[Any]]) -> None:
        """Replace the label map of ``slot`` by ``value`` [O, h, w] (a mask given by the user)."""

    def merge_label(self, channel: int) -> None:
        """In all slots, add label channel ``channel`` to background (0) and clear it (object removed)."""

    def close(self) -> None:
        """Release everything; the backend cannot be used afterwards. Closing twice does nothing."""


@runtime_checkable
class StagingBackend(Protocol):
    """A backend that can fetch a frame while it still executes the step before."""

    def stage(self, frame: NDArray[np.uint8]) -> None:
        """Name the frame after the next one.

        Args:
            frame: the very array that the step after the next one is given; it must not change until then.
                When that step is given another one, nothing is lost but the advantage.
        """


def open_backend(
    model: Path, *, kernel: Literal["native", "function"] = "native", threads: int = 0
) -> Backend:
    """Open an exported model with the backend that its suffix names.

    Args:
        model: an exported ``.onnx``, or an ``.engine`` that was built from one.
        kernel: of an ``.onnx``: ``native`` runs the CPU kernel of the memory read, ``function`` standard ONNX
            operators alone.
        threads: CPU threads of an ``.onnx``, 0 for all that this process may use.

    Raises:
        ModelError: when the file is missing, damaged or not an exported model, or has its kernel built in.
        UnavailableError: when nothing installed here can execute it.
    """
    if model.suffix == ENGINE_SUFFIX:
        if kernel != "native":
            raise ModelError(
                f"what reads memory was built into the engine {model}", f"leave --kernel {kernel} out"
            )
        from .trt.backend import TensorRTBackend

        return TensorRTBackend(model)
    if model.suffix in (".safetensors", ".pth", ".pt"):
        raise ModelError(
            f"{model} is a checkpoint and the runtime executes exported models",
            f"export it first: maskring export {model} --out {model.with_suffix('.onnx')}",
        )
    if model.suffix != ".onnx":
        raise ModelError(
            f"{model} is not an exported model by its name", "give a file that ends in .onnx or .engine"
        )
    from .onnxrt.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, kernel=kernel, threads=threads)
