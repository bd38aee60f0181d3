"""Online refinement: the U-Net adapts while the stream runs and refines each frame with its newest weights."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.types import ArrayLike
from ..tracking.checks import as_image, as_mask
from ..tracking.result import Result
from ..tracking.tracker import Tracker
from .guard import NOT_ADAPTED_REASON, Guard, corrected_memory
from .network.predictor import Predictor, one_thread
from .samples import SampleMaker
from .settings import RefinementSettings
from .worker import Worker


class OnlineRefiner:
    """A tracker whose results are refined. It can replace a :class:`Tracker` everywhere.

    Each frame costs one forward pass of the U-Net in addition to tracking; the worker does the learning. Masks
    stay as propagated until the first snapshot arrives.

    Args:
        tracker: has seen no frame; closed together with this object.
        settings: see :class:`RefinementSettings`.
        worker: adapts the U-Net; closed together with this object.

    Attributes:
        predictor: the U-Net that refines the next frame.
        iterations: optimiser steps that it has taken.
        worker: adapts the U-Net.
    """

    def __init__(self, tracker: Tracker, settings: RefinementSettings, worker: Worker) -> None:
        self.predictor = Predictor.untrained(settings.width, settings.seed)
        self.iterations = 0
        self._tracker = tracker
        self._settings = settings
        self.worker = worker
        self._samples = SampleMaker(settings, tracker.stride)
        self._guard = Guard(settings.online_trust, tracker.metadata)
        self._fallback_reasons: dict[int, str] = {}

    def step(self, frame: ArrayLike, mask: ArrayLike | None = None) -> Result:
        """Label the next frame of the stream, see :meth:`Tracker.step`; a frame with a mask is not refined.

        ``Result.fallback_reasons`` names the objects whose mask is propagation's, with the reason.

        Raises:
            UserError: as :meth:`Tracker.step`, and when the worker has died.
        """
        image = as_image(frame)
        ids = None if mask is None else as_mask(mask, image.shape)
        result = self._tracker.step(image, ids)
        self.worker.offer(self._samples.make(image, result, ids))
        snapshot = self.worker.newest()
        if snapshot is not None:
            self.predictor.adopt(snapshot.ids, snapshot.weights)
            self._fallback_reasons = dict(snapshot.fallback_reasons)
            self.iterations = snapshot.iterations
        if mask is not None:
            self._guard.drawn(result)
            return replace(result, fallback_reasons={})
        return self._refined(image, result)

    def prefetch(self, frame: NDArray[np.uint8]) -> None:
        """Announce the frame after the next one, see :meth:`Tracker.prefetch`."""
        self._tracker.prefetch(frame)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object, see :meth:`Tracker.remove`."""
        self._tracker.remove(object_id)

    def close(self) -> None:
        """Stop the worker and close the tracker. Closing twice does nothing.

        Raises:
            UserError: when the worker has died and :meth:`step` has not raised that yet.
        """
        try:
            self.worker.close()
        finally:
            self._tracker.close()

    def __enter__(self) -> OnlineRefiner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error of the block matters more to the user than the worker's.
        with contextlib.nullcontext() if error is None else contextlib.suppress(UserError):
            self.close()

    def _refined(self, frame: NDArray[np.uint8], result: Result) -> Result:
        started = time.perf_counter()
        ids = [state.id for state in result.objects]
        new = {one: NOT_ADAPTED_REASON for one in ids if one not in self.predictor.ids}
        if len(new) == len(ids):
            return replace(result, fallback_reasons=new)
        crop = self._samples.crop(result)
        with one_thread():  # a second one would wait for the core that the worker computes on
            network = self.predictor.predict(crop.image(frame), ids)
        refined = self._guard.decide(frame, result, network, crop, self._fallback_reasons | new)
        if self._settings.feedback:
            memory = corrected_memory(result, refined, network, crop, self._tracker.stride)
            if memory is not None:
                self._tracker.revise(memory)
        return refined.delayed(time.perf_counter() - started)
