"""The memory of one Triton sequence: which tensors it keeps, and which of its slots each frame reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ModelError
from ...runtime.model.metadata import ModelMetadata
from ...runtime.model.tensor_names import FRAME
from ...runtime.tracking.memory import MemoryPolicy

TRITON_TYPES = {"float32": "FP32", "float16": "FP16"}

MASK, START = "mask", "start"
REQUEST_INPUTS = (FRAME, MASK, START)
STATE_INPUTS = ("keys", "values", "clock")
"""Inputs of the served model: those of a request, and those that the server keeps for each sequence."""

TensorSpec = tuple[str, str, list[int]]
"""Name, Triton's type and dimensions."""


def fixed_sizes(metadata: ModelMetadata) -> tuple[int, int, int]:
    """Height, width and number of labels, which Triton needs before it sees a frame.

    Raises:
        ModelError: when the model leaves one of them open.
    """
    if metadata.height is None or metadata.width is None or metadata.num_labels is None:
        raise ModelError(
            "a model for Triton needs fixed sizes", "give --height, --width and --objects to maskring export"
        )
    return metadata.height, metadata.width, metadata.num_labels


def state_tensors(metadata: ModelMetadata) -> list[TensorSpec]:
    """The tensors that the server keeps for each sequence.

    Slots along axis 1 of ``keys`` and ``values``: the long-term frames, then the latest frames, newest first.
    ``clock`` counts frames since the mask.
    """
    height, width, labels = fixed_sizes(metadata)
    grid, kind, policy = (
        metadata.feature_size(height, width),
        TRITON_TYPES[metadata.dtype],
        MemoryPolicy.of_model(metadata),
    )
    slots = len(policy.long_term) + policy.oldest_age
    return [
        ("keys", kind, [1, slots, metadata.channels, *grid]),
        ("values", kind, [1, slots, labels, *grid]),
        ("clock", "INT32", [1]),
    ]


def slots_read(policy: MemoryPolicy) -> list[int]:
    """The slots of the state that each step reads: long-term frames first, then the recent ages."""
    first_recent = len(policy.long_term)
    return [*range(first_recent), *(first_recent + age - 1 for age in policy.short_term)]


def dilation_table(metadata: ModelMetadata) -> NDArray[np.int32]:
    """Window step [T, N] of each slot that is read, 0 = not read, at frames 0, 1, ..., T - 1 and later.

    Rows follow :class:`maskring.runtime.tracking.memory.MemoryPolicy`, columns :func:`slots_read`. A frame
    that is both long-term and recent is read in its long-term slot.
    """
    height, width, _ = fixed_sizes(metadata)
    policy = MemoryPolicy.of_model(metadata)
    frame_in_radii = metadata.frame_in_radii(height, width)
    slots = [*policy.long_term, *(-age for age in policy.short_term)]
    # From this clock on, every long-term frame is older than the recent ones, and its window is as large as
    # it gets.
    last_change = max(policy.long_term, default=0) + max(
        policy.oldest_age, policy.dilate_after * policy.max_dilation
    )
    table = np.zeros((last_change + 2, len(slots)), np.int32)
    for clock, row in enumerate(table):
        for frame, step in policy.reads(clock, frame_in_radii).items():
            slot = frame if frame in policy.long_term else frame - clock
            row[slots.index(slot)] = step
    return table
