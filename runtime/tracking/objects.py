"""Which object has which label channel of the model, and what a frame shows of each object."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError
from ...common.types import MAX_LABELS, FloatMaps, Labels
from ..arrays import label_maps
from .result import ObjectState


class ObjectTable:
    """Object ids (1 to 255, chosen by the user) and label channels (1, 2, ..., chosen by the tracker).

    A table does not change: adding and removing objects return new ones, so that a step that fails keeps the
    table that it began with.
    """

    def __init__(self, channel_of_id: dict[int, int] | None = None) -> None:
        self._channel_of_id = dict(sorted((channel_of_id or {}).items()))

    @property
    def ids(self) -> list[int]:
        """Ids of all objects, ascending."""
        return list(self._channel_of_id)

    @property
    def num_labels(self) -> int:
        """Label channels that the model needs, background included."""
        return max(self._channel_of_id.values(), default=0) + 1

    def channel(self, object_id: int) -> int:
        """The label channel of an object.

        Raises:
            MaskError: when no such object is tracked.
        """
        if object_id not in self._channel_of_id:
            tracked = ", ".join(map(str, self.ids)) or "none"
            raise MaskError(
                f"object {object_id} is not tracked (tracked: {tracked})", "name a tracked object"
            )
        return self._channel_of_id[object_id]

    def with_objects_of(self, mask: Labels, max_labels: int) -> ObjectTable:
        """The table with the objects that ``mask`` adds, each at the lowest free channel.

        Args:
            mask: [H, W] object ids.
            max_labels: label channels that the model can have, background included.

        Raises:
            MaskError: when the mask is empty, or makes more objects than the model can track.
        """
        ids = ids_in(mask)
        if not ids:
            raise MaskError("the mask is empty", "mark each object with its own number from 1 to 255")
        channels = dict(self._channel_of_id)
        free = iter(sorted(set(range(1, MAX_LABELS)) - set(channels.values())))
        for object_id in ids:
            if object_id not in channels:
                channels[object_id] = next(free)
        if len(channels) >= max_labels:
            raise MaskError(
                f"the mask brings the number of objects to {len(channels)}, and the model was exported for "
                f"{max_labels - 1}",
                f"export it with --objects {len(channels)}, or without --objects for any number, or mark "
                "fewer",
            )
        return ObjectTable(channels)

    def without(self, object_id: int) -> ObjectTable:
        """The table without an object."""
        return ObjectTable({one: c for one, c in self._channel_of_id.items() if one != object_id})

    def to_channels(self, ids: Labels) -> Labels:
        """Object ids [H, W] as label channels; ids of no object become background."""
        return label_maps.relabel(ids, _lookup(self._channel_of_id))

    def to_ids(self, labels: Labels, probabilities: FloatMaps) -> tuple[Labels, FloatMaps]:
        """Copies for the user: labels as object ids, probabilities in the order of the ids.

        Args:
            labels: [H, W] label channels.
            probabilities: [O, h, w]; channels of no object are left out.
        """
        ids, channels = self.ids, list(self._channel_of_id.values())
        if ids == channels == list(range(1, len(probabilities))):  # most often, and a copy is faster
            return labels.copy(), probabilities.copy()
        id_of_channel = _lookup(dict(zip(channels, ids, strict=True)))
        return label_maps.relabel(labels, id_of_channel), probabilities[[0, *channels]]

    def measure(self, labels: Labels, probabilities: FloatMaps, stride: int) -> tuple[ObjectState, ...]:
        """Area, box and confidence of each object.

        Args:
            labels: [H, W] label channels.
            probabilities: [O, h, w].
            stride: pixels per feature.
        """
        boxes = label_maps.boxes(labels, len(probabilities))
        areas = label_maps.areas(labels, boxes)
        means = label_maps.mean_confidences(labels, probabilities, stride)
        return tuple(
            ObjectState(object_id, areas.get(channel, 0), boxes.get(channel), means.get(channel))
            for object_id, channel in self._channel_of_id.items()
        )


def remeasure(objects: Sequence[ObjectState], labels: Labels) -> tuple[ObjectState, ...]:
    """The objects with the areas and boxes that they have in ``labels`` [H, W] (object ids)."""
    channels = {state.id: channel for channel, state in enumerate(objects, 1)}
    compact = label_maps.relabel(labels, _lookup(channels))  # boxes takes one pass per eight labels
    boxes = label_maps.boxes(compact, len(objects) + 1)
    areas = label_maps.areas(compact, boxes)
    return tuple(
        replace(state, area=areas.get(channel, 0), box=boxes.get(channel))
        for channel, state in enumerate(objects, 1)
    )


def ids_in(mask: Labels) -> list[int]:
    """The object ids in a mask, ascending."""
    counts = np.bincount(mask.ravel(), minlength=MAX_LABELS)
    return [int(object_id) for object_id in np.flatnonzero(counts) if object_id > 0]


def free_id(taken: Collection[int]) -> int | None:
    """The lowest object id that is not in ``taken``; None when there is none."""
    return next((number for number in range(1, MAX_LABELS) if number not in taken), None)


def _lookup(mapping: dict[int, int]) -> NDArray[np.uint8]:
    """A table of 256 entries for :func:`.label_maps.relabel`; 0 for what is not in ``mapping``."""
    table = np.zeros(MAX_LABELS, np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table
