"""Backends that execute the step graph, behind one protocol."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..model import ModelMetadata


class Backend(Protocol):
    """Executes step graphs and owns the memory tensors, wherever they live.

    A tracker calls :meth:`allocate` once per stream (and again when the number of labels outgrows it), then
    :meth:`step` once per frame. The bookkeeping of which frame stands in which slot is not the backend's:
    see :class:`maskring.runtime.memory.MemoryRing`.
    """

    metadata: ModelMetadata

    def allocate(self, height: int, width: int, slots: int, labels: int) -> None:
        """Make memory tensors for ``height`` x ``width`` frames; keeps their content when only labels grow."""

    def step(
        self, frame: NDArray[np.uint8], dilation: NDArray[np.int32], write_slot: int, soft: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
        """Run one step and store the frame's key and label map in ``write_slot``.

        Args:
            frame: [H, W, 3] RGB.
            dilation: [N] window step per slot, 0 = not read in this step.
            write_slot: slot that takes the frame; ``dilation[write_slot]`` must be 0.
            soft: store probabilities; otherwise their one-hot.

        Returns:
            labels [H, W] (channel indices) and probabilities [O, h, w]. Views that the next call overwrites.
        """

    def write_value(self, slot: int, value: NDArray[np.floating]) -> None:
        """Replace the label map of ``slot`` by ``value`` [O, h, w] (a mask given by the user)."""

    def merge_label(self, channel: int) -> None:
        """In all slots, add label channel ``channel`` to background (0) and clear it (object removed)."""

    def close(self) -> None:
        """Release everything; the backend cannot be used afterwards."""
