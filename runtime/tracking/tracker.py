"""The tracker: one verb, ``step``, from a frame to its labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import MaskError, SourceError
from ..arrays import label_maps
from ..arrays.label_maps import Box
from ..backends import Backend, DeviceFrame, StagingBackend
from ..backends.device_frame import Pixels
from ..model.metadata import MAX_LABELS
from .memory import MemoryPolicy, MemoryRing


@dataclass(frozen=True)
class ObjectState:
    """Where one object is in one frame.

    Attributes:
        id: the number that the user's mask gave it, 1 to 255.
        area: pixels it covers.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 just outside; None when it is not visible.
        confidence: mean probability of its label over the features it covers; None when it covers none.
    """

    id: int
    area: int
    box: Box | None
    confidence: float | None


@dataclass(frozen=True)
class Timings:
    """Seconds one frame took.

    Attributes:
        step: executing the model.
        post: everything after it: masks, boxes, areas, copies.
        total: the whole call.
    """

    step: float
    post: float
    total: float


@dataclass(frozen=True, eq=False)
class Result:
    """What a frame shows. The arrays belong to the caller: nothing overwrites them.

    Attributes:
        labels: [H, W] uint8 object ids, 0 = background.
        probabilities: [1 + len(objects), h, w]: background, then the objects in the order of ``objects``; on
            the grid of features, of which (i, j) is centred on pixel (stride * i, stride * j).
        objects: the objects that are followed, visible or not, by ascending id.
        timings: seconds spent.
        frame_index: frames processed before this one.
        kept: with refinement, the objects whose mask is propagation's all the same, with the reason; None
            without.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.floating[Any]]
    objects: tuple[ObjectState, ...]
    timings: Timings
    frame_index: int
    kept: Mapping[int, str] | None = None

    def delayed(self, seconds: float) -> Result:
        """The same, ``seconds`` of further processing later."""
        timings = replace(self.timings, post=self.timings.post + seconds, total=self.timings.total + seconds)
        return replace(self, timings=timings)


class Tracker:
    """Follows objects through one stream of frames.

    Args:
        backend: executes the model; the tracker closes it.
        policy: which past frames are read; None for the one stored in the model.
        soft: remember label probabilities instead of their winners.

    Raises:
        UserError: when the model has too few memory slots for the policy.
    """

    def __init__(self, backend: Backend, *, policy: MemoryPolicy | None = None, soft: bool = False) -> None:
        metadata = backend.metadata
        self._backend = backend
        self._staging = backend if isinstance(backend, StagingBackend) else None
        self._soft = soft
        self._ring = MemoryRing(
            policy or MemoryPolicy(metadata.long_term, metadata.short_term), metadata.num_slots
        )
        self._channel_of_id: dict[int, int] = {}
        self._size: tuple[int, int] | None = None  # of the stream, known once a frame went through
        self._allocated: tuple[int, int, int] | None = None  # height, width, labels of the memory
        self._last_slot = 0  # of memory, that took the frame processed last
        self._frame_index = 0
        self._closed = False

    @property
    def stride(self) -> int:
        """Pixels per feature of the model, in both directions."""
        return self._backend.metadata.stride

    def step(self, frame: Pixels, mask: NDArray[np.uint8] | None = None) -> Result:
        """Label the next frame of the stream.

        Without a mask, labels are propagated from memory. With one, its pixels have the last word: each id
        in it names an object, new or already followed, that covers exactly these pixels; pixels that are 0
        keep the propagated label unless it is one of the ids in the mask. The first frame needs a mask. A
        mask also makes this frame the first one in memory
        (see :meth:`maskring.runtime.tracking.memory.MemoryRing.restart`).

        A call that raises leaves the tracker as it was: the frame can be given again.

        Args:
            frame: [H, W, 3] uint8 RGB; with an engine it may be on the GPU, as a :class:`DeviceFrame`.
            mask: [H, W] uint8 object ids, 0 = nothing is said about the pixel.

        Raises:
            SourceError: when the frame has another type or size than the stream or the model.
            MaskError: when no mask was ever given; or the mask is empty, of another type or size than the
                frame, or makes more objects than the model can follow.
        """
        started = time.perf_counter()
        self._require_open()
        frame = self._checked_frame(frame)
        channels = self._channel_of_id
        if mask is not None:
            channels = self._with_objects_of(mask, frame)
        elif self._size is None:
            raise MaskError(
                "the first frame has no mask, so there is nothing to follow",
                "give it one: step(frame, mask) with object ids from 1 to 255",
            )
        self._allocate(frame, channels)

        dilation, slot = self._ring.plan(self._windows(frame))
        labels, probabilities = self._backend.step(frame, dilation, slot, self._soft)
        stepped = time.perf_counter()
        if mask is not None:
            labels, probabilities = self._remember_mask(slot, labels, mask, channels)
            self._ring.restart()
        self._ring.commit()
        self._last_slot = slot
        self._channel_of_id = channels
        self._size = labels.shape[0], labels.shape[1]
        self._frame_index += 1
        return self._result(labels, probabilities, started, stepped)

    def stage(self, frame: NDArray[np.uint8]) -> None:
        """Say which frame follows the one that :meth:`step` is given next, if it is there already.

        A GPU then fetches it while that step executes. Nothing depends on it: a step may be given any frame.

        Args:
            frame: the very array of the step after the next one; it must not change until then.
        """
        if self._staging is not None:
            self._staging.stage(frame)

    def remove(self, object_id: int) -> None:
        """Stop following an object: its pixels, past and future, count as background.

        When the last object is removed the stream goes on, empty, until a mask brings another.

        Raises:
            MaskError: when no such object is followed.
        """
        self._require_open()
        if object_id not in self._channel_of_id:
            known = ", ".join(map(str, sorted(self._channel_of_id))) or "none"
            raise MaskError(f"object {object_id} is not followed (followed: {known})", "remove one that is")
        self._backend.merge_label(self._channel_of_id[object_id])
        del self._channel_of_id[object_id]

    def revise(self, labels: NDArray[np.uint8]) -> None:
        """Let memory hold ``labels`` for the frame that was processed last, instead of what it was given.

        Args:
            labels: [H, W] uint8 ids of objects that are followed, 0 = background.

        Raises:
            MaskError: when no frame was processed, or the labels are of another type or size than it.
        """
        self._require_open()
        if self._size is None or labels.dtype != np.uint8 or labels.shape != self._size:
            raise MaskError(
                f"labels of {labels.dtype} {list(labels.shape)} do not fit the frame processed last",
                "give uint8 object ids of its height and width",
            )
        channel_of_id = np.zeros(256, np.uint8)
        channel_of_id[list(self._channel_of_id)] = list(self._channel_of_id.values())
        self._write_labels(self._last_slot, label_maps.rename(labels, channel_of_id))

    def close(self) -> None:
        """Release the backend; the tracker cannot be used afterwards. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._backend.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the tracker is closed")

    def _checked_frame(self, frame: Pixels) -> Pixels:
        frame = frame if isinstance(frame, DeviceFrame) else np.asarray(frame)
        require_pixels(frame)
        height, width = frame.shape[:2]
        if self._size is not None and (height, width) != self._size:
            raise SourceError(
                f"the stream changed from {self._size[1]}x{self._size[0]} to {width}x{height} pixels at "
                f"frame {self._frame_index}",
                "resize its frames to one size, or start a new tracker with a mask of the new size",
            )
        self._backend.metadata.require_frame_size(height, width)
        return frame

    def _with_objects_of(self, mask: NDArray[np.uint8], frame: Pixels) -> dict[int, int]:
        """Channels by object id, with those that ``mask`` adds."""
        mask = np.asarray(mask)
        require_mask_of(mask, frame.shape[:2])
        ids = _ids_in(mask)
        if not ids:
            raise MaskError("the mask is empty", "mark each object with its own number from 1 to 255")
        channels = dict(self._channel_of_id)
        free = iter(sorted(set(range(1, MAX_LABELS)) - set(channels.values())))
        for object_id in ids:
            if object_id not in channels:
                channels[object_id] = next(free)
        limit = (self._backend.metadata.num_labels or MAX_LABELS) - 1
        if len(channels) > limit:
            raise MaskError(
                f"the mask makes it {len(channels)} objects and the model was exported for {limit}",
                f"export it with --objects {len(channels)}, without --objects for any number, or mark fewer",
            )
        return channels

    def _windows(self, frame: Pixels) -> float:
        """Shorter side of the frame, in window radii of the model."""
        metadata = self._backend.metadata
        return min(metadata.feature_size(*frame.shape[:2])) / max(1, metadata.radius)

    def _allocate(self, frame: Pixels, channels: dict[int, int]) -> None:
        height, width = frame.shape[:2]
        labels = self._backend.metadata.num_labels or max(channels.values(), default=0) + 1
        if self._allocated is not None and self._allocated[:2] == (height, width):
            labels = max(labels, self._allocated[2])
        if self._allocated != (height, width, labels):
            self._backend.allocate(height, width, self._ring.slots, labels)
            self._allocated = height, width, labels

    def _remember_mask(
        self, slot: int, propagated: NDArray[np.uint8], mask: NDArray[np.uint8], channels: dict[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Merge the mask into the propagated labels and store what comes out in place of them."""
        channel_of_id = np.zeros(256, np.uint8)
        channel_of_id[list(channels)] = list(channels.values())
        redrawn = [channels[object_id] for object_id in _ids_in(mask)]
        drawn = label_maps.rename(mask, channel_of_id)
        labels = label_maps.overwrite(propagated, drawn, redrawn)
        return labels, self._write_labels(slot, labels)

    def _write_labels(self, slot: int, labels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Store labels [H, W] (channels) as the label map of a slot; returns what was stored."""
        assert self._allocated is not None
        sample = label_maps.sample_soft if self._soft else label_maps.sample_hard
        value = sample(labels, self._allocated[2], self._backend.metadata.stride)
        self._backend.write_value(slot, value)
        return value

    def _result(
        self,
        labels: NDArray[np.uint8],
        probabilities: NDArray[np.floating[Any]],
        started: float,
        stepped: float,
    ) -> Result:
        objects = self._objects(labels, probabilities)
        ids = [state.id for state in objects]
        channels = [self._channel_of_id[object_id] for object_id in ids]
        if ids == channels == list(range(1, len(probabilities))):  # most often, and copying costs less
            named, of_objects = labels.copy(), probabilities.copy()
        else:
            id_of_channel = np.zeros(256, np.uint8)
            id_of_channel[channels] = ids
            named, of_objects = label_maps.rename(labels, id_of_channel), probabilities[[0, *channels]]
        ended = time.perf_counter()
        timings = Timings(step=stepped - started, post=ended - stepped, total=ended - started)
        return Result(named, of_objects, objects, timings, self._frame_index - 1)

    def _objects(
        self, labels: NDArray[np.uint8], probabilities: NDArray[np.floating[Any]]
    ) -> tuple[ObjectState, ...]:
        boxes = label_maps.boxes(labels, probabilities.shape[0])
        areas = label_maps.areas(labels, boxes)
        means = label_maps.mean_confidences(labels, probabilities, self._backend.metadata.stride)
        return tuple(
            ObjectState(object_id, areas.get(channel, 0), boxes.get(channel), means.get(channel))
            for object_id, channel in sorted(self._channel_of_id.items())
        )


def require_pixels(frame: Pixels) -> None:
    """Make sure that a frame is uint8 [H, W, 3] and not empty.

    Raises:
        SourceError: when it is not.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise SourceError(
            f"the frame is {frame.dtype} {list(frame.shape)}", "give uint8 RGB pixels [height, width, 3]"
        )


def require_mask_of(mask: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Make sure that a mask has the form of a frame's (H, W).

    Raises:
        MaskError: when it has not.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise MaskError(
            f"the mask is {mask.dtype} {list(mask.shape)}", "give uint8 object ids [height, width]"
        )
    if mask.shape != shape:
        raise MaskError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels and the frame {shape[1]}x{shape[0]}",
            "draw the mask at the size of the frames",
        )


def _ids_in(mask: NDArray[np.uint8]) -> list[int]:
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=MAX_LABELS))
    return [int(object_id) for object_id in present if object_id > 0]
