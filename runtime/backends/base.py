"""What a backend must do: the protocol between the tracker and whatever executes the step graph."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...common.types import FloatMaps, Image, Labels
from ..model.metadata import ModelMetadata
from .device_frame import Pixels


class Backend(Protocol):
    """Executes step graphs and owns the memory tensors, wherever they live.

    A tracker calls :meth:`allocate` once per stream, and again when it needs more labels, then :meth:`step`
    once per frame. The backend does not know which frame is in which slot: that is the job of
    :class:`maskring.runtime.tracking.memory.MemoryRing`.

    A call that raises changes no slot but ``write_slot``.
    """

    metadata: ModelMetadata

    def allocate(self, height: int, width: int, num_slots: int, num_labels: int) -> None:
        """Allocate memory tensors for ``height`` x ``width`` frames.

        When only ``num_labels`` grows, memory keeps its content.

        Raises:
            UserError: when the model or the device cannot hold them. The previous tensors stay usable.
        """

    def step(self, frame: Pixels, dilation: NDArray[np.int32], write_slot: int) -> tuple[Labels, FloatMaps]:
        """Run one step and store the frame's key and label map in ``write_slot``.

        Args:
            frame: [H, W, 3] RGB, any strides; it may be on the GPU where the backend runs there.
            dilation: [N] window step per slot, 0 = not read in this step.
            write_slot: slot that takes the frame; ``dilation[write_slot]`` must be 0.

        Raises:
            UserError: when the step cannot be executed, or the backend cannot read the frame where it is.

        Returns:
            labels [H, W] (channel indices) and probabilities [O, h, w]. Views that the next call overwrites.
        """

    def write_value(self, slot: int, value: FloatMaps) -> None:
        """Replace the label map of ``slot`` by ``value`` [O, h, w] (a mask given by the user)."""

    def merge_label(self, channel: int) -> None:
        """In all slots, add label channel ``channel`` to background (0) and clear it (object removed)."""

    def close(self) -> None:
        """Release everything; the backend cannot be used afterwards. Closing twice does nothing."""


@runtime_checkable
class PrefetchingBackend(Protocol):
    """A backend that can upload the next frame while it executes a step."""

    def prefetch(self, frame: Image) -> None:
        """Announce the frame after the next one.

        Args:
            frame: the very array that the step after the next one is given. It must not change until then.
                When that step is given another array, the upload is not used.
        """
