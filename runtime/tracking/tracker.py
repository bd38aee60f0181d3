"""The tracker: :meth:`Tracker.step` turns a frame into its labels."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import NoReturn

import numpy as np

from ...common.errors import MaskError, SourceError
from ...common.forks import forked_error, never_release, tell_of_forks
from ...common.types import MAX_LABELS, ArrayLike, FloatMaps, Floats, Labels
from ..arrays import label_maps
from ..arrays.upsampling import argmax_planes
from ..backends import Backend, DeviceFrame, PrefetchingBackend
from ..backends.device_frame import Pixels
from ..model.metadata import ModelMetadata
from .checks import as_frame, as_mask
from .history import History
from .memory import MemoryPolicy, MemoryRing
from .objects import ObjectTable, ids_in
from .result import Result, Timings


class Tracker:
    """Tracks objects through one stream of frames.

    Args:
        backend: executes the model; the tracker closes it.
        policy: which past frames are read; None for the policy stored in the model.

    Raises:
        UserError: when the model has too few memory slots for the policy.
    """

    _size: tuple[int, int] | None  # (H, W) of the stream, set by its first frame
    _allocated: tuple[int, int, int] | None  # height, width, number of labels
    _last_slot: int  # slot that the latest frame was written to
    _objects: ObjectTable
    _frame_index: int

    def __init__(self, backend: Backend, *, policy: MemoryPolicy | None = None) -> None:
        metadata = backend.metadata
        self._backend = backend
        self._prefetching = backend if isinstance(backend, PrefetchingBackend) else None
        self._policy = policy or MemoryPolicy.of_model(metadata)
        self._allocated = None
        self._stepping = threading.Lock()
        self._begin()
        self._closed = self._forked = False
        tell_of_forks(self)

    @property
    def metadata(self) -> ModelMetadata:
        """Describes the model."""
        return self._backend.metadata

    @property
    def stride(self) -> int:
        """Pixels per feature of the model, in both directions."""
        return self.metadata.stride

    def step(self, frame: ArrayLike | DeviceFrame, mask: ArrayLike | None = None) -> Result:
        """Label the next frame of the stream.

        Without a mask, labels are propagated from memory. With a mask, its pixels are final: each id names an
        object, new or already tracked, that covers exactly these pixels. Pixels that are 0 keep their
        propagated label, unless that label is one of the mask's ids. The first frame needs a mask.

        A mask that redraws a tracked object restarts memory at this frame. A mask that only adds objects does
        not: the frames in memory are searched for the new objects, which takes one more step for each, and
        continue to vote for the others. Frames on the GPU are not kept, so there every mask restarts memory.

        A call that raises leaves the tracker as it was: the frame can be given again.

        Args:
            frame: [H, W, 3] uint8 RGB: an array of NumPy, an image of Pillow, a tensor of torch or of another
                framework, of any strides. With an engine it may be on the GPU, as a :class:`DeviceFrame`.
            mask: [H, W] object ids from 0 to 255, of the same kinds and any type of integer; 0 leaves the
                pixel to propagation.

        Raises:
            SourceError: when the frame has another type or size than the stream or the model.
            MaskError: when the first frame has no mask; or the mask is empty, of another type or size than
                the frame, or makes more objects than the model can track.
            UnavailableError: when the tracker was opened before this process was forked.
            RuntimeError: when another thread is within a step; open a tracker for each.
        """
        if not self._stepping.acquire(blocking=False):
            raise RuntimeError("another thread is within a step of this tracker; open a tracker for each")
        try:
            return self._step(frame, mask)
        finally:
            self._stepping.release()

    def _step(self, frame: ArrayLike | DeviceFrame, mask: ArrayLike | None) -> Result:
        """See :meth:`step`."""
        started = time.perf_counter()
        self._check_open()
        frame = self._checked_frame(frame)
        objects = self._objects
        ids = None if mask is None else as_mask(mask, frame.shape)
        if ids is not None:
            objects = objects.with_objects_of(ids, self._backend.metadata.num_labels or MAX_LABELS)
        elif self._size is None:
            raise MaskError(
                "the first frame has no mask, so there is nothing to track",
                "give it one: step(frame, mask) with object ids from 1 to 255",
            )
        self._allocate(frame, objects)

        dilation, slot = self._ring.plan(self._frame_in_radii(frame))
        labels, probabilities = self._backend.step(frame, dilation, slot)
        stepped = time.perf_counter()
        kept = argmax_planes(probabilities)
        if ids is not None:
            labels, kept, probabilities = self._apply_mask(slot, labels, kept, ids, objects)
            self._remember_mask(slot, ids_in(ids), objects)
        self._history.store(slot, frame, kept)
        self._ring.commit()
        self._last_slot = slot
        self._objects = objects
        self._size = labels.shape[0], labels.shape[1]
        self._frame_index += 1
        return self._result(labels, probabilities, started, stepped)

    def prefetch(self, frame: ArrayLike | DeviceFrame) -> None:
        """Announce the frame after the one that :meth:`step` is given next, if it is already decoded.

        A GPU then uploads it while that step executes. This is an optimization alone: a step may be given any
        frame.

        Args:
            frame: the very array of the step after the next one; it must not change until then. Frames of
                other kinds are not uploaded early.
        """
        if self._prefetching is not None and isinstance(frame, np.ndarray):
            self._prefetching.prefetch(frame)

    def reset(self) -> None:
        """Forget all frames and objects, so that the next step begins another stream, of any size.

        The model stays loaded. What follows is what a new tracker would give.
        """
        self._check_open()
        self._begin()

    def _begin(self) -> None:
        """Hold nothing of any stream. Memory stays allocated: what is in it is not read."""
        self._ring = MemoryRing(self._policy, self._backend.metadata.num_slots)
        self._history = History()
        self._objects = ObjectTable()
        self._size = None
        self._last_slot = 0
        self._frame_index = 0

    def remove(self, object_id: int) -> None:
        """Stop tracking an object: its pixels, past and future, count as background.

        When the last object is removed, the stream goes on without objects until a mask adds one.

        Raises:
            MaskError: when no such object is tracked.
        """
        self._check_open()
        channel = self._objects.channel(object_id)
        self._backend.merge_label(channel)
        self._history.merge_label(channel)
        self._objects = self._objects.without(object_id)

    def revise(self, labels: ArrayLike) -> None:
        """Replace the label map that memory holds for the latest frame.

        Args:
            labels: [H, W] uint8 ids of tracked objects, 0 = background.

        Raises:
            MaskError: when no frame was processed yet, or the labels are of another type or size than it.
        """
        self._check_open()
        if self._size is None:
            raise MaskError("no frame was tracked yet, so there are no labels to revise", "call step() first")
        try:
            ids = as_mask(labels, self._size)
        except MaskError as error:
            raise MaskError(
                f"{error.problem}, so the labels do not fit the latest frame",
                "give object ids of its height and width",
            ) from error
        channels = self._objects.to_channels(ids)
        self._relabel(self._last_slot, channels[:: self.stride, :: self.stride].copy())

    def close(self) -> None:
        """Release the backend; the tracker cannot be used afterwards. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._backend.close()

    def __reduce__(self) -> NoReturn:
        """Copies would write into the same memory; this also refuses pickling."""
        raise TypeError("a tracker cannot be copied or pickled; open another one")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """See :class:`maskring.common.forks.Forkable`."""
        if not self._closed:
            never_release(self._backend)
            self._closed = self._forked = True

    def _check_open(self) -> None:
        if self._forked:
            raise forked_error("the tracker")
        if self._closed:
            raise ValueError("the tracker is closed")

    def _checked_frame(self, frame: ArrayLike | DeviceFrame) -> Pixels:
        pixels = as_frame(frame)
        height, width = pixels.shape[:2]
        if self._size is not None and (height, width) != self._size:
            raise SourceError(
                f"the stream changed from {self._size[1]}x{self._size[0]} to {width}x{height} pixels at "
                f"frame {self._frame_index}",
                "resize its frames to one size, or call reset() and give a mask of the new size",
            )
        self._backend.metadata.check_frame_size(height, width)
        return pixels

    def _frame_in_radii(self, frame: Pixels) -> float:
        """Shorter side of the frame, in window radii of the model."""
        return self._backend.metadata.frame_in_radii(*frame.shape[:2])

    def _allocate(self, frame: Pixels, objects: ObjectTable) -> None:
        height, width = frame.shape[:2]
        num_labels = self._backend.metadata.num_labels or objects.num_labels
        if self._allocated is not None and self._allocated[:2] == (height, width):
            num_labels = max(num_labels, self._allocated[2])
        if self._allocated != (height, width, num_labels):
            self._backend.allocate(height, width, self._ring.num_slots, num_labels)
            self._allocated = height, width, num_labels

    def _apply_mask(
        self, slot: int, propagated: Labels, kept: Labels, mask: Labels, objects: ObjectTable
    ) -> tuple[Labels, Labels, Floats]:
        """Merge the mask into the propagated labels, and let ``slot`` keep it too.

        Args:
            slot: of the frame.
            propagated: [H, W], the labels of pixels.
            kept: [h, w], the labels of features. The guided filter changes the labels of pixels alone, so these
                are not a sample of ``propagated``.
            mask: [H, W] object ids.
            objects: the channels of the ids.

        Returns:
            Both with the mask, and what memory keeps as label maps [O, h, w].
        """
        redrawn = [objects.channel(object_id) for object_id in ids_in(mask)]
        channels = objects.to_channels(mask)
        at_features = channels[:: self.stride, :: self.stride]
        kept = label_maps.overwrite(kept, at_features, redrawn)
        return label_maps.overwrite(propagated, channels, redrawn), kept, self._write_labels(slot, kept)

    def _remember_mask(self, slot: int, ids: list[int], objects: ObjectTable) -> None:
        """Decide what memory keeps after a mask with these ids, whose frame is in ``slot``."""
        tracked, slots = set(self._objects.ids), self._ring.slots()
        only_adds = bool(tracked) and not tracked.intersection(ids)
        if not (only_adds and self._ring.can_retain and self._history.holds(slots.values())):
            self._ring.restart()
            return
        labels_before = {old_slot: self._history[old_slot].labels for old_slot in slots.values()}
        added = [objects.channel(object_id) for object_id in ids]
        read = {slot: 0}  # slot -> age: the frame with the mask, and the frame that was searched last
        try:
            for age, old_slot in slots.items():
                self._search_past_frame(old_slot, age, read, added)
                read = {slot: 0, old_slot: age}
        except BaseException:
            for old_slot, labels in labels_before.items():
                self._relabel(old_slot, labels)
            raise
        self._ring.retain()

    def _search_past_frame(self, slot: int, age: int, read: dict[int, int], added: list[int]) -> None:
        """Label new objects in the background of a frame in memory, by tracking backwards.

        Args:
            slot, age: of the frame.
            read: slots of newer frames to read, with their ages.
            added: channels of the new objects.
        """
        past, dilation = self._history[slot], np.zeros(self._ring.num_slots, np.int32)
        for newer, age_of_newer in read.items():
            frame_in_radii = self._frame_in_radii(past.frame)
            dilation[newer] = self._ring.policy.dilation(age - age_of_newer, frame_in_radii)
        found = argmax_planes(self._backend.step(past.frame, dilation, slot)[1])
        is_new = (past.labels == 0) & np.isin(found, added)
        self._relabel(slot, np.where(is_new, found, past.labels))

    def _relabel(self, slot: int, labels: Labels) -> None:
        """Replace the labels [h, w] (channels) of a frame in memory."""
        self._write_labels(slot, labels)
        self._history.relabel(slot, labels)

    def _write_labels(self, slot: int, labels: Labels) -> Floats:
        """Store labels [h, w] (channels) as the label map of a slot; returns the label map [O, h, w]."""
        assert self._allocated is not None
        value = label_maps.sample(labels, self._allocated[2], 1)
        self._backend.write_value(slot, value)
        return value

    def _result(self, labels: Labels, probabilities: FloatMaps, started: float, stepped: float) -> Result:
        states = self._objects.measure(labels, probabilities, self.stride)
        ids, of_objects = self._objects.to_ids(labels, probabilities)
        ended = time.perf_counter()
        timings = Timings(step=stepped - started, post=ended - stepped, total=ended - started)
        return Result(ids, of_objects, states, timings, self._frame_index - 1)
